//! `/proc/interrupts`: how many interrupts of which cause all CPUs have had.
//!
//! x86 counts function calls (`CAL`) and, of those, the ones that flushed a TLB (`TLB`): a flush is in both lines since
//! Linux 4.14. arm64 flushes without interrupts, and has one line of function calls. The sync of Linux
//! (`tlb_remove_table_sync_one`) is a function call with no other trace, so it is what remains when flushes are taken
//! away: together with whatever else called a function.
//!
//! The two lines do not count alike: one interrupt that finds two flushes waiting is one in `CAL` and two in `TLB`. So
//! flushes are taken away from what came between two readings, where one CPU flushes and waits each time, and never
//! from the sums since the start.

/// Interrupts that all CPUs took since the machine started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Function calls that flushed a TLB.
    pub flush: u64,
    /// Function calls, those that flushed among them.
    pub calls: u64,
    /// Wake-ups of a CPU's scheduler.
    pub reschedule: u64,
}

impl Totals {
    /// Function calls that were not flushes; of what came between two readings.
    pub fn other_calls(self) -> u64 {
        self.calls.saturating_sub(self.flush)
    }

    /// What came between an earlier reading and this one.
    pub fn since(self, earlier: Totals) -> Totals {
        Totals {
            flush: self.flush.saturating_sub(earlier.flush),
            calls: self.calls.saturating_sub(earlier.calls),
            reschedule: self.reschedule.saturating_sub(earlier.reschedule),
        }
    }

    /// Both together.
    pub fn and(self, more: Totals) -> Totals {
        Totals {
            flush: self.flush + more.flush,
            calls: self.calls + more.calls,
            reschedule: self.reschedule + more.reschedule,
        }
    }
}

/// Reads the text of `/proc/interrupts` of either architecture; `None` if a line that must be there is not.
pub fn totals(text: &str) -> Option<Totals> {
    if let Some(calls) = line(text, "CAL", "Function call interrupts") {
        let flush = line(text, "TLB", "TLB shootdowns")?;
        let reschedule = line(text, "RES", "Rescheduling interrupts")?;
        return Some(Totals { flush, calls, reschedule });
    }
    // The numbers of arm64's IPIs are not part of any promise; their names are what the kernel prints.
    let calls = line(text, "IPI", "Function call interrupts")?;
    let reschedule = line(text, "IPI", "Rescheduling interrupts")?;
    Some(Totals { flush: 0, calls, reschedule })
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

#[cfg(test)]
mod tests {
    use super::*;

    // As two machines with two CPUs printed them.
    const X86_64: &str = include_str!("../samples/interrupts-6.12-x86_64.txt");
    const AARCH64: &str = include_str!("../samples/interrupts-6.12-aarch64.txt");

    #[test]
    fn both_architectures_are_read() {
        assert_eq!(totals(X86_64), Some(Totals { flush: 0, calls: 117 + 149, reschedule: 18 + 57 }));
        assert_eq!(totals(AARCH64), Some(Totals { flush: 0, calls: 144 + 136, reschedule: 47 + 33 }));
    }

    #[test]
    fn a_flush_is_a_function_call_too_and_counted_once() {
        let flushed = X86_64.replace("TLB:          0          0", "TLB:         40          2");
        assert_ne!(flushed, X86_64);
        let between = totals(&flushed).unwrap();
        assert_eq!(between, Totals { flush: 42, calls: 117 + 149, reschedule: 75 });
        assert_eq!(between.other_calls(), 117 + 149 - 42);
    }

    #[test]
    fn a_text_without_a_line_that_is_needed_is_refused() {
        for missing in ["CAL:", "TLB:", "RES:"] {
            let text: String = X86_64.lines().filter(|l| !l.starts_with(missing)).map(|l| format!("{l}\n")).collect();
            assert_eq!(totals(&text), None, "{missing}");
        }
        assert_eq!(totals(&AARCH64.replace("Function call interrupts", "Calls")), None);
        assert_eq!(totals(""), None);
    }

    #[test]
    fn what_came_between_two_readings() {
        // More flushes than calls since the start: some interrupts had two to do.
        let before = Totals { flush: 30, calls: 20, reschedule: 5 };
        let after = Totals { flush: 33, calls: 26, reschedule: 5 };
        let between = after.since(before);
        assert_eq!(between, Totals { flush: 3, calls: 6, reschedule: 0 });
        assert_eq!(between.other_calls(), 3);
        assert_eq!(between.and(between).flush, 6);
    }
}
