//! Some interleavings, by seeds: each process has a priority, the highest that can takes the next step, and at a few
//! places, chosen beforehand, whoever runs falls behind all others.
//!
//! A bug that takes `d` orderings is found by one run in `n·k^(d-1)` at worst, where `n` is the number of processes and
//! `k` that of steps (Burckhardt and others, ASPLOS 2010).

use super::{Execution, Process, StepNumber};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

/// One run by `seed`, of about `steps` steps, with `changes` places where whoever runs falls behind. Returns the
/// processes that took its steps.
pub fn run<E: Execution>(execution: &mut E, seed: u64, steps: u64, changes: usize) -> Vec<Process> {
    let mut random = Random(seed);
    let processes = execution.processes();
    let mut priorities: Vec<i64> = (0..processes as i64).collect();
    for i in (1..processes).rev() {
        priorities.swap(i, random.below(i as u64 + 1) as usize);
    }
    let mut places: Vec<u64> = (0..changes).map(|_| random.below(steps)).collect();
    places.sort_unstable_by(|a, b| b.cmp(a));
    let mut schedule = Vec::new();
    let mut lowest = -1;
    loop {
        let enabled = (0..processes).filter(|process| execution.enabled(*process));
        let Some(next) = enabled.max_by_key(|process| priorities[*process]) else { return schedule };
        if places.last().is_some_and(|place| *place <= schedule.len() as u64) {
            places.pop();
            priorities[next] = lowest;
            lowest -= 1;
            continue;
        }
        execution.step(next, schedule.len() as StepNumber);
        schedule.push(next);
    }
}
