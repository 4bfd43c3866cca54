//! `/proc/interrupts`: how many interrupts of which cause all CPUs have had.
//!
//! x86 counts function calls (`CAL`) and, of those, the ones that flushed a TLB (`TLB`): a flush is in both lines since Linux 4.14.
//! arm64 flushes without interrupts, and has one line of function calls. The sync of Linux (`tlb_remove_table_sync_one`) is a function
//! call with no other trace, so it is what remains when flushes are taken away: together with whatever else called a function.

/// Interrupts that all CPUs took since the machine started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Function calls that flushed a TLB.
    pub flush: u64,
    /// Other function calls.
    pub other_calls: u64,
    /// Wake-ups of a CPU's scheduler.
    pub reschedule: u64,
}

impl Totals {
    /// What came between an earlier reading and this one.
    pub fn since(self, earlier: Totals) -> Totals {
        Totals {
            flush: self.flush.saturating_sub(earlier.flush),
            other_calls: self.other_calls.saturating_sub(earlier.other_calls),
            reschedule: self.reschedule.saturating_sub(earlier.reschedule),
        }
    }

    /// Both together.
    pub fn and(self, more: Totals) -> Totals {
        Totals {
            flush: self.flush + more.flush,
            other_calls: self.other_calls + more.other_calls,
            reschedule: self.reschedule + more.reschedule,
        }
    }
}

/// Reads the text of `/proc/interrupts` of either architecture; `None` if a line that must be there is not.
pub fn totals(text: &str) -> Option<Totals> {
    if let Some(calls) = line(text, "CAL", "Function call interrupts") {
        let flush = line(text, "TLB", "TLB shootdowns")?;
        let reschedule = line(text, "RES", "Rescheduling interrupts")?;
        return Some(Totals { flush, other_calls: calls.checked_sub(flush)?, reschedule });
    }
    // The numbers of arm64's IPIs are not part of any promise; their names are what the kernel prints.
    let other_calls = line(text, "IPI", "Function call interrupts")?;
    let reschedule = line(text, "IPI", "Rescheduling interrupts")?;
    Some(Totals { flush: 0, other_calls, reschedule })
}

/// The sum over all CPUs of the line whose label begins with `label` and whose description is `what`.
fn line(text: &str, label: &str, what: &str) -> Option<u64> {
    let mut found = text.lines().filter_map(|l| {
        let (name, rest) = l.split_once(':')?;
        (name.trim().starts_with(label) && rest.trim_end().ends_with(what)).then_some(rest)
    });
    let rest = found.next()?;
    rest.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok()).try_fold(0, u64::checked_add)
}
