//! One execution of a scope: the unchanged core on a small machine of its own, from the set-up, which nothing disturbs, to the end of the operation and of everything that disturbs it, as
//! whoever directs it wants.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use corosensei::CoroutineResult;
use corosensei::stack::DefaultStack;
use kernel::addr::{CpuId, Pfn, PhysAddr, VirtAddr};
use kernel::arch::Arch;
use kernel::atomic::observe;
use kernel::boot::{BootInfo, ExitCode};
use kernel::ledger::events::EventRing;
use kernel::machine::Machine;
use kernel::mm::address_space::Mm;
use kernel::mm::frame::{Frame, FrameState, FrameTable};
use kernel::mm::frame_alloc::FrameAllocator;
use kernel::mm::{page, rcu_walk};
use kernel::record::event::{EVENT_BYTES, Event};
use kernel::record::ring::RingHeader;
use kernel::record::shared::{CpuStatus, Shared};
use kernel::smp::cpu::Cpu;
use kernel::smp::rcu;
use kernel::sync;
use kernel::tlb::switch;
use kernel::workload::{Scene, Target, scene};

use super::arch::Sim;
use super::direction::{self, Accesses, Direction};
use super::run::{STACK, Strand, arena, strand_on};
use super::scope::{Role, Scope};
use super::world::{RAM, World, enter, leave, world};
use crate::explore::hub::{Access, Command, Hub};
use crate::explore::{Execution, Footprint, Process, Step, StepNumber};

/// Frames of RAM: what eight GiB of a file need that are shared, each with one page of 2 MiB.
const FRAMES: usize = 6 << 10;
/// Events that a CPU keeps when the execution is told.
const EVENTS: usize = 4096;

/// One execution. There is one at a time on a host thread.
pub struct Directed<const TAGGED: bool> {
    world: Box<World>,
    strands: Vec<Option<Strand>>,
    /// The strands refer to it.
    _plot: Box<Plot<TAGGED>>,
    scene: *mut Box<dyn Scene<Sim<TAGGED>>>,
    machine: &'static Machine<Sim<TAGGED>>,
    cpus: &'static [&'static Cpu<Sim<TAGGED>>],
    frames: &'static [Frame<Sim<TAGGED>>],
    statuses: &'static [CpuStatus],
    shared: &'static Shared,
    rings: Vec<&'static RingHeader>,
    slots: Vec<&'static [[std::sync::atomic::AtomicU64; EVENT_BYTES / 8]]>,
    broken: bool,
}

/// What all CPUs know.
struct Plot<const TAGGED: bool> {
    target: Target<Sim<TAGGED>>,
    va: VirtAddr,
}

