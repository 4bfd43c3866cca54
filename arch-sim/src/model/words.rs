//! Counterexamples in words.

use std::fmt::Write;

use kernel::workload::walker::WalkerClass;

use super::check::{Counterexample, Exploration};
use super::scenario::{ANY, MmNumber, Operation, Publication, Scenario};
use super::state::{CpuState, SWITCHING, Stage, State, switching, walk};
use super::step::Step;
use super::two_word;

fn mm(number: MmNumber) -> char {
    (b'A' + number - 1) as char
}

/// What happens in `step`, from `before` to `after`.
pub(crate) fn step(scenario: &Scenario, before: &State, step: Step, after: &State) -> String {
    let cpu = |i: u8| before.cpus[i as usize];
    match step {
        Step::Operate | Step::Flush(_) | Step::Ask(_) => format!("cpu0 {}", operation(scenario, before, after)),
        Step::UnlinkVisible => "cpu0's store that clears the entry reaches memory".into(),
        Step::StoreVisible(i) => {
            let (was, is) = (cpu(i), after.cpus[i as usize]);
            if was.loaded() != is.loaded() {
                format!("cpu{i}'s store reaches memory: it has loaded {}", loaded(is.loaded()))
            } else {
                format!("cpu{i}'s store reaches memory: it publishes {}", published(is.slot()))
            }
        }
        Step::WalkBegin(i, of) => {
            let how = match (scenario.walker, scenario.publication) {
                (WalkerClass::Rcu, _) => "enters an RCU section, interrupts enabled, for a walk of",
                (_, Publication::None) => "masks interrupts and begins a walk of",
                (_, Publication::Store | Publication::StoreFence) => {
                    "masks interrupts, publishes (in its store buffer) and begins a walk of"
                }
                (_, Publication::Exchange) => "masks interrupts, publishes (exchange) and begins a walk of",
            };
            format!("cpu{i} {how} mm {}", mm(of))
        }
        Step::WalkOn(i) if cpu(i).walk() == walk::PUBLISHED => format!("cpu{i} passes its full barrier"),
        Step::WalkOn(i) if scenario.two_words() => reads_a_word(cpu(i), after.cpus[i as usize], i),
        Step::WalkOn(i) if after.cpus[i as usize].walk_mm() == 0 => {
            format!("cpu{i} reads the entry of mm {}: cleared", mm(cpu(i).walk_mm()))
        }
        Step::WalkOn(i) => format!("cpu{i} reads the entry of mm {} and holds the table", mm(cpu(i).walk_mm())),
        Step::WalkEnd(i) => format!("cpu{i} ends its walk"),
        Step::NmiBegin(i, of) => format!("cpu{i} takes an NMI, which begins a walk of mm {}", mm(of)),
        Step::NmiOn(i) if cpu(i).nested() == walk::PUBLISHED => format!("cpu{i}'s NMI passes its full barrier"),
        Step::NmiOn(i) if after.cpus[i as usize].nested() == walk::HOLDING => {
            format!("cpu{i}'s NMI reads the entry of mm {} and holds the table", mm(cpu(i).nested_mm()))
        }
        Step::NmiOn(i) => format!("cpu{i}'s NMI finds the entry cleared and returns"),
        Step::NmiEnd(i) => format!("cpu{i}'s NMI ends its walk and returns"),
        Step::SwitchBegin(i, 0) => format!("cpu{i} begins to unload mm {}", mm(cpu(i).current())),
        Step::SwitchBegin(i, to) => format!("cpu{i} begins to load mm {}", mm(to)),
        Step::SwitchOn(i) => switch(before, after, i),
        Step::BecomeLazy(i) => format!("cpu{i} becomes idle and keeps mm {} loaded", mm(cpu(i).current())),
        Step::LeaveLazy(i) => format!("cpu{i} uses mm {} again", mm(cpu(i).current())),
        Step::HandleFlush(i) => format!("cpu{i} takes the flush interrupt, invalidates and acknowledges"),
        Step::HandleSync(i) => format!("cpu{i} takes the sync interrupt and acknowledges"),
        Step::OtherInterrupt(i) => format!("cpu{i} takes some other interrupt"),
        Step::BroadcastArrives(i) => format!("the broadcast invalidation reaches cpu{i}"),
        Step::Quiescent(i) => format!("cpu{i} passes a quiescent state"),
        Step::Freeze(i) => format!("the hypervisor freezes cpu{i}"),
        Step::Resume(i) if cpu(i).flush_on_resume() == 1 => {
            format!("the hypervisor resumes cpu{i}, which invalidates first")
        }
        Step::Resume(i) => format!("the hypervisor resumes cpu{i}"),
        Step::FillTable(i) => format!("cpu{i}'s hardware caches the entry that points at the table"),
        Step::FillLeaf(i) => format!("cpu{i}'s hardware caches a translation through the table"),
        Step::PutBack if after.common.stage() == Stage::ReadersWait => {
            "cpu0 has to put the table back, and interrupts everybody who may be between two words".into()
        }
        Step::PutBack => "cpu0 puts the table back".into(),
        Step::Fill(of) if scenario.operation.collapses() => {
            format!("the entry of mm {} is filled again, with a page of 2 MiB", mm(of))
        }
        Step::Fill(of) => format!("the entry of mm {} is filled again, with another table", mm(of)),
    }
}

