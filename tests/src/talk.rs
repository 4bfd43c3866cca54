//! Two programs that talk: a client on one CPU and a server on another, each with 1 MiB of memory to send from and as much to receive into.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use kernel::abi::message::{ADDRESS_WORD, BYTES_WORD, Info, pack, unpack};
use kernel::abi::{Number, Rights, Status, WORDS};
use kernel::addr::{PAGE_SIZE, PMD_SIZE, VirtAddr};
use kernel::arch::Arch;
use kernel::object::account::Price;
use kernel::object::process::Process;
use kernel::object::thread::Thread;
use scripted::{User, load};

use crate::kernel_of::{FREE, Kernel};

/// Where each sends from: 2 MiB, so that it can be collapsed.
pub const OUT: VirtAddr = VirtAddr(0x4000_0000);
/// Where each receives.
pub const IN: VirtAddr = VirtAddr(0x4020_0000);
/// The endpoint's slot in both, the client's with badge [`BADGE`].
pub const ENDPOINT: u64 = 1;
/// See [`ENDPOINT`].
pub const BADGE: u32 = 77;
/// The oracle's tag is in the first word of a page that was just allocated; programs of these tests use the others.
const WORD: u64 = 8;

/// A system call's answer, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// How it ended.
    pub status: Status,
    /// Of a message: the badge, and what else there is.
    pub badge: u32,
    /// See above.
    pub info: Info,
    /// Its words.
    pub words: [u64; 6],
}

/// Understands `answer`.
pub fn heard(answer: [u64; WORDS]) -> Heard {
    let status = Status::from_number(answer[0]).expect("an answer begins with a status");
    let (badge, info) = unpack(answer[1]).expect("the kernel sets bits that it knows");
    let words = std::array::from_fn(|i| answer[i + 2]);
    Heard { status, badge, info, words }
}

/// Sends six words by `number` to `slot`.
pub fn send(user: &User<'_>, number: Number, slot: u64, info: Info, words: [u64; 6]) -> Heard {
    let mut arguments = [0; 7];
    arguments[0] = pack(slot as u32, info);
    arguments[1..].copy_from_slice(&words);
    heard(user.ask(number, &arguments))
}

/// Words that say that `bytes` from `at` go with them.
pub fn long(at: VirtAddr, bytes: u64) -> [u64; 6] {
    let mut words = [0; 6];
    (words[ADDRESS_WORD], words[BYTES_WORD]) = (at.0, bytes);
    words
}

/// Writes `stamp` into every page of `bytes` from `at` on, at its beginning and at its end.
pub fn fill(user: &User<'_>, at: VirtAddr, bytes: u64, stamp: u64) {
    for page in 0..bytes.div_ceil(PAGE_SIZE) {
        let start = at.add(page * PAGE_SIZE);
        user.write(start.add(WORD), stamp << 16 | page);
        user.write(start.add(PAGE_SIZE - 8), stamp << 16 | page);
    }
}

/// What `bytes` from `at` on are stamped with: page by page, at the beginning and at the end. 0 for what was never written.
pub fn stamps(user: &User<'_>, at: VirtAddr, bytes: u64) -> Vec<(u64, u64)> {
    let stamp = |at: VirtAddr, page: u64| {
        let value = user.read(at);
        assert!(value == 0 || value & 0xffff == page, "page {page} has what belongs to page {}", value & 0xffff);
        value >> 16
    };
    let pages = 0..bytes.div_ceil(PAGE_SIZE);
    let each = |page: u64| {
        let start = at.add(page * PAGE_SIZE);
        (stamp(start.add(WORD), page), stamp(start.add(PAGE_SIZE - 8), page))
    };
    pages.map(each).collect()
}

/// What programs leave for the test to read.
pub type Log<T> = Rc<RefCell<Vec<T>>>;

/// A client, a server and an endpoint between them.
pub struct Talk<A: Arch> {
    /// The machine.
    pub kernel: Kernel<A>,
    /// On CPU 0.
    pub client: Arc<Process<A>>,
    /// On CPU 1.
    pub server: Arc<Process<A>>,
    free: usize,
    next: std::cell::Cell<u64>,
}

impl<A: Arch> Talk<A> {
    /// A machine of three CPUs with both, and their memory.
    pub fn new() -> Talk<A> {
        let free = 12_000;
        let kernel = Kernel::<A>::new(3, free, 32);
        kernel.world.choose("sync-all", kernel::tlb::transport::TransportId::native::<A>());
        kernel.endpoint(FREE);
        let limit = Price { frames: 4096, bytes: 1 << 17, spaces: 0 };
        let make = |i: u64, badge| {
            let process = kernel.child(FREE + 1 + i, 16, limit);
            kernel.give(&process, 0, FREE + 1 + i, Rights::all(), 0);
            kernel.give(&process, ENDPOINT, FREE, Rights::all(), badge);
            for at in [OUT, IN] {
                process
                    .map_anonymous(&process.account, at, PMD_SIZE, Rights::READ | Rights::WRITE)
                    .expect("it is free");
            }
            process
        };
        let (client, server) = (make(0, BADGE), make(1, 0));
        Talk { kernel, client, server, free, next: std::cell::Cell::new(FREE + 3) }
    }

    fn begin(
        &self,
        process: &Arc<Process<A>>,
        cpu: u16,
        priority: u8,
        program: impl FnOnce(&User<'_>) + 'static,
    ) -> Arc<Thread<A>> {
        let slot = self.next.replace(self.next.get() + 1);
        self.kernel.thread(&self.kernel.first, slot, process, load(program), priority, cpu, 0)
    }

    /// A thread of the client, on CPU 0.
    pub fn client(&self, program: impl FnOnce(&User<'_>) + 'static) -> Arc<Thread<A>> {
        self.begin(&self.client, 0, 5, program)
    }

    /// A thread of the server, on CPU 1, or on `cpu`.
    pub fn server(&self, cpu: u16, program: impl FnOnce(&User<'_>) + 'static) -> Arc<Thread<A>> {
        self.begin(&self.server, cpu, 5, program)
    }

    /// A thread of `process`.
    pub fn thread(
        &self,
        process: &Arc<Process<A>>,
        cpu: u16,
        priority: u8,
        program: impl FnOnce(&User<'_>) + 'static,
    ) -> Arc<Thread<A>> {
        self.begin(process, cpu, priority, program)
    }

    /// CPU `cpu` takes turns until it has nothing to do.
    pub fn run_cpu(&self, cpu: usize) {
        while self.kernel.world.on(cpu, || kernel::task::turn::turn(self.kernel.world.cpu(cpu))) {}
    }

    /// Ends all and sees that nothing is left.
    pub fn finish(self) {
        let Talk { kernel, client, server, free, .. } = self;
        drop((client, server));
        kernel.finish(free);
    }
}

impl<A: Arch> Default for Talk<A> {
    fn default() -> Self {
        Talk::new()
    }
}
