//! Asks the strategy's own code, one read at a time.
//!
//! [`kernel::sync::Strategy::decide`] is a pure function of what it reads, and between two of its reads anything may
//! happen. So each of its reads is a step of the model: the function is called with the answers it has had so far; the
//! first question beyond them is answered from the present state and remembered, and the step is over. When it needs no
//! further answer its decision stands.

use std::cell::Cell;

use kernel::addr::CpuId;
use kernel::smp::mask::CpuMask;
use kernel::sync::coverage::can_hold;
use kernel::sync::{Ask, Decision, LoadedMm, Party, View};
use kernel::tlb::coverage::Coverage;
use kernel::tlb::transport::TransportId;

use super::scenario::Scenario;
use super::state::{CpuState, SWITCHING, State};

/// The most answers that a state remembers.
const MOST_ANSWERS: u8 = 15;

/// What one step of asking came to.
pub(crate) enum Answer {
    /// The strategy has read one more thing.
    Read,
    /// An mm has left, and these CPUs can still walk for it.
    LeftBehind(CpuMask),
    /// It has decided.
    Decided(Decision),
}

/// What a strategy reads next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Question {
    /// What a CPU has published.
    Slot(CpuId),
    /// What it has loaded.
    Loaded(CpuId),
    /// Whether it is lazy.
    Lazy(CpuId),
    /// What it has acknowledged.
    Generation(CpuId),
    /// Nothing: a full barrier.
    Fence,
    /// Nothing: a barrier between loads.
    ReadFence,
}

/// The machine, as far as the strategy has seen it.
struct Replay<'a> {
    scenario: &'a Scenario,
    answers: u64,
    known: u8,
    asked: Cell<u8>,
    open: Cell<Option<Question>>,
}

impl Replay<'_> {
    /// The answer to the next question; 0 for one that is still open, whose consequences are thrown away.
    fn next(&self, question: Question) -> u8 {
        let number = self.asked.get();
        self.asked.set(number + 1);
        if number < self.known {
            return (self.answers >> (4 * number)) as u8 & 15;
        }
        if self.open.get().is_none() {
            self.open.set(Some(question));
        }
        0
    }
}

impl View for Replay<'_> {
    fn initiator(&self) -> CpuId {
        CpuId(0)
    }
    fn online(&self) -> CpuMask {
        CpuMask::first(self.scenario.cpus as usize)
    }
    fn loaded(&self, cpu: CpuId) -> LoadedMm {
        match self.next(Question::Loaded(cpu)) {
            0 => LoadedMm::None,
            SWITCHING => LoadedMm::Unknown,
            // Two words, read one after the other.
            mm if self.next(Question::Lazy(cpu)) == 1 => LoadedMm::Lazy(mm.into()),
            mm => LoadedMm::Mm(mm.into()),
        }
    }
    fn slot(&self, cpu: CpuId) -> u64 {
        match self.next(Question::Slot(cpu)) {
            0 => 0,
            mm => self.scenario.published[mm as usize - 1],
        }
    }
    fn hook(&self) -> bool {
        self.scenario.hook
    }
    fn transport(&self) -> TransportId {
        self.scenario.transport
    }
    fn acknowledged_generation(&self, cpu: CpuId) -> u64 {
        self.next(Question::Generation(cpu)).into()
    }
    fn fence(&self) {
        self.next(Question::Fence);
    }
    fn read_fence(&self) {
        self.next(Question::ReadFence);
    }
}

fn those(scenario: &Scenario, state: &State, are: fn(CpuState) -> u8) -> CpuMask {
    (0..scenario.cpus).filter(|i| are(state.cpus[*i as usize]) == 1).map(|i| CpuId(i.into())).collect()
}

fn ask(scenario: &Scenario, state: &State) -> (Answer, Option<Question>) {
    let common = state.common;
    let replay = Replay {
        scenario,
        answers: state.answers,
        known: common.answers(),
        asked: Cell::new(0),
        open: Cell::new(None),
    };
    let acknowledged = those(scenario, state, CpuState::acknowledged);
    let mask = those(scenario, state, CpuState::party);
    let mm = common.leaver().into();
    let answer = if common.leaver() < scenario.operation.leavers() {
        // As `kernel::mm::share` does when an mm leaves a table that stays shared.
        replay.fence();
        Answer::LeftBehind(can_hold(&replay, mm, &mask).without(&acknowledged))
    } else {
        let coverage = Coverage::claimed_by_a_model(acknowledged, acknowledged.count() - 1);
        let left_behind = those(scenario, state, CpuState::left_behind);
        let ask = Ask {
            party: Party { mm, mask, coverage },
            left_behind: &left_behind,
            left_before: common.leaver() > 1,
            generation: common.unlinks().into(),
            gather_interrupted: common.interrupted() == 1,
        };
        Answer::Decided((scenario.decide)(&replay, &ask))
    };
    (answer, replay.open.get())
}

/// What is read next, if anything is.
pub(crate) fn question(scenario: &Scenario, state: &State) -> Option<Question> {
    ask(scenario, state).1
}

/// One more thing is read, if the code wants to read more; else its answer stands.
pub(crate) fn go_on(scenario: &Scenario, state: &mut State) -> Answer {
    let (answer, question) = ask(scenario, state);
    let Some(question) = question else { return answer };
    let cpu_of = |cpu: CpuId| state.cpus[cpu.index()];
    let answer = match question {
        Question::Slot(cpu) => cpu_of(cpu).slot(),
        Question::Loaded(cpu) => cpu_of(cpu).loaded(),
        Question::Lazy(cpu) => cpu_of(cpu).lazy(),
        Question::Generation(cpu) => cpu_of(cpu).seen_unlinks(),
        Question::Fence => {
            state.common.write_back();
            0
        }
        // Loads are not reordered here, so it has nothing to do; that it leaves the store where it is, is the point.
        Question::ReadFence => 0,
    };
    let known = state.common.answers();
    assert!(known < MOST_ANSWERS, "a strategy reads more than a state can remember");
    state.answers |= u64::from(answer) << (4 * known);
    state.common.set_answers(known + 1);
    match ask(scenario, state) {
        (answer, None) => answer,
        _ => Answer::Read,
    }
}
