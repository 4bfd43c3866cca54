//! What the init says: one JSON text for each record, framed as in RFC 7464 (a record separator before it, a line feed
//! behind it), so that messages of the kernel on the same line of the console are told apart from it, and a record that
//! was torn is noticed.

use serde::{Deserialize, Serialize};

/// Stands before each record.
pub const SEPARATOR: u8 = 0x1e;
/// Stands behind each record.
pub const END: u8 = b'\n';
/// The longest record, with its frame, in bytes.
pub const LONGEST: usize = 1024;

/// A record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record<'a> {
    /// The first one.
    Start {
        /// Release of the kernel, as `uname` gives it.
        release: &'a str,
        /// CPUs that are online.
        cpus: u32,
    },
    /// One cell was measured.
    Counts {
        /// Name of a [`crate::options::Workload`].
        workload: &'a str,
        /// Name of a [`crate::options::Mode`].
        mode: &'a str,
        /// Operations that were counted.
        ops: u64,
        /// Flush interrupts that all CPUs took in them.
        flush: u64,
        /// Other function-call interrupts that all CPUs took in them.
        other_calls: u64,
        /// Rescheduling interrupts that all CPUs took in them.
        reschedule: u64,
        /// Calls of `get_user_pages_fast` that all walkers together finished in the cell.
        walks: u64,
        /// Batches that were done again because an operation was refused with `EAGAIN`.
        repeated: u64,
        /// Ticks of the machine's counter in one batch: the fewest of all batches.
        ticks: u64,
        /// Ticks in a second.
        ticks_per_second: u64,
    },
    /// A cell could not be measured.
    Failed {
        /// Name of a [`crate::options::Workload`].
        workload: &'a str,
        /// Name of a [`crate::options::Mode`].
        mode: &'a str,
        /// What was being done.
        step: &'a str,
        /// The system call's error number; 0 if there is none.
        errno: u32,
    },
    /// The init itself cannot go on.
    Refused {
        /// What is wrong.
        what: &'a str,
        /// The system call's error number; 0 if there is none.
        errno: u32,
    },
    /// The last one.
    End {
        /// Cells that were measured or failed.
        cells: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_record_fits_its_frame() {
        let record = Record::Counts {
            workload: "collapse_shmem_ptemapped",
            mode: "other",
            ops: u64::MAX,
            flush: u64::MAX,
            other_calls: u64::MAX,
            reschedule: u64::MAX,
            walks: u64::MAX,
            repeated: u64::MAX,
            ticks: u64::MAX,
            ticks_per_second: u64::MAX,
        };
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.len() + 2 < LONGEST, "{}", text.len());
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn a_name_that_neither_side_knows_is_an_error() {
        assert!(serde_json::from_str::<Record>("{\"begin\":{}}").is_err());
    }
}
