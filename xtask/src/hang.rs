//! A guest that stopped making progress: which CPU waits for what.

use kernel::record::shared::Doing;

use crate::shared_memory::CpuState;

/// One line for each CPU; neighbours that do the same share a line.
pub(crate) fn report(states: &[CpuState]) -> Vec<String> {
    let mut lines: Vec<(usize, usize, String)> = Vec::new();
    for (cpu, state) in states.iter().enumerate() {
        let words = in_words(state);
        match lines.last_mut() {
            Some((_, last, same)) if *same == words && *last + 1 == cpu => *last = cpu,
            _ => lines.push((cpu, cpu, words)),
        }
    }
    lines
        .into_iter()
        .map(|(first, last, words)| {
            if first == last { format!("cpu {first} {words}") } else { format!("cpu {first} to {last}: each {words}") }
        })
        .collect()
}

/// What to look for where programs ran: it may be one of them that does not go on.
pub(crate) fn hint(states: &[CpuState]) -> &'static str {
    if states.iter().any(|state| state.doing == Some(Doing::Programs)) {
        ": a program loops or waits for ever, or works for long without saying so by kernel::progress \
         (docs/write-a-program.md)"
    } else {
        ""
    }
}

fn in_words(state: &CpuState) -> String {
    let Some(doing) = state.doing else { return "wrote a state that has no meaning".into() };
    let mut words = doing.in_words().to_owned();
    if let Some(other) = state.waits_for {
        words += &match doing {
            Doing::WaitFlush | Doing::WaitSync => format!(" by cpu {other}"),
            Doing::WaitLock => format!(" that cpu {other} holds"),
            _ => format!(" (cpu {other})"),
        };
    }
    if state.detail != 0 {
        words += &format!(" [{:#x}]", state.detail);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(doing: Doing, waits_for: Option<u32>) -> CpuState {
        CpuState { doing: Some(doing), waits_for, detail: 0, points: 0 }
    }

    #[test]
    fn where_programs_ran_it_may_be_theirs() {
        let states = [state(Doing::Programs, None), state(Doing::WaitSync, Some(0))];
        assert!(hint(&states).contains("kernel::progress"));
        assert_eq!(report(&states)[0], "cpu 0 runs programs");
        assert_eq!(hint(&states[1..]), "");
    }

    #[test]
    fn it_says_who_waits_for_whom() {
        let states = [
            state(Doing::WaitSync, Some(3)),
            state(Doing::Idle, None),
            state(Doing::Idle, None),
            CpuState { detail: 0x4000, ..state(Doing::Walk, None) },
            state(Doing::WaitLock, Some(0)),
            CpuState { doing: None, waits_for: None, detail: 0, points: 0 },
        ];
        assert_eq!(
            report(&states),
            [
                "cpu 0 waits for a sync to be acknowledged by cpu 3",
                "cpu 1 to 2: each is idle",
                "cpu 3 is in a walk [0x4000]",
                "cpu 4 waits for a lock that cpu 0 holds",
                "cpu 5 wrote a state that has no meaning",
            ]
        );
    }
}
