//! Random requests about capabilities, by three processes with few frames, against a model that shares no code with the
//! core. After each, every slot, every page and every account is what the model says; at the end everything balances.

use std::sync::Arc;

use kernel::abi::{Kind, Number, Rights};
use kernel::addr::{PAGE_SHIFT, VirtAddr};
use kernel::arch::Arch;
use kernel::mm::address_space::MapError;
use kernel::object::Object;
use kernel::object::account::Price;
use kernel::object::process::Process;
use kernel::object::thread::Thread;
use kernel::tlb::switch;
use kernel::tlb::transport::TransportId;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tests::capability_model::{ALL, Model, What};
use tests::host::{Tagged, Untagged};
use tests::kernel_of::{FREE, Kernel};

const PROCESSES: usize = 3;
/// In each table the first three are the processes.
const OWN: u64 = PROCESSES as u64;
const SLOTS: u64 = 10;
/// Two pages before a PMD entry's end, so that neighbours need different tables.
const BASE: u64 = 0x7fffe;
const WINDOW: u64 = 12;
const WORD: u64 = 8;
const FRAMES: u64 = 90;
/// Forks that each may have made at a time.
const SPACES: u64 = 2;
/// The CPU on which these are looked at.
const LOOKS: usize = PROCESSES;

#[derive(Clone, Copy, Debug)]
enum Op {
    Frames(u64, u64),
    Endpoint(u64),
    Copy(u64, u64, u32, u32),
    Give(usize, u64, u64, u32, u32),
    Delete(u64),
    Revoke(u64),
    Map(usize, u64, u64, u64, u64, u32),
    Anonymous(usize, u64, u64, u32),
    Unmap(usize, u64),
    Protect(usize, u64, u32),
    Write(u64, u64),
    Truncate(u64, u64, u64),
    Fork(usize, u64),
    /// One of those that were made by forks writes.
    WriteInFork(usize, u64, u64),
}

fn slot() -> impl Strategy<Value = u64> {
    prop_oneof![20 => OWN..SLOTS, 1 => SLOTS..SLOTS + 2]
}

fn rights() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(ALL), 3 => Just(7u32), 3 => Just(3u32), 2 => Just(1u32), 2 => 0..ALL]
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..PROCESSES;
    let at = || BASE..BASE + WINDOW;
    prop_oneof![
        3 => (slot(), 0u64..24).prop_map(|(s, n)| Op::Frames(s, n)),
        1 => slot().prop_map(Op::Endpoint),
        5 => (slot(), slot(), rights(), 0u32..3).prop_map(|(f, t, r, b)| Op::Copy(f, t, r, b)),
        5 => (who(), slot(), slot(), rights(), 0u32..3).prop_map(|(p, t, f, r, b)| Op::Give(p, t, f, r, b)),
        2 => slot().prop_map(Op::Delete),
        2 => slot().prop_map(Op::Revoke),
        6 => (who(), slot(), at(), 0u64..4, 0u64..6, rights()).prop_map(|(p, s, a, o, n, r)| Op::Map(p, s, a, o, n, r & 7)),
        3 => (who(), at(), 0u64..6, rights()).prop_map(|(p, a, n, r)| Op::Anonymous(p, a, n, r & 7)),
        2 => (who(), at()).prop_map(|(p, a)| Op::Unmap(p, a)),
        2 => (who(), at(), rights()).prop_map(|(p, a, r)| Op::Protect(p, a, r & 7)),
        5 => (at(), 1..u64::MAX).prop_map(|(a, v)| Op::Write(a, v)),
        3 => (slot(), 0u64..4, 0u64..6).prop_map(|(s, o, n)| Op::Truncate(s, o, n)),
        2 => (who(), slot()).prop_map(|(p, s)| Op::Fork(p, s)),
        3 => (0usize..4, at(), 1..u64::MAX).prop_map(|(f, a, v)| Op::WriteInFork(f, a, v)),
    ]
}

struct Run<A: Arch> {
    kernel: Kernel<A>,
    processes: Vec<Arc<Process<A>>>,
    threads: Vec<Arc<Thread<A>>>,
    /// Those that were made by forks and are there, with their numbers in the model.
    forks: Vec<(usize, Arc<Process<A>>)>,
    model: Model,
}