fn reads_a_word(was: CpuState, is: CpuState, i: u8) -> String {
    let read =
        format!("cpu{i} reads the {} of the entry of mm {}", two_word::next_read(was.reading()), mm(was.walk_mm()));
    let found = match (is.reading(), is.walk(), is.walk_mm()) {
        (0, walk::READING, _) => "not what it was, so it begins anew",
        (0, _, 0) => "the same, and nothing of the table in both",
        (0, ..) => "the same, so it uses both words",
        (reading, ..) => two_word::found(reading),
    };
    format!("{read}: {found}")
}

fn loaded(value: u8) -> String {
    match value {
        0 => "nothing".into(),
        SWITCHING => "something that is changing".into(),
        number => format!("mm {}", mm(number)),
    }
}

fn published(value: u8) -> String {
    match value {
        0 => "no walk".into(),
        ANY => "walks of more than one mm".into(),
        number => format!("a walk of mm {}", mm(number)),
    }
}

fn switch(before: &State, after: &State, i: u8) -> String {
    let (was, is) = (before.cpus[i as usize], after.cpus[i as usize]);
    if was.switch_to() == 0 {
        return format!("cpu{i} translates by no mm any more");
    }
    let to = mm(was.switch_to());
    let mut what = Vec::new();
    if !was.in_mask(was.switch_to()) && is.in_mask(was.switch_to()) {
        what.push(format!("enters the mask of mm {to}"));
    }
    if was.generation() != is.generation() {
        what.push(format!("reads the flush generation of mm {to}"));
    }
    if was.root() != is.root() {
        what.push(format!("loads the root of mm {to}"));
    }
    if is.switch() == switching::NONE {
        what.push("says so".into());
    }
    if what.is_empty() {
        what.push(format!("goes on loading mm {to}"));
    }
    format!("cpu{i} {}", what.join(", "))
}

fn list(cpus: impl Iterator<Item = u8>) -> String {
    let names: Vec<String> = cpus.map(|i| format!("cpu{i}")).collect();
    if names.is_empty() { "nobody".into() } else { names.join(" and ") }
}

