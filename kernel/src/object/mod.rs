//! What the microkernel consists of, seen from outside: typed objects, named by capabilities, paid for by whoever
//! asked.
//!
//! Nothing here can be reached without a capability ([`capability`]): no call takes a number of a process, a physical
//! address or anything else that names an object for everybody. Nothing here is allocated without a receipt
//! ([`account`]). An object ends when its original capability is deleted, at the latest with the process that made it;
//! what it was charged for is then given back. Processes that end are taken down one after the other by [`finish`], so
//! that a chain of them needs no deep stack.

pub mod account;
pub mod capability;
pub mod endpoint;
pub mod fork;
pub mod frames;
mod huge;
pub mod interrupt;
pub mod mapping;
pub mod meter;
pub mod module;
pub mod notification;
pub mod payer;
pub mod process;
pub mod removal;
pub mod table;
pub mod thread;
mod unmapping;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{Kind, Rights, Status};
use crate::arch::Arch;
use crate::mm::address_space::MapError;
use crate::mm::collapse::CollapseError;
use crate::mm::frame_alloc::OutOfFrames;
use crate::smp::cpu::Cpu;
use crate::smp::lock::Mutex;

use account::NotEnough;
use endpoint::Endpoint;
use frames::Memory;
use interrupt::{Interrupt, Lines};
use meter::Meter;
use module::Module;
use notification::Notification;
use process::Process;
use thread::Thread;

/// Something that a capability names.
pub enum Object<A: Arch> {
    /// An address space and what goes with it.
    Process(Arc<Process<A>>),
    /// Memory, in pages of 4 KiB or, in shared tables, of 2 MiB.
    Memory(Arc<Memory<A>>),
    /// A thread.
    Thread(Arc<Thread<A>>),
    /// Where calls go.
    Endpoint(Arc<Endpoint<A>>),
    /// Bits to wait for.
    Notification(Arc<Notification<A>>),
    /// An interrupt line.
    Interrupt(Arc<Interrupt<A>>),
    /// The programs that came with the kernel.
    Module(Arc<Module>),
    /// What a run is to do, and what it did.
    Meter(Arc<Meter<A>>),
}

impl<A: Arch> Clone for Object<A> {
    fn clone(&self) -> Self {
        match self {
            Object::Process(it) => Object::Process(it.clone()),
            Object::Memory(it) => Object::Memory(it.clone()),
            Object::Thread(it) => Object::Thread(it.clone()),
            Object::Endpoint(it) => Object::Endpoint(it.clone()),
            Object::Notification(it) => Object::Notification(it.clone()),
            Object::Interrupt(it) => Object::Interrupt(it.clone()),
            Object::Module(it) => Object::Module(it.clone()),
            Object::Meter(it) => Object::Meter(it.clone()),
        }
    }
}

impl<A: Arch> Object<A> {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Object::Process(_) => Kind::Process,
            Object::Memory(memory) if memory.is_shared() => Kind::SharedTable,
            Object::Memory(_) => Kind::Frames,
            Object::Thread(_) => Kind::Thread,
            Object::Endpoint(_) => Kind::Endpoint,
            Object::Notification(_) => Kind::Notification,
            Object::Interrupt(_) => Kind::Interrupt,
            Object::Module(_) => Kind::Module,
            Object::Meter(_) => Kind::Meter,
        }
    }

    /// Its original capability is gone: a step of its end. True: that was the last one.
    fn end_some(&self, cpu: &'static Cpu<A>) -> bool {
        match self {
            Object::Memory(memory) => return memory.end_some(cpu),
            Object::Endpoint(endpoint) => return endpoint.end_some(cpu),
            Object::Notification(notification) => return notification.end_some(cpu),
            Object::Process(process) => process.end(cpu, Status::Gone as u64),
            Object::Thread(thread) => {
                thread.process.forget_guests();
                thread.end(cpu, Status::Gone as u64);
            }
            Object::Interrupt(interrupt) => interrupt.unbind(),
            // Nothing but their memory is to be given back.
            Object::Module(_) | Object::Meter(_) => {}
        }
        true
    }
}

