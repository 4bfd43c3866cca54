//! The event model: CPUs that interrupt each other, and what that takes.
//!
//! Time is in nanoseconds, and goes from event to event; events of one moment come in the order in which they were
//! made, so a run depends on nothing but its setting. A call is what it is in `kernel/src/smp/call.rs`: the initiator
//! puts itself into the queue of one target after the other, rings where nobody has rung before, and waits for all. A
//! target takes the interrupt when it is not masked (a walk is under way, another handler runs) and then serves
//! everybody in its queue. Initiators take interrupts while they wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::costs::Preset;

/// What a target is interrupted for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Call {
    Flush,
    Sync,
}

/// What can happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Event {
    /// The initiator's program goes on.
    Go(u32),
    /// It enters itself in the queue of `to`.
    Enqueue { from: u32, to: u32, call: Call },
    /// The target takes its interrupt, if it can.
    Interrupt(u32),
    /// The initiator sees one acknowledgement.
    Acknowledge(u32),
}

/// What was counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Flush interrupts, in targets.
    pub flush_ipis: u64,
    /// Sync interrupts, in targets.
    pub sync_ipis: u64,
    /// Vectors raised for both.
    pub vectors: u64,
    /// Requests served by targets.
    pub served: u64,
    /// Acknowledgements that reached their initiators.
    pub acknowledged: u64,
    /// Syncs left out, in rounds.
    pub elided: u64,
    /// Of the targets, those that had nothing to do with the mm.
    pub bystanders: u64,
    /// Time that handlers took of other CPUs than the initiators.
    pub stolen_ns: u64,
}

/// Walks one after the other, with interrupts masked in each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walking {
    pub(super) walk: u64,
    pub(super) gap: u64,
    pub(super) offset: u64,
}

impl Walking {
    /// When the walk that is under way at `now` ends, if one is.
    pub(super) fn until(&self, now: u64) -> Option<u64> {
        let at = (now + self.offset) % (self.walk + self.gap);
        (at < self.walk).then(|| now + self.walk - at)
    }
}

/// One CPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Cpu {
    pub(super) mm: Option<u32>,
    pub(super) walking: Option<Walking>,
    pub(super) acknowledged_generation: u64,
    /// It initiates; what handlers take of it is no loss of a bystander.
    pub(super) initiates: bool,
    queue: Vec<(u32, Call)>,
    raised: bool,
    busy_until: u64,
    /// Acknowledgements that its call under way still waits for.
    missing: u32,
}

/// All of it.
pub(super) struct Machine<'p> {
    pub(super) costs: &'p Preset,
    pub(super) cpus: Vec<Cpu>,
    pub(super) counts: Counts,
    /// Unlinks so far.
    pub(super) generation: u64,
    pub(super) now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    made: u64,
}

impl<'p> Machine<'p> {
    pub(super) fn new(costs: &'p Preset, cpus: u32) -> Machine<'p> {
        Machine {
            costs,
            cpus: vec![Cpu::default(); cpus as usize],
            counts: Counts::default(),
            generation: 0,
            now: 0,
            events: BinaryHeap::new(),
            made: 0,
        }
    }

    pub(super) fn cpu(&mut self, cpu: u32) -> &mut Cpu {
        &mut self.cpus[cpu as usize]
    }

    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.made += 1;
        self.events.push(Reverse((time, self.made, event)));
    }

    /// CPUs lie over the sockets in blocks of the preset's size, as far as those go.
    fn is_far(&self, a: u32, b: u32) -> bool {
        let block = (self.cpus.len() as u32).div_ceil(self.costs.sockets).max(1);
        a / block != b / block
    }

    fn line(&self, a: u32, b: u32) -> u64 {
        if self.is_far(a, b) { self.costs.far_line.ns } else { self.costs.line.ns }
    }

    /// `from` calls `targets`; its program goes on when all have acknowledged.
    pub(super) fn call(&mut self, from: u32, targets: &[u32], call: Call) {
        let mm = self.cpus[from as usize].mm;
        let unrelated = targets.iter().filter(|to| self.cpus[**to as usize].mm != mm).count() as u64;
        self.counts.bystanders += unrelated;
        match call {
            Call::Flush => self.counts.flush_ipis += targets.len() as u64,
            Call::Sync => self.counts.sync_ipis += targets.len() as u64,
        }
        if targets.is_empty() {
            return self.at(self.now, Event::Go(from));
        }
        self.cpu(from).missing = targets.len() as u32;
        let mut time = self.now;
        for &to in targets {
            time += self.costs.send.ns;
            self.at(time, Event::Enqueue { from, to, call });
        }
        // Interrupts that come meanwhile are taken; sending goes on afterwards, which is not modelled.
    }

