//! Two programs that talk: a client on one CPU and a server on another, each with 1 MiB of memory to send from and as
//! much to receive into.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use kernel::abi::Rights;
use kernel::addr::{PMD_SIZE, VirtAddr};
use kernel::arch::Arch;
use kernel::object::account::Price;
use kernel::object::payer::Payer;
use kernel::object::process::Process;
use kernel::object::thread::Thread;
use scripted::{User, load};

use crate::kernel_of::{FREE, Kernel};

pub use scripted::words::{Heard, fill, heard, long, send, stamps};

/// Where each sends from: 2 MiB, so that it can be collapsed.
pub const OUT: VirtAddr = VirtAddr(0x4000_0000);
/// Where each receives.
pub const IN: VirtAddr = VirtAddr(0x4020_0000);
/// The endpoint's slot in both, the client's with badge [`BADGE`].
pub const ENDPOINT: u64 = 1;
/// See [`ENDPOINT`].
pub const BADGE: u32 = 77;
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
                    .map_anonymous(Payer::own(&process.account), at, PMD_SIZE, Rights::READ | Rights::WRITE)
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
