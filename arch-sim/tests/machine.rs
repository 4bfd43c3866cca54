//! The unchanged kernel core on the simulated machine: the kernel's own suite, the kernel's own oracle, hardware that does what QEMU's does not.

use arch_sim::machine::{Execution, Hardware, run};
use kernel::record::cell::Verdict;

fn suite(strategy: &str, workload: &str, transport: &str) -> String {
    format!("strategies={strategy} workloads={workload} modes=contend ops=6 engine=mttcg transport={transport} seed=1")
}

/// Runs seeds until the verdict is `wanted`, at most `tries`; the last run.
fn until<const TAGGED: bool>(words: &str, wanted: Verdict, tries: u64) -> Execution {
    let mut last = None;
    for seed in 1..=tries {
        let execution = run::<TAGGED>(3, words, seed, Hardware::default()).expect("the suite runs to its end");
        assert_eq!(execution.rows.len(), 1);
        let done = execution.rows[0].verdict == wanted as u8;
        last = Some(execution);
        if done {
            break;
        }
    }
    last.expect("at least one try")
}

#[test]
fn without_a_sync_a_broadcast_shows_a_violation() {
    let execution = until::<true>(&suite("none", "collapse_anon", "broadcast"), Verdict::Unsafe, 20);
    assert_eq!(execution.rows[0].verdict, Verdict::Unsafe as u8, "{:?}", execution.rows[0]);
}