    /// The next moment at which a program goes on; `None` at the end of everything.
    pub(super) fn next(&mut self) -> Option<u32> {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            self.now = time;
            match event {
                Event::Go(cpu) => match self.cpus[cpu as usize].busy_until {
                    // A handler has the CPU.
                    until if until > time => self.at(until, event),
                    _ => return Some(cpu),
                },
                Event::Enqueue { from, to, call } => {
                    let far = if self.is_far(from, to) { self.costs.far.ns } else { 0 };
                    let arrives = time + self.costs.delivery.ns + far;
                    let target = self.cpu(to);
                    target.queue.push((from, call));
                    if !std::mem::replace(&mut target.raised, true) {
                        self.counts.vectors += 1;
                        self.at(arrives, Event::Interrupt(to));
                    }
                }
                Event::Interrupt(cpu) => self.interrupt(cpu),
                Event::Acknowledge(cpu) => {
                    self.counts.acknowledged += 1;
                    let initiator = self.cpu(cpu);
                    initiator.missing -= 1;
                    if initiator.missing == 0 {
                        self.at(time, Event::Go(cpu));
                    }
                }
            }
        }
        None
    }

    fn interrupt(&mut self, cpu: u32) {
        let (now, generation) = (self.now, self.generation);
        let target = self.cpu(cpu);
        let masked = target.walking.and_then(|walking| walking.until(now));
        if let Some(later) = masked.into_iter().chain((target.busy_until > now).then_some(target.busy_until)).max() {
            return self.at(later, Event::Interrupt(cpu));
        }
        target.raised = false;
        target.acknowledged_generation = generation;
        let queue = std::mem::take(&mut target.queue);
        let initiates = target.initiates;
        let mut time = now + self.costs.handler.ns;
        for (from, call) in queue {
            let line = self.line(from, cpu);
            // What is asked for lies with the initiator, and so does the count of who has not yet acknowledged.
            time += line + if call == Call::Flush { self.costs.invalidate.ns } else { 0 };
            self.counts.served += 1;
            self.at(time + line, Event::Acknowledge(from));
        }
        self.cpu(cpu).busy_until = time;
        if !initiates {
            self.counts.stolen_ns += time - now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset() -> Preset {
        Preset::named(None, "x86-2s").unwrap()
    }

    #[test]
    fn one_call_to_one_cpu_costs_what_its_parts_cost() {
        let costs = preset();
        let mut machine = Machine::new(&costs, 4);
        machine.call(0, &[1], Call::Sync);
        assert_eq!(machine.next(), Some(0));
        let parts = costs.send.ns + costs.delivery.ns + costs.handler.ns + 2 * costs.line.ns;
        assert_eq!(machine.now, parts);
        let mut far = Machine::new(&costs, 4);
        far.call(0, &[3], Call::Flush);
        far.next();
        assert_eq!(far.now, parts + costs.far.ns + costs.invalidate.ns + 2 * (costs.far_line.ns - costs.line.ns));
    }

    #[test]
    fn a_walk_holds_its_interrupt_off_until_it_ends() {
        let costs = preset();
        let mut machine = Machine::new(&costs, 2);
        machine.cpu(1).walking = Some(Walking { walk: 50_000, gap: 10, offset: 0 });
        machine.call(0, &[1], Call::Sync);
        machine.next();
        assert_eq!(machine.now, 50_000 + costs.handler.ns + 2 * costs.far_line.ns);
    }

    #[test]
    fn two_calls_to_one_cpu_share_a_vector() {
        let costs = preset();
        let mut machine = Machine::new(&costs, 8);
        machine.call(0, &[2], Call::Sync);
        machine.call(1, &[2], Call::Sync);
        while machine.next().is_some() {}
        let counts = machine.counts;
        assert_eq!((counts.sync_ipis, counts.vectors, counts.served, counts.acknowledged), (2, 1, 2, 2));
    }

    #[test]
    fn two_that_call_each_other_both_come_to_an_end() {
        let costs = preset();
        let mut machine = Machine::new(&costs, 2);
        machine.call(0, &[1], Call::Sync);
        machine.call(1, &[0], Call::Sync);
        let mut ended = Vec::new();
        while let Some(cpu) = machine.next() {
            ended.push(cpu);
        }
        ended.sort_unstable();
        assert_eq!(ended, [0, 1]);
    }
}
