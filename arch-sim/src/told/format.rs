//! The format in which the simulated machine tells interleavings (`cargo xtask sim --trace`): one line of JSON for
//! each.
//!
//! The runner, which does not link the simulated machine, compiles this very file to read them
//! (`xtask/src/trace/simulated.rs`): what is written and what is read is one definition.

use kernel::record::cell::Violation;
use kernel::record::event::Event;
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const VERSION: u32 = 1;

/// One interleaving.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// [`VERSION`].
    pub version: u32,
    /// What was run.
    pub title: String,
    /// What was found, if anything.
    pub heading: String,
    /// The events of each CPU.
    pub cpus: Vec<Vec<ToldEvent>>,
    /// By CPU: events that later ones were written over.
    pub overwritten: Vec<u64>,
    /// By CPU: events that found the ring in use.
    pub dropped: Vec<u64>,
    /// What was violated, if anything.
    pub violation: Option<ToldViolation>,
}

/// An [`Event`]: time (the number of the step), kind, CPU, mm, and its two details.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToldEvent(pub u64, pub u16, pub u16, pub u32, pub u64, pub u64);

impl From<Event> for ToldEvent {
    fn from(Event { time, kind, cpu, mm, a, b }: Event) -> ToldEvent {
        ToldEvent(time, kind, cpu, mm, a, b)
    }
}

impl From<ToldEvent> for Event {
    fn from(ToldEvent(time, kind, cpu, mm, a, b): ToldEvent) -> Event {
        Event { time, kind, cpu, mm, a, b }
    }
}

/// Writes the fields of a [`Violation`] once for both directions.
macro_rules! told_violation {
    ($($field:ident: $kind:ty),* $(,)?) => {
        /// A [`Violation`].
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        pub struct ToldViolation { $(#[doc = "As there."] pub $field: $kind,)* }

        impl From<Violation> for ToldViolation {
            fn from(Violation { $($field),* }: Violation) -> ToldViolation {
                ToldViolation { $($field),* }
            }
        }

        impl From<ToldViolation> for Violation {
            fn from(ToldViolation { $($field),* }: ToldViolation) -> Violation {
                Violation { $($field),* }
            }
        }
    };
}

told_violation! {
    kind: u16, walker: u16, updater: u16, level: u16, mm: u32, pfn: u32, address: u64, walk: u64, op: u64, times: [u64; 4],
}