fn va(page: u64) -> VirtAddr {
    VirtAddr(page << PAGE_SHIFT)
}

fn in_words(error: MapError) -> &'static str {
    match error {
        MapError::NotMapped(_) => "NotMapped",
        MapError::Forbidden(_) => "Forbidden",
        other => panic!("{other}"),
    }
}

impl<A: Arch> Run<A> {
    fn new(transport: TransportId) -> Run<A> {
        let kernel = Kernel::<A>::new(PROCESSES + 1, 8192, 16);
        kernel.world.choose("sync-all", transport);
        let limit = Price { frames: FRAMES, bytes: 1 << 17, spaces: SPACES };
        let processes: Vec<_> = (0..PROCESSES).map(|i| kernel.child(FREE + i as u64, SLOTS as u32, limit)).collect();
        let mut threads = Vec::new();
        for (i, process) in processes.iter().enumerate() {
            for of in 0..PROCESSES {
                kernel.give(process, of as u64, FREE + of as u64, Rights::all(), 0);
            }
            threads.push(kernel.thread(&kernel.first, 8 + i as u64, process, VirtAddr(0x1000), 1, i as u16, 0));
            kernel.world.on(i, || switch::load(kernel.world.cpu(i), &process.mm));
        }
        Run { kernel, processes, threads, forks: Vec::new(), model: Model::new(PROCESSES, SLOTS, FRAMES, SPACES) }
    }

    fn step(&mut self, who: usize, op: Op) {
        let page = |page: u64| page << PAGE_SHIFT;
        let thread = self.threads[who].clone();
        let ask = |number, arguments: &[u64]| {
            let status = self.kernel.status(who, &thread, number, arguments);
            if status as u64 == 0 { Ok(()) } else { Err(format!("{status:?}")) }
        };
        let model = &mut self.model;
        let (core, expected) = match op {
            Op::Frames(slot, n) => (ask(Number::MakeFrames, &[slot, n]), model.make(who, slot, What::Frames(n))),
            Op::Endpoint(slot) => (ask(Number::MakeEndpoint, &[slot]), model.make(who, slot, What::Endpoint)),
            Op::Copy(from, to, rights, badge) => (
                ask(Number::Copy, &[from, to, rights.into(), badge.into()]),
                model.derive((who, from), (who, to), rights, badge, false),
            ),
            Op::Give(whom, to, from, rights, badge) => (
                ask(Number::Grant, &[whom as u64, to, from, rights.into(), badge.into()]),
                model.derive((who, from), (whom, to), rights, badge, true),
            ),
            Op::Delete(slot) => (ask(Number::Delete, &[slot]), model.delete(who, slot)),
            Op::Revoke(slot) => (ask(Number::Revoke, &[slot]), model.revoke(who, slot)),
            Op::Map(whom, slot, at, offset, n, rights) => (
                ask(Number::Map, &[whom as u64, slot, page(at), page(offset), page(n), rights.into()]),
                model.map(who, whom, Some((slot, offset)), at, n, rights),
            ),
            Op::Anonymous(whom, at, n, rights) => (
                ask(Number::MapAnonymous, &[whom as u64, page(at), page(n), rights.into()]),
                model.map(who, whom, None, at, n, rights),
            ),
            Op::Unmap(whom, at) => (ask(Number::Unmap, &[whom as u64, page(at)]), model.unmap(whom, at)),
            Op::Protect(whom, at, rights) => {
                (ask(Number::Protect, &[whom as u64, page(at), rights.into()]), model.protect(whom, at, rights))
            }
            Op::Write(at, value) => {
                let mm = &self.processes[who].mm;
                let done = self.kernel.world.write(who, mm, va(at).add(WORD), value);
                (done.map_err(|error| in_words(error).to_owned()), model.write(who, at, value))
            }
            Op::Truncate(slot, offset, n) => {
                (ask(Number::Truncate, &[slot, page(offset), page(n)]), model.truncate(who, slot, offset, n))
            }
            Op::Fork(of, slot) => {
                let core = ask(Number::Fork, &[of as u64, slot, 0, 0, 0, 0, 1]);
                let expected = model.fork(who, of, slot);
                if let (Ok(()), Ok(number)) = (&core, expected) {
                    let node = self.processes[who].table.get(slot as u32).expect("it was made");
                    let Object::Process(made) = node.object() else { panic!("no process was made") };
                    self.forks.push((number, made.clone()));
                }
                (core, expected.map(|_| ()))
            }
            Op::WriteInFork(which, at, value) => match self.forks.get(which) {
                None => return,
                Some((number, process)) => {
                    let (world, cpu) = (&self.kernel.world, self.kernel.world.cpu(LOOKS));
                    world.on(LOOKS, || switch::load(cpu, &process.mm));
                    let done = world.write(LOOKS, &process.mm, va(at).add(WORD), value);
                    world.on(LOOKS, || switch::unload(cpu));
                    (done.map_err(|error| in_words(error).to_owned()), model.write(*number, at, value))
                }
            },
        };
        assert_eq!(core, expected.map_err(str::to_owned), "{op:?} by {who}");
        let there = |number: usize| self.model.objects.values().any(|(what, _)| *what == What::Fork(number));
        self.forks.retain(|(number, _)| there(*number));
    }

