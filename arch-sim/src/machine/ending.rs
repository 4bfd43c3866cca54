//! What an execution came to: what is wrong in the end, how it ended, what it has told.

use std::hash::{Hash, Hasher};

use kernel::addr::{PAGE_SIZE, PhysAddr};
use kernel::mm::frame::FrameState;
use kernel::record::cell::{Violation, ViolationKind};
use kernel::record::event::Event;
use rustc_hash::FxHasher;

use super::directed::Directed;
use super::world::RAM;

impl<const TAGGED: bool> Directed<TAGGED> {
    /// What is wrong with the execution, which is over: what the kernel's oracle found, what the machine found.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = self.world.findings.borrow().clone();
        if let Some(first) = self.violation()
            && let Some(kind) = ViolationKind::from_number(first.kind)
        {
            findings
                .insert(0, format!("{}: the walk of cpu{} of frame {:#x}", kind.in_words(), first.walker, first.pfn));
        }
        if !self.broken && !self.direction().hub.borrow().all_over() {
            findings.push("every CPU waits for another".into());
        }
        findings
    }

    /// A number for how it ended: what was found, what each walk came to, what each frame is and how often it is
    /// referenced, and what is in the tables.
    pub fn outcome(&self) -> u64 {
        let mut hasher = FxHasher::default();
        self.findings().hash(&mut hasher);
        self.world.cores.iter().for_each(|core| core.walked.borrow().hash(&mut hasher));
        for (i, frame) in self.frames.iter().enumerate() {
            let state = frame.state();
            if state == FrameState::Free {
                continue;
            }
            (i, state as u8, frame.refs(), frame.pins(), frame.generation(), frame.owner()).hash(&mut hasher);
            if matches!(state, FrameState::Table | FrameState::UnlinkedTable) {
                let at = PhysAddr(RAM + PAGE_SIZE * i as u64);
                (0..PAGE_SIZE / 8).for_each(|word| self.world.read(PhysAddr(at.0 + 8 * word)).hash(&mut hasher));
            }
        }
        hasher.finish()
    }

    /// What the kernel's oracle found first.
    pub(super) fn violation(&self) -> Option<Violation> {
        let first = self.first_violation.get().unwrap_or_else(|| self.machine.first_violation.take());
        self.first_violation.set(Some(first));
        (first.kind != 0).then_some(first)
    }

    /// Whether some program waited for a lock: what it depends on then is not known, and the exploration is not
    /// complete.
    pub fn waited_blindly(&self) -> bool {
        self.direction().hub.borrow().blind_waits > 0
    }

    /// How many translations of one CPU could go more than one way, and how many at most.
    pub fn ambiguous(&self) -> (u32, usize) {
        let most = self.world.cores.iter().map(|core| core.ambiguous.get()).max();
        (most.unwrap_or(0), self.world.most_ways.get())
    }

    /// How often others have looked whether one CPU is stopped, at most.
    pub fn looks(&self) -> u32 {
        self.direction().hub.borrow().looks()
    }

    /// The kernel's events in the order of their steps, if they were kept.
    pub fn events(&self) -> Vec<Event> {
        let mut events: Vec<Event> = (0..self.cpus.len()).flat_map(|cpu| self.events_since(cpu, 0)).collect();
        events.sort_by_key(|event| event.time);
        events
    }
}
