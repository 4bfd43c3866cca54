//! The unchanged kernel core on the simulated machine: the kernel's own suite, the kernel's own oracle, hardware that
//! does what QEMU's does not.

use arch_sim::machine::{Execution, Hardware, run};
use kernel::record::cell::Verdict;

/// So many seeds are tried until something shows; most show within the first few.
const SEEDS: u64 = 60;

fn words(strategy: &str, workload: &str, mode: &str, transport: &str) -> String {
    format!("strategies={strategy} workloads={workload} modes={mode} ops=6 engine=mttcg transport={transport}")
}

fn execute<const TAGGED: bool>(words: &str, seed: u64, hardware: Hardware) -> Execution {
    run::<TAGGED>(3, words, seed, hardware).expect("the suite runs to its end")
}

/// How many of six seeds come to each of: a violation by the kernel's oracle, a finding of the machine.
fn outcomes<const TAGGED: bool>(words: &str, hardware: Hardware) -> (usize, usize) {
    let (mut violated, mut found) = (0, 0);
    for seed in 1..=6 {
        let execution = execute::<TAGGED>(words, seed, hardware);
        assert_eq!(execution.rows.len(), 1);
        violated += usize::from(execution.rows[0].verdict == Verdict::Unsafe as u8);
        found += usize::from(!execution.findings.is_empty());
    }
    (violated, found)
}

#[test]
fn without_a_sync_a_broadcast_is_unsafe_and_an_interrupt_is_not() {
    let good = Hardware::default();
    let (violated, _) = outcomes::<true>(&words("none", "collapse_anon", "contend", "broadcast"), good);
    assert!(violated > 0);
    let (violated, _) = outcomes::<false>(&words("none", "collapse_anon", "contend", "broadcast"), good);
    assert!(violated > 0, "an NMI that plays the broadcast waits for no walk either");
    assert_eq!(outcomes::<false>(&words("none", "collapse_anon", "contend", "ipi"), good), (0, 0));
    assert_eq!(outcomes::<true>(&words("none", "collapse_anon", "contend", "ipi"), good), (0, 0));
}

#[test]
fn with_its_sync_the_core_is_safe_on_every_transport() {
    for transport in ["ipi", "broadcast", "paravirt", "mixed"] {
        for strategy in ["coverage", "targeted"] {
            let words = words(strategy, "collapse_anon", "contend", transport);
            assert_eq!(outcomes::<false>(&words, Hardware::default()), (0, 0), "{strategy} on {transport}");
            assert_eq!(outcomes::<true>(&words, Hardware::default()), (0, 0), "{strategy} on {transport}, tagged");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_interleaving() {
    let words = words("coverage", "unshare_munmap_last", "contend", "broadcast");
    let one = |seed| {
        let execution = execute::<true>(&words, seed, Hardware::default());
        (execution.trace, execution.steps)
    };
    assert_eq!(one(7), one(7));
    assert_ne!(one(7), one(8));
}

/// With all guards nothing shows; without one of the hardware's the machine or the oracle finds something.
fn must_show(workload: &str, mode: &str, broken: Hardware) {
    let words = words("sync-all", workload, mode, "broadcast");
    assert_eq!(outcomes::<true>(&words, Hardware::default()), (0, 0), "{workload} with all guards");
    let shows = |seed| {
        let execution = execute::<true>(&words, seed, broken);
        execution.rows[0].verdict == Verdict::Unsafe as u8 || !execution.findings.is_empty()
    };
    assert!((1..=SEEDS).any(shows), "{workload} with {broken:?}");
}

/// Controls 21 (b) and 23 (a): nobody waits for the broadcast to complete.
#[test]
fn a_broadcast_is_waited_for() {
    must_show("munmap_4k", "contend", Hardware { completion: false, ..Hardware::default() });
}

/// What the core does as Linux does: a page that one CPU drops another may touch again before the flush is over, and has
/// two translations until then. Both are pages of that mm, and a program that drops what it uses may be given either;
/// but it is no break before make. With all guards nothing else is found.
#[test]
fn a_page_that_is_dropped_and_touched_has_two_translations_until_the_flush() {
    let words = words("sync-all", "dontneed_4k", "contend", "broadcast");
    let told = |seed| {
        let execution = execute::<true>(&words, seed, Hardware::default());
        assert_eq!(execution.rows[0].verdict, Verdict::Safe as u8);
        let two = |finding: &String| finding.contains("an entry was made before the old one was broken");
        assert!(execution.findings.iter().all(two), "{:?}", execution.findings);
        !execution.findings.is_empty()
    };
    assert!((1..=10 * SEEDS).any(told), "nobody touches it in time");
}

/// Control 21 (d): a broadcast that stays at home.
#[test]
fn a_broadcast_reaches_other_cpus() {
    must_show("munmap_4k", "contend", Hardware { shareable: false, ..Hardware::default() });
}

/// Control 20: an invalidation that leaves paging-structure caches as they are.
#[test]
fn an_unlinked_table_is_invalidated_at_all_levels() {
    must_show("retract_truncate", "contend", Hardware { all_levels: false, ..Hardware::default() });
    must_show("munmap_4k", "same", Hardware { all_levels: false, ..Hardware::default() });
}

#[test]
fn what_the_kernel_refuses_is_said_in_its_own_words() {
    let refused = run::<true>(2, "strategies=no-such", 1, Hardware::default()).expect_err("there is no such strategy");
    assert!(refused.to_string().contains("no-such"), "{refused}");
}
