//! A machine on the host with a first process, which has everything and from which all others come.

use std::sync::Arc;

use kernel::abi::{Number, Rights, Status, WORDS};
use kernel::addr::{CpuId, VirtAddr};
use kernel::arch::Arch;
use kernel::ipc::exchange::Outcome;
use kernel::object::account::{Account, Price};
use kernel::object::endpoint::Endpoint;
use kernel::object::process::Process;
use kernel::object::thread::{Start, Thread};
use kernel::object::{Object, capability, finish};
use kernel::syscall;
use kernel::task::turn;
use kernel::tlb::transport::TransportId;

use crate::host::World;

/// Slots of the first process: itself, and a thread that never runs.
pub const SELF: u64 = 0;
/// See [`SELF`].
pub const THREAD: u64 = 1;
/// The first slot that is empty.
pub const FREE: u64 = 2;

/// What the account of the first process has.
pub const ALL: Price = Price { frames: 12_000, bytes: 1 << 20, spaces: 16 };

/// See the head of this module.
pub struct Kernel<A: Arch> {
    /// The machine.
    pub world: World<A>,
    /// The account that the first process came out of.
    pub account: Arc<Account>,
    /// The first process.
    pub first: Arc<Process<A>>,
}

impl<A: Arch> Kernel<A> {
    /// A machine of `cpus` CPUs and a first process with `slots` slots.
    pub fn new(cpus: usize, frames: usize, slots: u32) -> Kernel<A> {
        Kernel::with(cpus, frames, slots, ALL)
    }

    /// The same, whose account has `all`.
    pub fn with(cpus: usize, frames: usize, slots: u32, all: Price) -> Kernel<A> {
        let world = World::<A>::new(cpus, frames);
        let more = Price { frames: 64, bytes: 1 << 20, spaces: 1 };
        let account = Account::first(all.and(more));
        let cpu = world.cpu(0);
        let first = world.on(0, || Process::new(cpu, &account, slots, all, 31)).expect("there is enough");
        world.on(0, || {
            capability::install(cpu, &first.table, SELF as u32, Object::Process(first.clone())).expect("it is empty");
        });
        Kernel { world, account, first }
    }

    /// A thread of `process` that begins at `entry`, made by `maker` with its capability in `slot`.
    #[allow(clippy::too_many_arguments)]
    pub fn thread(
        &self,
        maker: &Arc<Process<A>>,
        slot: u64,
        process: &Arc<Process<A>>,
        entry: VirtAddr,
        priority: u8,
        cpu: u16,
        argument: u64,
    ) -> Arc<Thread<A>> {
        let start = Start { entry, stack: VirtAddr(0), argument, priority, cpu: CpuId(cpu) };
        let made = self.world.on(0, || Thread::make(self.world.cpu(0), maker, slot as u32, process, start));
        made.expect("there is enough")
    }

    /// A machine of two CPUs, whose flushes interrupt, under `sync-all`.
    pub fn pair(frames: usize) -> Kernel<A> {
        let kernel = Kernel::new(2, frames, 32);
        kernel.world.choose("sync-all", TransportId::Ipi);
        kernel
    }

    /// A thread of `process` on CPU 1 that makes system calls when the test says so, and does not run meanwhile.
    pub fn speaker(&self, slot: u64, process: &Arc<Process<A>>) -> Arc<Thread<A>> {
        self.thread(&self.first, slot, process, VirtAddr(0x1000), 1, 1, 0)
    }

    /// A child of the first process, with its capability in `slot`.
    pub fn child(&self, slot: u64, slots: u32, limit: Price) -> Arc<Process<A>> {
        let made = self.world.on(0, || self.first.make_child(self.world.cpu(0), slot as u32, slots, limit, 31));
        made.expect("there is enough")
    }

    /// An endpoint of the first process, with its capability in `slot`.
    pub fn endpoint(&self, slot: u64) {
        let endpoint = Endpoint::new(&self.first.account).expect("there is enough");
        let installed = self.world.on(0, || {
            capability::install(self.world.cpu(0), &self.first.table, slot as u32, Object::Endpoint(endpoint))
        });
        installed.expect("it is empty");
    }

    /// Makes a system call for `thread` on CPU `cpu`; one that is done at once.
    pub fn ask(&self, cpu: usize, thread: &Arc<Thread<A>>, number: Number, arguments: &[u64]) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        words[0] = number as u64;
        words[1..=arguments.len()].copy_from_slice(arguments);
        let mut outcome = self.world.on(cpu, || syscall::handle(self.world.cpu(cpu), thread, words));
        loop {
            match outcome {
                Outcome::Answer(words) => return words,
                Outcome::Waits => panic!("{} waits", number.name()),
                Outcome::Later => outcome = self.world.on(cpu, || syscall::go_on(self.world.cpu(cpu), thread)),
            }
        }
    }

    /// The same, of which only the status is wanted.
    pub fn status(&self, cpu: usize, thread: &Arc<Thread<A>>, number: Number, arguments: &[u64]) -> Status {
        let answer = self.ask(cpu, thread, number, arguments);
        Status::from_number(answer[0]).expect("a status")
    }

    /// Gives `process` a capability in its `to`, derived from the first process's `from`.
    pub fn give(&self, process: &Arc<Process<A>>, to: u64, from: u64, rights: Rights, badge: u32) {
        let node = self.first.table.get(from as u32).expect("it is there");
        capability::derive(&node, &process.table, to as u32, rights, badge).expect("it can be given");
    }

    /// Lets CPUs take turns, in the order of `choose`, until none has anything to do.
    pub fn run(&self, mut choose: impl FnMut(usize) -> usize) {
        let cpus = self.world.machine().cpus.len();
        let mut idle = vec![false; cpus];
        while idle.contains(&false) {
            let at = choose(cpus) % cpus;
            idle[at] = !self.world.on(at, || turn::turn(self.world.cpu(at)));
            if !idle[at] {
                idle.fill(false);
            }
        }
    }

    /// One CPU after the other.
    pub fn run_in_turn(&self) {
        let mut at = 0;
        self.run(|cpus| {
            at = (at + 1) % cpus;
            at
        });
    }

    /// Ends everything, and sees that nothing is left: accounts, frames, tables.
    pub fn finish(self, free: usize) {
        let Kernel { world, account, first } = self;
        world.on(0, || {
            let original = first.table.get(SELF as u32).expect("it is there");
            capability::delete(world.cpu(0), &original).expect("nobody revokes it");
            drop(original);
            finish(world.cpu(0));
        });
        let limit = first.account.limit();
        let mut at = 0;
        while (0..world.machine().cpus.len()).any(|i| world.on(i, || turn::turn(world.cpu(i)))) {
            at += 1;
            assert!(at < 10_000, "the machine does not come to rest");
        }
        assert!(first.has_ended());
        assert_eq!(first.account.used(), Price::NOTHING, "of {limit:?}");
        drop(first);
        assert_eq!(account.used(), Price::NOTHING, "of what the first process was made of");
        for cpu in 0..world.machine().cpus.len() {
            world.on(cpu, || kernel::tlb::switch::unload(world.cpu(cpu)));
        }
        world.settle();
        assert_eq!(world.violations(), 0);
        assert_eq!(world.machine().free_frames(), free, "frames were not given back");
        assert_eq!(world.machine().tables.load(std::sync::atomic::Ordering::Relaxed), 0, "tables were not given back");
    }
}