fn operation(scenario: &Scenario, before: &State, after: &State) -> String {
    let of = mm(before.common.leaver());
    let cpus = 0..scenario.cpus;
    match before.common.stage() {
        Stage::Linked if after.common.stage() == Stage::PagesBegun => format!("begins to flush pages of mm {of}"),
        Stage::Linked if after.common.unlink_buffered() == 1 => {
            format!("clears the entry of mm {of} (in its store buffer)")
        }
        Stage::Linked => format!("clears the entry of mm {of}"),
        Stage::Unlinked if after.common.stage() == Stage::Flushed => "needs no flush".into(),
        Stage::Unlinked => format!("counts a flush of mm {of}"),
        Stage::FlushBegun | Stage::PagesBegun => {
            let interrupted = cpus.clone().filter(|i| after.cpus[*i as usize].flush_ipi() == 1);
            let frozen: Vec<u8> = cpus
                .filter(|i| {
                    after.cpus[*i as usize].flush_on_resume() == 1 && before.cpus[*i as usize].flush_on_resume() == 0
                })
                .collect();
            let way = after.common.way();
            let mut what = Vec::new();
            if way & 1 != 0 {
                what.push(format!("reads the mask of mm {of} and interrupts {} for the flush", list(interrupted)));
            }
            if !frozen.is_empty() {
                what.push(format!("takes {}, which is frozen, for flushed", list(frozen.into_iter())));
            }
            if way & 2 != 0 {
                what.push(format!("broadcasts the invalidation of mm {of}"));
            }
            what.join(", and ")
        }
        Stage::PagesWait => "has flushed the pages".into(),
        Stage::FlushWait => format!("has flushed mm {of}"),
        Stage::Flushed => match after.common.stage() {
            Stage::Deciding if before.common.leaver() < scenario.operation.leavers() => {
                "notes who could still walk for it".into()
            }
            Stage::Deciding => "asks the strategy".into(),
            Stage::Retired => "retires the table".into(),
            _ if scenario.operation == Operation::Pages => "frees the page".into(),
            _ => "does not sync".into(),
        },
        Stage::Deciding => match after.common.stage() {
            Stage::ReadersWait => {
                "notes who could still walk, and interrupts everybody who may be between two words".into()
            }
            Stage::Fresh => "is told by the strategy: another table".into(),
            Stage::Deciding => "reads one more word for that".into(),
            Stage::Linked => {
                let left = cpus.filter(|i| after.cpus[*i as usize].left_behind() == 1);
                format!("leaves {} behind; mm {} leaves next", list(left), mm(after.common.leaver()))
            }
            Stage::Drained => "is told by the strategy: no sync".into(),
            Stage::SyncWait => {
                let interrupted = cpus.filter(|i| after.cpus[*i as usize].sync_ipi() == 1);
                format!("is told by the strategy: interrupt {}", list(interrupted))
            }
            Stage::Retired => "is told by the strategy: another table; retires this one".into(),
            _ => "is told by the strategy: a grace period".into(),
        },
        Stage::SyncWait => "has all acknowledgements".into(),
        Stage::GraceWait => "has waited for a grace period".into(),
        Stage::Drained if after.common.stage() == Stage::ReadersWait => {
            "uses the table again, and interrupts everybody who may be between two words".into()
        }
        Stage::Drained => "uses the table again".into(),
        Stage::Fresh => "takes another table, and retires this one".into(),
        Stage::ReadersWait if scenario.operation.collapses() => {
            "has all acknowledgements, and puts the table back".into()
        }
        Stage::ReadersWait => "has all acknowledgements".into(),
        Stage::Retired => "frees the table".into(),
        Stage::Done => "has finished".into(),
    }
}

/// The interleaving, one numbered line per step.
pub fn interleaving(scenario: &Scenario, counterexample: &Counterexample) -> String {
    let mut text = String::new();
    let mut before = counterexample.first;
    let had: Vec<String> = (0..scenario.cpus)
        .map(|i| format!("cpu{i} has loaded {}", loaded(before.cpus[i as usize].current())))
        .collect();
    let _ = writeln!(text, "  0. {}", had.join(", "));
    for (number, (taken, after)) in counterexample.steps.iter().enumerate() {
        let _ = writeln!(text, "{:>3}. {}", number + 1, step(scenario, &before, *taken, after));
        before = *after;
    }
    let culprit = before.common.culprit();
    let _ = writeln!(text, "     violated: {} (cpu{culprit})", counterexample.broken.in_words());
    text
}

/// One line about an exploration: bounds, size, speed, outcome.
pub fn summary(exploration: &Exploration) -> String {
    let scenario = &exploration.scenario;
    let outcome = match (&exploration.counterexample, exploration.exhausted) {
        (Some(found), _) => format!("unsafe after {} steps", found.steps.len()),
        (None, true) => "safe, exhausted".into(),
        (None, false) => "nothing found, not exhausted".into(),
    };
    format!(
        "{} CPUs{}, {} mms, {} tags: {} states ({} generated, {:.2} M/s), depth {}, {outcome}",
        scenario.cpus,
        if scenario.moves { "" } else { " that load nothing else" },
        scenario.mms(),
        if scenario.tagged { "with" } else { "without" },
        exploration.states,
        exploration.generated,
        exploration.rate() / 1e6,
        exploration.depth,
    )
}
