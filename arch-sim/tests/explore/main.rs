//! The explorer of interleavings against one that knows nothing of partial orders: small programs on simulated CPUs,
//! random ones too, must come to the same outcomes by both.

use std::collections::BTreeSet;
use std::time::Duration;

use arch_sim::explore::dpor::{Ending, Limits, explore};
use arch_sim::explore::hub::Kind;
use arch_sim::explore::schedule::Schedule;
use arch_sim::explore::stops::Stops;
use arch_sim::explore::{Execution, StepNumber, pct};

mod toy;
use toy::*;

/// So many interleavings are looked at one by one; a program that has more is left out.
const MOST_ORDERS: u64 = 8_000;

/// Every interleaving, one by one.
fn all_orders(toy: &Toy, number: StepNumber, outcomes: &mut BTreeSet<Outcome>, runs: &mut u64) {
    if *runs > MOST_ORDERS {
        return;
    }
    let enabled = toy.all_enabled();
    if enabled == 0 {
        *runs += 1;
        outcomes.insert(toy.outcome());
    }
    for process in (0..toy.processes()).filter(|process| enabled >> process & 1 != 0) {
        let mut next = toy.clone();
        next.step(process, number);
        all_orders(&next, number + 1, outcomes, runs);
    }
}

const LIMITS: Limits = Limits { executions: 1_000_000, time: Duration::from_secs(600) };

/// The CPUs are stopped anywhere, as often as the program says.
fn anywhere(program: &Program) -> Stops {
    Stops::Anywhere((0..program.cpus.len()).map(|cpu| if cpu > 0 { program.freezes } else { 0 }).collect())
}

fn explored_with(program: &Program, stops: &Stops, outcomes: &mut BTreeSet<Outcome>) -> (u64, u32) {
    let mut looks = 0;
    let explored = explore(
        || Toy::new(program, stops),
        LIMITS,
        |toy, ending, _| {
            if ending == Ending::Complete {
                looks = looks.max(toy.hub.looks());
                outcomes.insert(toy.outcome());
            }
            true
        },
    );
    assert!(explored.exhausted, "{program:?}");
    (explored.executions, looks)
}

fn reduced(program: &Program) -> (BTreeSet<Outcome>, u64) {
    let mut outcomes = BTreeSet::new();
    let (executions, _) = explored_with(program, &anywhere(program), &mut outcomes);
    (outcomes, executions)
}

/// The same, with CPUs stopped where somebody looks.
fn reduced_by_looks(program: &Program) -> (BTreeSet<Outcome>, u64) {
    let (cpus, mut outcomes) = (program.cpus.len(), BTreeSet::new());
    let (mut executions, looks) = explored_with(program, &Stops::Before(vec![0; cpus]), &mut outcomes);
    let mut all = vec![vec![0]];
    (1..cpus).for_each(|_| all = all.iter().flat_map(|some| (0..=looks).map(|l| [&some[..], &[l]].concat())).collect());
    for stops in all.into_iter().skip(1) {
        executions += explored_with(program, &Stops::Before(stops), &mut outcomes).0;
    }
    (outcomes, executions)
}

/// Compares the two; how many runs each took, none where there would be too many.
fn same(program: &Program) -> (u64, u64) {
    let (mut outcomes, mut runs) = (BTreeSet::new(), 0);
    all_orders(&Toy::new(program, &anywhere(program)), 0, &mut outcomes, &mut runs);
    if runs > MOST_ORDERS {
        return (0, 0);
    }
    let (found, executions) = reduced(program);
    // A run that gets stuck never comes to what it would have depended on next. It is a finding by itself, so nothing
    // is lost: some such run is seen if there is any.
    let stuck = |outcomes: &BTreeSet<Outcome>| outcomes.iter().any(|(.., over)| !over);
    assert_eq!(stuck(&found), stuck(&outcomes), "{program:?}");
    assert!(found.is_subset(&outcomes), "{program:?}");
    assert!(found == outcomes || stuck(&found), "{program:?}: {found:?}, not {outcomes:?}");
    assert!(executions <= runs);
    (executions, runs)
}

fn program(cpus: &[&[Op]], buffers: bool) -> Program {
    let handlers = vec![Vec::new(); cpus.len()];
    Program { cpus: cpus.iter().map(|ops| ops.to_vec()).collect(), handlers, buffers, freezes: 0 }
}

/// The shape of every publication: both miss each other only where stores wait in buffers and no fence follows.
#[test]
fn store_buffering() {
    let both_zero = |program: &Program| reduced(program).0.iter().any(|(seen, ..)| seen == &vec![vec![0], vec![0]]);
    let plain: [&[Op]; 2] = [&[Store(0, 1), Load(1)], &[Store(1, 1), Load(0)]];
    let fenced: [&[Op]; 2] = [&[Store(0, 1), Fence, Load(1)], &[Store(1, 1), Fence, Load(0)]];
    let half: [&[Op]; 2] = [&[Store(0, 1), Fence, Load(1)], &[Store(1, 1), Load(0)]];
    assert!(!both_zero(&program(&plain, false)));
    assert!(both_zero(&program(&plain, true)));
    assert!(both_zero(&program(&half, true)));
    assert!(!both_zero(&program(&fenced, true)));
    // Both orders of two pairs of accesses, less the one that is no order.
    assert_eq!(reduced(&program(&plain, false)).1, 3);
}