thread_local! {
    /// Stacks of earlier executions.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

impl<const TAGGED: bool> Directed<TAGGED> {
    /// Sets everything up and lets each CPU come to its first access. `told`: events are kept.
    pub fn new(scope: &Scope, told: bool) -> Directed<TAGGED> {
        let count = scope.roles.len() + 1;
        let freezes = match scope.transport {
            kernel::tlb::transport::TransportId::Paravirt => 1,
            _ => 0,
        };
        let hub = Hub::new(count, scope.buffers, |i| if i == 0 { 0 } else { freezes });
        let direction = Direction { hub: RefCell::new(hub), live: Cell::new(false) };
        let world = Box::new(World::new(arena(), count, 0, scope.hardware, Some(direction)));
        enter(&world);

        let statuses: &'static [CpuStatus] = Vec::leak((0..count).map(|_| CpuStatus::default()).collect());
        let (mut rings, mut slots) = (Vec::new(), Vec::new());
        let cpus: Vec<&'static Cpu<Sim<TAGGED>>> = (0..count)
            .map(|i| {
                let id = CpuId(i as u16);
                let events = if told {
                    let header: &'static RingHeader = Box::leak(Box::default());
                    let empty = || std::array::from_fn(|_| std::sync::atomic::AtomicU64::new(0));
                    let memory: &'static [_] = Vec::leak((0..EVENTS).map(|_| empty()).collect());
                    rings.push(header);
                    slots.push(memory);
                    EventRing::undisturbed(id, header, memory, Sim::<TAGGED>::instructions)
                } else {
                    EventRing::off(id)
                };
                &*Box::leak(Box::new(Cpu::new(id, i as u64, VirtAddr(0), &statuses[i], events)))
            })
            .collect();
        let cpus: &'static [&'static Cpu<Sim<TAGGED>>] = Vec::leak(cpus);
        let frames: &'static [Frame<Sim<TAGGED>>] = Vec::leak((0..FRAMES).map(|_| Frame::new()).collect());
        let first = PhysAddr(RAM).pfn();
        let allocator = FrameAllocator::new();
        allocator.add(first, Pfn(first.0 + FRAMES as u32));
        let shared: &'static Shared = Box::leak(Box::new(Shared::new()));
        let firmware = BootInfo {
            memory: &[],
            cpus: &[],
            command_line: "",
            module: &[],
            start_cpu: |_| Ok(()),
            init_boot_cpu: |_| (),
            grow_heap: |_, _| (),
            exit: |code: ExitCode| panic!("the machine is left with {code:?}"),
            shared,
        };
        let machine =
            Sim::<TAGGED>::install_machine(Machine::new(cpus, FrameTable::new(first, frames), allocator, firmware));
        frames.iter().for_each(|frame| frame.set_state(FrameState::Free));
        (1..count).for_each(|_| machine.came_online());
        kernel::guard::remove(scope.guards);
        machine.policy.set(&sync::all::<Sim<TAGGED>>()[scope.strategy], scope.setting());
        for (core, cpu) in world.cores.iter().zip(cpus) {
            core.area.set(*cpu as *const Cpu<Sim<TAGGED>> as usize);
            rcu::leave_idle(*cpu);
        }

        let mut staged = scene(scope.workload, cpus[0]).expect("there is memory for the scene");
        staged.prepare(cpus[0], 0).expect("there is memory for the operation");
        let target = staged.target();
        let va = target.range.start;
        let plot = Box::new(Plot { target, va });
        for (i, role) in scope.roles.iter().enumerate() {
            world.current.set(i + 1);
            if matches!(role, Role::Walk | Role::Read | Role::TwoWord) {
                switch::load(cpus[i + 1], &plot.target.mm);
            }
        }
        world.lately.borrow_mut().clear();
        world.note(va);
        world.findings.borrow_mut().clear();

        let scene = Box::into_raw(Box::new(staged));
        let known: *const Plot<TAGGED> = &*plot;
        let mut strands: Vec<Option<Strand>> = Vec::new();
        for index in 0..count {
            let stack = STACKS.with_borrow_mut(Vec::pop);
            let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK).expect("the host has memory for a stack"));
            let role = index.checked_sub(1).map(|i| scope.roles[i]);
            strands.push(Some(strand_on(stack, index, move || {
                // SAFETY: both are kept until this strand has been reset.
                let (scene, plot) = unsafe { (&mut *scene, &*known) };
                act(role, scene.as_mut(), plot)
            })));
        }
        let mut directed = Directed {
            world,
            strands,
            _plot: plot,
            scene,
            machine,
            cpus,
            frames,
            statuses,
            shared,
            rings,
            slots,
            broken: false,
        };
        directed.direction().live.set(true);
        (0..count).for_each(|cpu| directed.resume(cpu));
        directed
    }

    fn direction(&self) -> &Direction {
        self.world.direction.as_ref().expect("the execution is directed")
    }

    /// Lets `cpu` go on to its next access.
    fn resume(&mut self, cpu: usize) {
        self.world.current.set(cpu);
        observe(Some(&Accesses::<TAGGED>));
        let strand = self.strands[cpu].as_mut().expect("it has not been reset");
        let result = catch_unwind(AssertUnwindSafe(|| strand.resume(())));
        observe(None);
        match result {
            Ok(CoroutineResult::Yield(())) => {}
            Ok(CoroutineResult::Return(())) => unreachable!("a CPU never returns"),
            Err(payload) => {
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).into()));
                self.world.findings.borrow_mut().push(format!("cpu{cpu} panics: {}", text.unwrap_or_default()));
                self.broken = true;
            }
        }
    }

    /// What is wrong with the execution, which is over: what the kernel's oracle found, what the machine found.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = self.world.findings.borrow().clone();
        let first = self.machine.first_violation.take();
        if let Some(kind) = kernel::record::cell::ViolationKind::from_number(first.kind) {
            findings
                .insert(0, format!("{}: the walk of cpu{} of frame {:#x}", kind.in_words(), first.walker, first.pfn));
        }
        if !self.broken && !self.direction().hub.borrow().all_over() {
            findings.push("every CPU waits for another".into());
        }
        findings
    }

    /// Whether some program waited for a lock: what it depends on then is not known, and the exploration is not complete.
    pub fn waited_blindly(&self) -> bool {
        self.direction().hub.borrow().blind_waits > 0
    }

    /// The kernel's events in the order of their steps, if they were kept.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (header, slots) in self.rings.iter().zip(&self.slots) {
            let count = header.written.load(std::sync::atomic::Ordering::Relaxed) as usize / EVENT_BYTES;
            for i in count.saturating_sub(EVENTS)..count {
                let word = |n: usize| slots[i % EVENTS][n].load(std::sync::atomic::Ordering::Relaxed);
                events.push(Event {
                    time: word(0),
                    kind: word(1) as u16,
                    cpu: (word(1) >> 16) as u16,
                    mm: (word(1) >> 32) as u32,
                    a: word(2),
                    b: word(3),
                });
            }
        }
        events.sort_by_key(|event| event.time);
        events
    }
}

fn direction() -> &'static Direction {
    world().direction.as_ref().expect("the execution is directed")
}

