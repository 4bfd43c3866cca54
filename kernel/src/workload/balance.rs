//! What is in use: frames, tables, references to pages, pins. After a cell it must be what it was before.
//!
//! Frames and tables are counted as they come and go, and compared after every cell. References and pins are in the
//! descriptors of pages; to add them up takes a look at every frame of the machine, which a run asks for
//! (`balance=whole` on the command line: `cargo xtask soak`). Where it does not, a reference that was kept shows all
//! the same: its page's frame is missing.

use core::fmt;
use core::sync::atomic::Ordering;

use crate::arch::Arch;
use crate::suite::Suite;

/// So many in use, or so many more than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Balance {
    frames: i64,
    tables: i64,
    references: i64,
    pins: i64,
}

impl Balance {
    /// What is in use now. Nothing is under way.
    pub(crate) fn now<A: Arch>(suite: &Suite) -> Balance {
        let machine = A::machine();
        let (references, pins) = match suite.whole_balance {
            true => machine.frames.iter().fold((0, 0), |(references, pins), (_, frame)| {
                (references + i64::from(frame.refs()), pins + i64::from(frame.pins()))
            }),
            false => (0, 0),
        };
        let tables = machine.tables.load(Ordering::Relaxed) as i64;
        Balance { frames: -(machine.free_frames() as i64), tables, references, pins }
    }

    /// How much more than `before`.
    pub(crate) fn since(&self, before: &Balance) -> Balance {
        Balance {
            frames: self.frames - before.frames,
            tables: self.tables - before.tables,
            references: self.references - before.references,
            pins: self.pins - before.pins,
        }
    }

    /// Frames, tables, references, pins: as in a row.
    pub(crate) const fn numbers(&self) -> [i64; 4] {
        [self.frames, self.tables, self.references, self.pins]
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Balance { frames, tables, references, pins } = self;
        write!(f, "{frames} frames, {tables} tables, {references} references and {pins} pins")
    }
}