/// Buffers are first in, first out: who sees the second store sees the first.
#[test]
fn message_passing() {
    let seen = reduced(&program(&[&[Store(0, 1), Store(1, 1)], &[Load(1), Load(0)]], true)).0;
    assert!(!seen.iter().any(|(seen, ..)| seen[1] == [1, 0]));
    assert!(seen.iter().any(|(seen, ..)| seen[1] == [0, 1]));
}

/// Steps that have nothing to do with each other are run in one order.
#[test]
fn independent_steps_are_one_interleaving() {
    let loads = [Load(0); 6];
    let stores = [Store(1, 1); 6];
    let (executions, runs) = same(&program(&[&loads, &stores], false));
    assert_eq!((executions, runs), (1, 924));
}

#[test]
fn interrupts_come_wherever_they_may() {
    let mut handled = program(
        &[&[Store(0, 1), Ring(1, Kind::Interrupt), Until(1, 1)], &[Load(0), Mask, Load(0), Unmask, Load(0)]],
        false,
    );
    handled.handlers[1] = vec![Load(0), Store(1, 1)];
    let (executions, runs) = same(&handled);
    assert!(0 < executions && executions < runs);
    handled.buffers = true;
    same(&handled);
    // An NMI asks nobody.
    handled.cpus[0][1] = Ring(1, Kind::Nmi);
    same(&handled);
    handled.cpus[0].push(Ring(1, Kind::Interrupt));
    handled.buffers = false;
    same(&handled);
}

/// Whatever some interleaving of a program comes to, the reduced ones come to as well, and to nothing else.
#[test]
fn random_programs_have_the_same_outcomes() {
    let (mut saved, mut compared) = ((0, 0), 0);
    for seed in 0..400 {
        let (executions, runs) = same(&Random(seed).program());
        saved = (saved.0 + executions, saved.1 + runs);
        compared += u64::from(runs > 0);
    }
    assert!(compared > 200, "{compared} programs were compared");
    assert!(saved.0 * 4 < saved.1, "{saved:?}");
}

/// CPUs that are stopped where somebody looks, and nowhere else, come to what they come to when they are stopped
/// anywhere; in fewer runs.
#[test]
fn stops_that_nobody_sees_change_nothing() {
    let (mut saved, mut compared, mut seen) = ((0, 0), 0, 0);
    for seed in 0..150 {
        let program = Random(seed).looking();
        let (anywhere, many) = reduced(&program);
        let (found, few) = reduced_by_looks(&program);
        let stuck = |outcomes: &BTreeSet<Outcome>| outcomes.iter().any(|(.., over)| !over);
        assert_eq!(stuck(&found), stuck(&anywhere), "{seed}: {program:?}");
        if stuck(&found) {
            continue;
        }
        let lost: Vec<&Outcome> = anywhere.difference(&found).collect();
        let added: Vec<&Outcome> = found.difference(&anywhere).collect();
        assert!(lost.is_empty() && added.is_empty(), "{seed}: {program:?}: lost {lost:?}, added {added:?}");
        saved = (saved.0 + few, saved.1 + many);
        compared += 1;
        let mut never = BTreeSet::new();
        explored_with(&program, &Stops::Before(vec![0; program.cpus.len()]), &mut never);
        seen += u32::from(never != anywhere);
    }
    assert!(compared > 80 && seen > 50, "{compared} programs were compared, {seen} of them notice stops");
    assert!(saved.0 * 2 < saved.1, "{saved:?}");
}

/// Runs by seeds come to nothing else, and their schedules replay from text.
#[test]
fn a_run_by_a_seed_replays() {
    let mut hits = 0;
    for seed in 0..100 {
        let program = Random(seed).program();
        let (outcomes, _) = reduced(&program);
        let mut toy = Toy::new(&program, &anywhere(&program));
        let schedule = Schedule(pct::run(&mut toy, seed, 12, 3));
        assert!(outcomes.contains(&toy.outcome()), "{program:?}");
        let written: Schedule = schedule.to_string().parse().expect("what was written reads");
        assert_eq!(written, schedule);
        let mut again = Toy::new(&program, &anywhere(&program));
        written.0.iter().enumerate().for_each(|(number, process)| {
            again.step(*process, number as StepNumber);
        });
        assert_eq!(again.outcome(), toy.outcome());
        hits += usize::from(outcomes.len() > 1);
    }
    assert!(hits > 20, "{hits} programs have more than one outcome");
}

#[test]
fn a_schedule_that_is_none_is_refused() {
    for text in ["cpu", "cpu1.what", "cpu0*x", "cpu99", "cpu0*99999999999"] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}