/// A request about objects that was refused, and changed nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ObjectError {
    /// Nothing is in the slot.
    #[error("slot {0} is empty, or beyond the table")]
    NoCapability(u32),
    /// The slot is in use.
    #[error("slot {0} is in use")]
    SlotTaken(u32),
    /// The capability names something else.
    #[error("the capability names a {0:?}")]
    WrongKind(Kind),
    /// The capability lacks these rights.
    #[error("the capability does not have {0:?}")]
    Forbidden(Rights),
    /// The capability has a badge already.
    #[error("the capability has badge {0} already")]
    Badged(u32),
    /// An argument makes no sense.
    #[error("argument {0} is outside of what the call takes")]
    BadArgument(usize),
    /// The account is short.
    #[error(transparent)]
    NotEnough(#[from] NotEnough),
    /// The object ended.
    #[error("the object does not exist any more")]
    Gone,
    /// The capability cannot be deleted just now.
    #[error("another thread revokes the capability just now")]
    Revoked,
    /// The address space refused.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The collapse was refused.
    #[error(transparent)]
    Collapse(#[from] CollapseError),
    /// No program, or one that is none.
    #[error("the module has no program of this name, or what it has is none")]
    NoProgram,
}

impl From<OutOfFrames> for ObjectError {
    fn from(error: OutOfFrames) -> ObjectError {
        ObjectError::Map(MapError::OutOfFrames(error))
    }
}

impl ObjectError {
    /// What a program is told.
    pub fn status(self) -> Status {
        match self {
            ObjectError::NoCapability(_) => Status::NoCapability,
            ObjectError::SlotTaken(_) => Status::SlotTaken,
            ObjectError::WrongKind(_) => Status::WrongKind,
            ObjectError::Forbidden(_) | ObjectError::Badged(_) => Status::Forbidden,
            ObjectError::BadArgument(_) => Status::BadArgument,
            ObjectError::NotEnough(_) => Status::Quota,
            ObjectError::Gone => Status::Gone,
            ObjectError::NoProgram => Status::NoProgram,
            ObjectError::Map(error) | ObjectError::Collapse(CollapseError::Map(error)) => match error {
                MapError::BadRange(..) | MapError::CutsHugePage(_) => Status::BadArgument,
                MapError::Overlaps(..) => Status::Overlaps,
                MapError::NotMapped(_) => Status::NotMapped,
                MapError::Forbidden(_) => Status::Forbidden,
                MapError::OutOfFrames(_) | MapError::OutOfNumbers(_) => Status::OutOfMemory,
            },
            ObjectError::Collapse(CollapseError::NotEligible(_)) => Status::NotMapped,
            ObjectError::Collapse(CollapseError::NotPopulated(_)) => Status::NotPopulated,
            ObjectError::Revoked | ObjectError::Collapse(CollapseError::InUse(_)) => Status::Busy,
        }
    }
}

/// The machine's part of objects.
pub struct Objects<A: Arch> {
    /// Held to change the derivation tree.
    tree: Mutex<A, ()>,
    /// Processes whose threads are all gone and that are to be taken down: the first of a list.
    ending: Mutex<A, Option<Arc<Process<A>>>>,
    /// How many those are. Changed under that lock.
    ends: AtomicU32,
    next_id: AtomicU32,
    /// Interrupt lines.
    pub lines: Lines<A>,
}

impl<A: Arch> Default for Objects<A> {
    fn default() -> Self {
        Objects {
            tree: Mutex::<A, _>::new(()),
            ending: Mutex::<A, _>::new(None),
            ends: AtomicU32::new(0),
            next_id: AtomicU32::new(1),
            lines: Lines::default(),
        }
    }
}

impl<A: Arch> Objects<A> {
    /// A number for a process or thread: for reports, never a name.
    fn id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// Takes down the processes that have ended since. With no lock held.
pub fn finish<A: Arch>(cpu: &'static Cpu<A>) {
    while finish_some(cpu, |_| false) {}
}

/// Takes down the processes that have ended since, for as long as `stops` does not say otherwise, which is asked before
/// each step with the highest priority that threads of the process could have. To be called after whatever may end one,
/// with no lock held. True: something is left.
#[inline]
pub fn finish_some<A: Arch>(cpu: &'static Cpu<A>, stops: impl Fn(u8) -> bool) -> bool {
    // Relaxed: who has just put one there sees that; another CPU's is that CPU's to see.
    A::machine().objects.ends.load(Ordering::Relaxed) != 0 && finish_those(cpu, stops)
}

#[cold]
fn finish_those<A: Arch>(cpu: &'static Cpu<A>, stops: impl Fn(u8) -> bool) -> bool {
    let objects = &A::machine().objects;
    loop {
        let process = {
            let mut ending = objects.ending.lock();
            let Some(process) = ending.take() else { return false };
            *ending = process.next_ending.lock().take();
            objects.ends.fetch_sub(1, Ordering::Relaxed);
            process
        };
        if !process.take_down(cpu, || stops(process.highest)) {
            process.hand_over();
            return true;
        }
    }
}
