//! The guest's memory, read through the file that backs it: the root [`Shared`], rows, per-CPU states and rings.
//!
//! The guest writes while this is read, so whatever says "the following is complete" (a state, a count) is read before
//! what it describes, and nothing that was read is trusted to be an address without a check.

use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail, ensure};
use kernel::record::cell::{CellRow, Violation};
use kernel::record::event::{EVENT_BYTES, Event};
use kernel::record::profile as record;
use kernel::record::ring::RingHeader;
use kernel::record::shared::{BACKTRACE_DEPTH, CpuStatus, Doing, MAGIC, MESSAGE_BYTES, RunState, Shared, VERSION};

use crate::profile::Profile;

/// The most that is read of one ring.
const RING_LIMIT: u64 = 64 << 20;

/// A guest's RAM.
pub(crate) struct GuestMemory {
    file: File,
    ram_base: u64,
    root: u64,
}

/// How the run stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Standing {
    /// Whether the guest has filled the root in.
    pub(crate) started: bool,
    /// A [`RunState`] number.
    pub(crate) state: u32,
    /// CPUs online.
    pub(crate) cpus: u32,
    /// Cells in the plan.
    pub(crate) cells_planned: u32,
    /// Rows complete.
    pub(crate) cells_done: u32,
    /// Grows with every operation.
    pub(crate) progress: u64,
    /// Where the rows are.
    pub(crate) cells_at: u64,
    /// Where their profiles are; 0 where none are recorded.
    pub(crate) profiles_at: u64,
}

impl Standing {
    /// The state, if its number is one.
    pub(crate) fn run_state(&self) -> Option<RunState> {
        RunState::from_number(self.state)
    }
}

/// What one CPU was doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CpuState {
    /// Its activity; `None` for a number without a meaning.
    pub(crate) doing: Option<Doing>,
    /// The CPU that it waits for.
    pub(crate) waits_for: Option<u32>,
    /// Detail of the activity.
    pub(crate) detail: u64,
    /// Pause points that it has crossed, one bit each.
    pub(crate) points: u64,
}

/// What a ring still holds, and how many bytes before that are lost.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct RingContents {
    /// In the order of writing.
    pub(crate) bytes: Vec<u8>,
    /// Bytes that were overwritten.
    pub(crate) lost: u64,
}

/// What one CPU's ring of events still holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct CpuEvents {
    /// Oldest first.
    pub(crate) events: Vec<Event>,
    /// Events before them that were overwritten.
    pub(crate) overwritten: u64,
    /// Events that were never written, since they came in the middle of another.
    pub(crate) dropped: u64,
}

impl GuestMemory {
    /// The memory in `file`, whose first byte is at `ram_base`, with the root at physical address `root`.
    pub(crate) fn new(file: File, ram_base: u64, root: u64) -> GuestMemory {
        GuestMemory { file, ram_base, root }
    }

    fn read(&self, physical: u64, bytes: usize) -> anyhow::Result<Vec<u8>> {
        let offset = physical.checked_sub(self.ram_base).context("the guest named an address below its memory")?;
        let mut buffer = vec![0; bytes];
        self.file
            .read_exact_at(&mut buffer, offset)
            .with_context(|| format!("the guest named {physical:#x}, which is not in its memory"))?;
        Ok(buffer)
    }

    /// How the run stands now.
    pub(crate) fn standing(&self) -> anyhow::Result<Standing> {
        let state = self.read(self.root + offset_of!(Shared, state) as u64, 4)?;
        let head = self.read(self.root, offset_of!(Shared, message))?;
        let standing = Standing {
            started: u64::read(&head, offset_of!(Shared, magic)) == MAGIC,
            state: u32::read(&state, 0),
            cpus: u32::read(&head, offset_of!(Shared, cpus)),
            cells_planned: u32::read(&head, offset_of!(Shared, cells_planned)),
            cells_done: u32::read(&head, offset_of!(Shared, cells_done)),
            progress: u64::read(&head, offset_of!(Shared, progress)),
            cells_at: u64::read(&head, offset_of!(Shared, cells_at)),
            profiles_at: u64::read(&head, offset_of!(Shared, profiles_at)),
        };
        let version = u32::read(&head, offset_of!(Shared, version));
        ensure!(
            !standing.started || version == VERSION,
            "the image writes records of version {version} and this runner reads version {VERSION}; \
             run `cargo xtask build`"
        );
        Ok(standing)
    }

