//! Long messages while the memory of both sides is taken away, with the kernel's own steps interleaved by a seed and
//! with hardware that keeps and caches what it may.

use arch_sim::machine::{Hardware, Programs, Sim, run_programs};
use kernel::guard::Guard;
use kernel::object::account::Price;
use kernel::smp::cpu::Cpu;
use scripted::storm::{Outcome, Storm};

const MESSAGES: u64 = 30;

struct Once<const TAGGED: bool> {
    seed: u64,
    storm: Option<Storm<Sim<TAGGED>>>,
    ended: bool,
    outcome: Option<(Outcome, Price)>,
}

impl<const TAGGED: bool> Programs<TAGGED> for Once<TAGGED> {
    fn begin(&mut self, cpu: &'static Cpu<Sim<TAGGED>>) {
        self.storm = Some(Storm::begin(cpu, 6000, MESSAGES, self.seed));
    }

    fn is_done(&mut self, cpu: &'static Cpu<Sim<TAGGED>>) -> bool {
        let Some(storm) = &self.storm else { return true };
        if storm.is_over() && !self.ended {
            self.ended = true;
            storm.end(cpu);
        }
        if self.ended && storm.is_gone() {
            self.outcome = self.storm.take().map(Storm::outcome);
        }
        self.storm.is_none()
    }
}

/// What came of a storm, and what the machine found.
fn once<const TAGGED: bool>(strategy: &str, transport: &str, guards: u64, seed: u64) -> (Outcome, Vec<String>) {
    let suite = "workloads=munmap_4k modes=same ops=1 engine=mttcg";
    let words = format!("strategies={strategy} {suite} transport={transport} guards={guards:x}");
    let mut programs = Once::<TAGGED> { seed, storm: None, ended: false, outcome: None };
    let run = run_programs::<TAGGED>(3, &words, seed, Hardware::default(), &mut programs).expect("it comes to its end");
    let (outcome, left) = programs.outcome.expect("it was done");
    assert_eq!(left, Price::NOTHING, "still charged");
    (outcome, run.findings)
}

fn seeds(strategy: &str, guards: u64, seeds: std::ops::RangeInclusive<u64>) -> (Outcome, Vec<String>) {
    let mut all = Outcome::default();
    let mut found = Vec::new();
    for seed in seeds {
        for (outcome, mut findings) in [
            once::<true>(strategy, "broadcast", guards, seed),
            once::<false>(strategy, "ipi", guards, seed),
            once::<true>(strategy, "mixed", guards, seed),
        ] {
            all.received += outcome.received;
            all.exact += outcome.exact;
            all.meddled += outcome.meddled;
            all.collapsed += outcome.collapsed;
            all.refused.extend(outcome.refused);
            all.wrong.extend(outcome.wrong);
            found.append(&mut findings);
        }
    }
    (all, found)
}

#[test]
fn a_storm_mixes_no_message_and_a_removed_guard_does() {
    for strategy in ["sync-all", "coverage", "targeted"] {
        let (all, found) = seeds(strategy, 0, 1..=3);
        println!("{strategy}: {} received, {} exactly, {} refused", all.received, all.exact, all.refused.len());
        println!("{strategy}: {} times meddled, {} collapses", all.meddled, all.collapsed);
        assert_eq!((all.wrong, found), (Vec::new(), Vec::new()), "{strategy}");
        assert!(all.exact > 100 && all.meddled > 100, "{strategy}: nothing happened");
    }
    for guard in [Guard::IpcPinAgain, Guard::IpcPin] {
        let wrong = (1..=40).find_map(|seed| {
            let (all, _) = seeds("sync-all", 1 << guard as u64, seed..=seed);
            all.wrong.first().map(|wrong| format!("seed {seed}: {wrong}"))
        });
        println!("without {guard:?}, {wrong:?}");
        assert!(wrong.is_some(), "{guard:?} is not missed");
    }
}