/// A CPU, from the end of the set-up on.
fn act<const TAGGED: bool>(role: Option<Role>, scene: &mut dyn Scene<Sim<TAGGED>>, plot: &Plot<TAGGED>) {
    world().core().masked.set(false);
    let cpu = Sim::<TAGGED>::this_cpu();
    match role {
        None => operate(cpu, scene),
        Some(role) => disturb(cpu, &plot.target.mm, plot.va, role),
    }
    rcu::enter_idle(cpu);
    loop {
        direction().stop_before::<TAGGED>(Access::Over);
    }
}

/// The first CPU: the operation, after which no cache may have what memory no longer says.
fn operate<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, scene: &mut dyn Scene<Sim<TAGGED>>) {
    if let Err(error) = scene.operate(cpu, 0) {
        world().findings.borrow_mut().push(format!("the operation failed: {error}"));
    }
    let world = world();
    world.fill();
    for (i, core) in world.cores.iter().enumerate() {
        let other = Sim::<TAGGED>::machine().cpus[i];
        // A frozen CPU invalidates before it runs; a lazy one before it uses a translation.
        let (frozen, lazy) = direction::unseen(|| (other.vcpu.owes_a_flush(), other.loaded.is_lazy()));
        if frozen {
            continue;
        }
        let stale = core.mmu.borrow().stale(!lazy, |pa| world.read_if_ram(pa));
        if let Some(what) = stale {
            world.findings.borrow_mut().push(format!("when the operation is over, cpu{i} still has cached {what}"));
        }
    }
}

/// Another CPU.
fn disturb<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, mm: &Mm<Sim<TAGGED>>, va: VirtAddr, role: Role) {
    if role == Role::LoadAndWalk {
        switch::load(cpu, mm);
    }
    if role == Role::Read {
        rcu_walk::count_leaves(cpu, mm, va, 1);
    } else {
        let mut pages = [Pfn(0)];
        let strategy = Sim::<TAGGED>::machine().policy.strategy();
        let walk = if role == Role::TwoWord { strategy.get_user_pages_two_word } else { strategy.get_user_pages_fast };
        let got = walk(cpu, mm, va, false, &mut pages);
        pages[..got].iter().for_each(|page| page::put_walked(cpu, *page));
    }
    if role == Role::LoadAndWalk {
        switch::unload(cpu);
    }
}

impl<const TAGGED: bool> Execution for Directed<TAGGED> {
    fn processes(&self) -> usize {
        self.direction().hub.borrow().processes()
    }

    fn next(&self, process: Process) -> Option<Footprint> {
        if self.broken { None } else { self.direction().hub.borrow().next(process) }
    }

    fn enabled(&self, process: Process) -> bool {
        !self.broken && self.direction().hub.borrow().enabled(process)
    }

    fn step(&mut self, process: Process, number: StepNumber) -> Step {
        self.world.steps.set(number.into());
        let (step, command) = self.direction().hub.borrow_mut().step(process, number);
        match command {
            Command::Run(cpu) => self.resume(cpu),
            Command::Deliver(cpu, kind) => {
                self.world.cores[cpu].handler.set(Some(kind));
                self.resume(cpu);
            }
            Command::Write(_, word, value) => direction::write(word, value),
        }
        step
    }
}

impl<const TAGGED: bool> Drop for Directed<TAGGED> {
    fn drop(&mut self) {
        for strand in self.strands.iter_mut().filter_map(Option::take) {
            let mut strand = strand;
            if !strand.done() {
                // SAFETY: nothing on the coroutine's stack is needed again, and nothing refers to it: all of them stop here.
                unsafe { strand.force_reset() };
            }
            STACKS.with_borrow_mut(|stacks| stacks.push(strand.into_stack()));
        }
        leave();
        // SAFETY: all of these were made by `new`, which leaked them; the strands, which referred to them, are gone.
        unsafe {
            drop(Box::from_raw(self.scene));
            drop(Box::from_raw((self.machine as *const Machine<Sim<TAGGED>>).cast_mut()));
            drop(Box::from_raw((self.frames as *const [Frame<Sim<TAGGED>>]).cast_mut()));
            for cpu in self.cpus {
                drop(Box::from_raw((*cpu as *const Cpu<Sim<TAGGED>>).cast_mut()));
            }
            drop(Box::from_raw((self.cpus as *const [&'static Cpu<Sim<TAGGED>>]).cast_mut()));
            drop(Box::from_raw((self.statuses as *const [CpuStatus]).cast_mut()));
            drop(Box::from_raw((self.shared as *const Shared).cast_mut()));
            for header in self.rings.drain(..) {
                drop(Box::from_raw((header as *const RingHeader).cast_mut()));
            }
            for slots in self.slots.drain(..) {
                drop(Box::from_raw((slots as *const [[std::sync::atomic::AtomicU64; EVENT_BYTES / 8]]).cast_mut()));
            }
        }
    }
}