    /// Row number `index` of those that `standing` calls complete.
    pub(crate) fn row(&self, standing: &Standing, index: u32) -> anyhow::Result<CellRow> {
        ensure!(standing.started && index < standing.cells_done, "row {index} is not complete");
        let bytes = size_of::<CellRow>();
        Ok(CellRow::read(&self.read(standing.cells_at + index as u64 * bytes as u64, bytes)?, 0))
    }

    /// The profile of that row, if one was recorded.
    pub(crate) fn profile(&self, standing: &Standing, index: u32) -> anyhow::Result<Option<Profile>> {
        ensure!(standing.started && index < standing.cells_done, "row {index} is not complete");
        if standing.profiles_at == 0 {
            return Ok(None);
        }
        let bytes = size_of::<record::Profile>();
        Ok(Profile::read(&self.read(standing.profiles_at + index as u64 * bytes as u64, bytes)?))
    }

    /// Why the run ended, as far as the guest said.
    pub(crate) fn message(&self) -> anyhow::Result<String> {
        let length = self.read(self.root + offset_of!(Shared, message_len) as u64, 4)?;
        let length = (u32::read(&length, 0) as usize).min(MESSAGE_BYTES);
        let bytes = self.read(self.root + offset_of!(Shared, message) as u64, length)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The CPU that panicked and its return addresses, innermost first.
    pub(crate) fn backtrace(&self) -> anyhow::Result<(u32, Vec<u64>)> {
        let head = self.read(self.root, size_of::<Shared>())?;
        let depth = (u32::read(&head, offset_of!(Shared, backtrace_len)) as usize).min(BACKTRACE_DEPTH);
        let at = offset_of!(Shared, backtrace);
        let addresses = (0..depth).map(|i| u64::read(&head, at + 8 * i)).collect();
        Ok((u32::read(&head, offset_of!(Shared, panic_cpu)), addresses))
    }

    /// Pause points that any CPU has crossed, one bit each by the number of [`kernel::scenario::Point`].
    pub(crate) fn points(&self) -> anyhow::Result<u64> {
        Ok(self.cpu_states()?.iter().fold(0, |points, cpu| points | cpu.points))
    }

    /// What each CPU is doing now.
    pub(crate) fn cpu_states(&self) -> anyhow::Result<Vec<CpuState>> {
        let head = self.read(self.root, offset_of!(Shared, message))?;
        let (cpus, at) = (u32::read(&head, offset_of!(Shared, cpus)), u64::read(&head, offset_of!(Shared, status_at)));
        if at == 0 {
            return Ok(Vec::new());
        }
        let bytes = size_of::<CpuStatus>();
        let all = self.read(at, bytes * (cpus as usize).min(4096))?;
        let decode = |one: &[u8]| CpuState {
            doing: Doing::from_number(u32::read(one, offset_of!(CpuStatus, doing))),
            waits_for: Some(u32::read(one, offset_of!(CpuStatus, waits_for))).filter(|&c| c != u32::MAX),
            detail: u64::read(one, offset_of!(CpuStatus, detail)),
            points: u64::read(one, offset_of!(CpuStatus, points)),
        };
        Ok(all.chunks_exact(bytes).map(decode).collect())
    }

    /// The structured log's bytes.
    pub(crate) fn structured_log(&self) -> anyhow::Result<RingContents> {
        self.ring(self.root + offset_of!(Shared, defmt) as u64)
    }

    /// What each CPU's ring of events still holds.
    pub(crate) fn events(&self) -> anyhow::Result<Vec<CpuEvents>> {
        let head = self.read(self.root, offset_of!(Shared, message))?;
        let (cpus, at) = (u32::read(&head, offset_of!(Shared, cpus)), u64::read(&head, offset_of!(Shared, rings_at)));
        if at == 0 {
            return Ok(Vec::new());
        }
        let one = |cpu: u64| {
            let header = at + cpu * size_of::<RingHeader>() as u64;
            let dropped = u64::read(&self.read(header + offset_of!(RingHeader, dropped) as u64, 8)?, 0);
            let ring = self.ring(header)?;
            let events = ring.bytes.chunks_exact(EVENT_BYTES).map(|bytes| Event::read(bytes, 0)).collect();
            Ok(CpuEvents { events, overwritten: ring.lost.div_ceil(EVENT_BYTES as u64), dropped })
        };
        (0..u64::from(cpus.min(4096))).map(one).collect()
    }

    fn ring(&self, header: u64) -> anyhow::Result<RingContents> {
        let header = self.read(header, size_of::<RingHeader>())?;
        let at = u64::read(&header, offset_of!(RingHeader, at));
        let capacity = u64::read(&header, offset_of!(RingHeader, capacity));
        let written = u64::read(&header, offset_of!(RingHeader, written));
        if at == 0 || written == 0 {
            return Ok(RingContents { bytes: Vec::new(), lost: 0 });
        }
        if !capacity.is_power_of_two() || capacity > RING_LIMIT {
            bail!("the guest describes a ring of {capacity} bytes, which cannot be");
        }
        let whole = self.read(at, capacity as usize)?;
        let lost = written.saturating_sub(capacity);
        let bytes = (lost..written).map(|n| whole[(n % capacity) as usize]).collect();
        Ok(RingContents { bytes, lost })
    }
}

/// A type whose bytes are defined: little endian, at the offsets of its Rust definition.
trait Record {
    /// Reads it at `at`.
    fn read(bytes: &[u8], at: usize) -> Self;
}

macro_rules! record {
    ($number:ident) => {
        impl Record for $number {
            fn read(bytes: &[u8], at: usize) -> Self {
                $number::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
            }
        }
    };
    ($type:ident { $($field:ident)* }) => {
        impl Record for $type {
            fn read(bytes: &[u8], at: usize) -> Self {
                $type { $($field: Record::read(bytes, at + offset_of!($type, $field)),)* }
            }
        }
    };
}

record!(u8);
record!(u16);
record!(u32);
record!(u64);
record!(i64);
record!(CellRow {
    strategy workload mode transport hook expected verdict miscounted cpus walker ops flush_ipis sync_ipis syncs_elided
    redundant_sync_ipis missing_syncs tlbi vectors instructions walks pages pins injected left violations_ghost violations_value
    predicted_flush predicted_sync predicted_elided predicted_tlbi bystander_flush bystander_sync bystander_nmi bystander_gap
    latencies predicted_bystander uncovered program_status seeds user promised steps first
});
record!(Event { time kind cpu mm a b });
record!(Violation { kind walker updater level mm pfn address walk op times });

impl<T: Record, const N: usize> Record for [T; N] {
    fn read(bytes: &[u8], at: usize) -> Self {
        std::array::from_fn(|i| T::read(bytes, at + size_of::<T>() * i))
    }
}

#[cfg(test)]
pub(crate) mod forged {
    //! A guest's memory as a test writes it.

    use super::*;

    /// Memory to write into, RAM starting at `BASE`, the root at `ROOT`.
    pub(crate) struct Forged(pub(crate) File);

    pub(crate) const BASE: u64 = 0x4000_0000;
    pub(crate) const ROOT: u64 = BASE + 0x1000;

    impl Forged {
        pub(crate) fn new() -> Forged {
            let file = crate::child::anonymous_file("forged").unwrap();
            file.set_len(1 << 20).unwrap();
            Forged(file)
        }

        pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
            self.0.write_all_at(bytes, at - BASE).unwrap();
        }

        pub(crate) fn memory(&self) -> GuestMemory {
            GuestMemory::new(self.0.try_clone().unwrap(), BASE, ROOT)
        }
    }
}

#[cfg(test)]
mod tests;