    fn compare(&self) {
        for who in 0..PROCESSES {
            for slot in OWN..SLOTS {
                let answer = self.kernel.ask(who, &self.threads[who], Number::Identify, &[slot]);
                let core = (answer[0] == 0).then_some((answer[1], answer[2], answer[3]));
                let model = self.model.caps.iter().find(|cap| cap.at == (who, slot)).map(|cap| {
                    let kind = match self.model.objects[&cap.object].0 {
                        What::Frames(_) => Kind::Frames,
                        What::Endpoint => Kind::Endpoint,
                        What::Fork(_) => Kind::Process,
                    };
                    (kind as u64, cap.rights.into(), cap.badge.into())
                });
                assert_eq!(core, model, "slot {slot} of {who}");
            }
            // Through the TLB of the CPU that has had the mm loaded all the time.
            for page in BASE..BASE + WINDOW + 6 {
                let core = self.kernel.world.read(who, &self.processes[who].mm, va(page).add(WORD)).map_err(in_words);
                assert_eq!(core, self.model.read(who, page), "page {page:#x} of {who}");
            }
            assert_eq!(self.processes[who].account.used().frames, self.model.used(who), "account of {who}");
        }
        for (number, process) in &self.forks {
            let (world, cpu) = (&self.kernel.world, self.kernel.world.cpu(LOOKS));
            world.on(LOOKS, || switch::load(cpu, &process.mm));
            for page in BASE..BASE + WINDOW + 6 {
                let core = world.read(LOOKS, &process.mm, va(page).add(WORD)).map_err(in_words);
                assert_eq!(core, self.model.read(*number, page), "page {page:#x} of fork {number}");
            }
            world.on(LOOKS, || switch::unload(cpu));
        }
        assert_eq!(self.kernel.world.violations(), 0);
    }
}

fn run<A: Arch>(transport: TransportId, steps: &[(usize, Op)]) {
    let mut run = Run::<A>::new(transport);
    for (who, op) in steps {
        run.step(*who, *op);
        run.compare();
    }
    drop((run.threads, run.processes, run.forks));
    let free = 8192;
    run.kernel.finish(free);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        max_shrink_iters: 400,
        ..ProptestConfig::default()
    })]

    #[test]
    fn capabilities_agree_with_the_model_untagged(
        transport in prop::sample::select(TransportId::ALL.to_vec()),
        steps in prop::collection::vec((0..PROCESSES, op()), 1..80),
    ) {
        run::<Untagged>(transport, &steps);
    }

    #[test]
    fn capabilities_agree_with_the_model_tagged(
        transport in prop::sample::select(TransportId::ALL.to_vec()),
        steps in prop::collection::vec((0..PROCESSES, op()), 1..80),
    ) {
        run::<Tagged>(transport, &steps);
    }
}
