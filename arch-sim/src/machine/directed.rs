//! One execution of a scope: the unchanged core on a small machine of its own, from the set-up, which nothing disturbs,
//! to the end of the operation and of everything that disturbs it, as whoever directs it wants.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};

use corosensei::CoroutineResult;
use corosensei::stack::DefaultStack;
use kernel::addr::{CpuId, Level, Pfn, PhysAddr, VirtAddr};
use kernel::arch::Arch;
use kernel::atomic::observe;
use kernel::boot::{BootInfo, ExitCode};
use kernel::ledger::events::EventRing;
use kernel::machine::Machine;
use kernel::mm::frame::{Frame, FrameState, FrameTable};
use kernel::mm::frame_alloc::FrameAllocator;
use kernel::mm::self_map::entry_address;
use kernel::record::cell::Violation;
use kernel::record::event::EVENT_BYTES;
use kernel::record::ring::RingHeader;
use kernel::record::shared::{CpuStatus, Shared};
use kernel::smp::cpu::Cpu;
use kernel::smp::rcu;
use kernel::sync;
use kernel::tlb::switch;
use kernel::workload::{Scene, WorkloadId, scene};

use super::act::{Plot, act, walk_in_nmi};
use super::arch::Sim;
use super::direction::{self, Accesses, Direction};
use super::retried::Retried;
use super::run::{STACK, Strand, arena, strand_on};
use super::scope::{Role, Scope};
use super::staging::Stage;
use super::world::{RAM, TRANSLATIONS, World, enter, leave};
use crate::explore::hub::{Command, Hub, Kind};
use crate::explore::stops::Stops;
use crate::explore::{Execution, Footprint, Process, Step, StepNumber};

/// Frames of RAM: what eight GiB of a file need that are shared, each with one page of 2 MiB.
const FRAMES: usize = 6 << 10;
/// Events that a CPU keeps when the execution is told.
pub(super) const EVENTS: usize = 4096;

/// See [`set_up`].
type SetUp<const TAGGED: bool> = (Box<dyn Scene<Sim<TAGGED>>>, Box<Plot<TAGGED>>, Option<Pfn>);

/// One execution. There is one at a time on a host thread.
pub struct Directed<const TAGGED: bool> {
    pub(super) world: Box<World>,
    strands: Vec<Option<Strand>>,
    /// The strands refer to it.
    pub(super) plot: Box<Plot<TAGGED>>,
    /// The table that changes hands, where the scope has a staging.
    pub(super) table: Option<Pfn>,
    scene: *mut Box<dyn Scene<Sim<TAGGED>>>,
    pub(super) machine: &'static Machine<Sim<TAGGED>>,
    pub(super) cpus: &'static [&'static Cpu<Sim<TAGGED>>],
    pub(super) frames: &'static [Frame<Sim<TAGGED>>],
    statuses: &'static [CpuStatus],
    shared: &'static Shared,
    pub(super) rings: Vec<&'static RingHeader>,
    pub(super) slots: Vec<&'static [[std::sync::atomic::AtomicU64; EVENT_BYTES / 8]]>,
    pub(super) broken: bool,
    /// What was taken from the kernel's oracle.
    pub(super) first_violation: Cell<Option<Violation>>,
}

thread_local! {
    /// Stacks of earlier executions.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

impl<const TAGGED: bool> Directed<TAGGED> {
    /// Sets everything up and lets each CPU come to its first access. `ways`: which way translations go that could go
    /// several, as [`Directed::ambiguous`] counts them; `stops`: where the hypervisor stops CPUs; `told`: events are
    /// kept.
    pub fn new(scope: &Scope, ways: u64, stops: &Stops, told: bool) -> Directed<TAGGED> {
        let count = scope.cpus();
        let staging = scope.staging.as_ref();
        let mut hub = Hub::new(count, scope.buffers, |i| match stops {
            Stops::Anywhere(freezes) => freezes[i],
            Stops::Before(_) => 0,
        });
        for (cpu, nmis) in staging.iter().flat_map(|staging| staging.nmis.iter().enumerate()) {
            hub.expect_nmis(cpu, nmis.len() as u32);
        }
        let direction = Direction { hub: RefCell::new(hub), live: Cell::new(false) };
        let world = Box::new(World::new(arena(), count, 0, scope.hardware, !TAGGED, Some(direction)));
        world.ways.set(ways);
        enter(&world);

        let statuses: &'static [CpuStatus] = Vec::leak((0..count).map(|_| CpuStatus::default()).collect());
        let (mut rings, mut slots) = (Vec::new(), Vec::new());
        let frames: &'static [Frame<Sim<TAGGED>>] = Vec::leak((0..FRAMES).map(|_| Frame::new()).collect());
        let first = PhysAddr(RAM).pfn();
        let table = FrameTable::new(first, frames);
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
                &*Box::leak(Box::new(Cpu::new(id, i as u64, VirtAddr(0), table, &statuses[i], events)))
            })
            .collect();
        let cpus: &'static [&'static Cpu<Sim<TAGGED>>] = Vec::leak(cpus);
        if let (Stops::Before(looks), Some(direction)) = (stops, &world.direction) {
            let mut hub = direction.hub.borrow_mut();
            looks.iter().enumerate().for_each(|(i, look)| hub.stop_before(i, cpus[i].vcpu.flag(), *look));
        }
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
        let machine = Sim::<TAGGED>::install_machine(Machine::new(cpus, table, allocator, firmware));
        frames.iter().for_each(|frame| frame.set_state(FrameState::Free));
        (1..count).for_each(|_| machine.came_online());
        kernel::guard::remove(scope.guards);
        machine.policy.set(&sync::all::<Sim<TAGGED>>()[scope.strategy], scope.setting());
        for (core, cpu) in world.cores.iter().zip(cpus) {
            core.area.set(*cpu as *const Cpu<Sim<TAGGED>> as usize);
            rcu::leave_idle(*cpu);
        }

        let (staged, plot, table) = set_up::<TAGGED>(cpus[0], scope);
        kernel::guard::remove(scope.guards);
        let va = plot.va;
        load_first(&world, cpus, &plot);
        if scope.staging.as_ref().is_some_and(|staging| staging.nmis.iter().any(|walks| !walks.is_empty())) {
            world.also_in_nmi.set(Some((walk_in_nmi::<TAGGED>, (&raw const *plot).cast())));
        }
        world.lately.borrow_mut().clear();
        world.note(va);
        let recursive = machine.policy.strategy().self_map;
        if recursive {
            let entries = [Level::Pte, Level::Pmd].map(|level| entry_address(Sim::<TAGGED>::SELF_MAP, level, va));
            entries.into_iter().for_each(|at| world.note(at));
        }
        world.translates.set(recursive || scope.roles.contains(&Role::Write));
        world.findings.borrow_mut().clear();

        let scene = Box::into_raw(Box::new(staged));
        let known: *const Plot<TAGGED> = &*plot;
        let mut strands: Vec<Option<Strand>> = Vec::new();
        for index in 0..count {
            let stack = STACKS.with_borrow_mut(Vec::pop);
            let stack = stack.unwrap_or_else(|| DefaultStack::new(STACK).expect("the host has memory for a stack"));
            strands.push(Some(strand_on(stack, index, move || {
                // SAFETY: both are kept until this strand has been reset.
                let (scene, plot) = unsafe { (&mut *scene, &*known) };
                act(index, scene.as_mut(), plot)
            })));
        }
        let mut directed = Directed {
            world,
            strands,
            plot,
            table,
            scene,
            machine,
            cpus,
            frames,
            statuses,
            shared,
            rings,
            slots,
            broken: false,
            first_violation: Cell::new(None),
        };
        directed.direction().live.set(true);
        (0..count).for_each(|cpu| directed.resume(cpu));
        directed
    }

    pub(super) fn direction(&self) -> &Direction {
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

    /// Adds to what the next step of `process` touches what its translation does, if it makes one: it reads entries,
    /// and hardware may note in the last that it has written by it.
    fn add_translation(&self, process: Process, footprint: &mut Footprint) {
        let (cpu, kind) = Kind::of(process);
        let (world, core) = (&self.world, &self.world.cores[cpu]);
        let Some((va, write)) = core.probing.get().filter(|_| kind == Kind::Program) else { return };
        let mmu = core.mmu.borrow();
        let read = |pa| world.read_if_ram(pa);
        let words = mmu.could_read(va, read).into_iter().filter(|pa| world.is_ram(*pa));
        footprint.reads.extend(words.map(|pa| world.host(pa) as usize).chain([TRANSLATIONS]));
        if write && !world.hardware.preset {
            footprint.touches = mmu.leaf_slot(va, read).map(|pa| (world.host(pa) as usize, true));
        }
    }
}

/// What there is before the operation: how it is done, what all CPUs know, and the table that changes hands, where that
/// is known.
fn set_up<const TAGGED: bool>(cpu: &'static Cpu<Sim<TAGGED>>, scope: &Scope) -> SetUp<TAGGED> {
    const MEMORY: &str = "there is memory for the scene";
    if let Some(staging) = &scope.staging {
        let stage = Stage::new(cpu, scope.workload, staging).expect(MEMORY);
        let (mms, va, table) = (stage.mms.clone(), stage.va(), stage.table());
        return (Box::new(stage), Plot::new(scope, mms, va), Some(table));
    }
    let staged = match scope.deed {
        Some(deed) => deed.scene(cpu),
        None if scope.workload == WorkloadId::CollapseAnon => {
            scene(scope.workload, cpu).map(|collapse| Box::new(Retried(collapse)) as _)
        }
        None => scene(scope.workload, cpu),
    };
    let mut staged = staged.expect(MEMORY);
    staged.prepare(cpu, 0).expect("there is memory for the operation");
    let target = staged.target();
    (staged, Plot::new(scope, vec![target.mm], target.range.start), None)
}

/// What each CPU has loaded, and has had.
fn load_first<const TAGGED: bool>(world: &World, cpus: &[&'static Cpu<Sim<TAGGED>>], plot: &Plot<TAGGED>) {
    if let Some(staging) = &plot.scope.staging {
        for (i, mm) in staging.loaded.iter().enumerate().filter(|(_, mm)| **mm != 0) {
            world.current.set(i);
            switch::load(cpus[i], plot.mm(*mm));
        }
    }
    for (i, role) in plot.scope.roles.iter().enumerate() {
        world.current.set(i + 1);
        if !matches!(role, Role::LoadAndWalk | Role::Load | Role::Foreign) {
            switch::load(cpus[i + 1], plot.mm(1));
        }
        if *role == Role::Left {
            world.note(plot.va);
            world.fill();
            switch::unload(cpus[i + 1]);
        }
        if *role == Role::Lazy {
            switch::become_lazy(cpus[i + 1]);
        }
    }
}

impl<const TAGGED: bool> Execution for Directed<TAGGED> {
    fn processes(&self) -> usize {
        self.direction().hub.borrow().processes()
    }

    fn next(&self, process: Process) -> Option<Footprint> {
        if self.broken {
            return None;
        }
        let mut footprint = self.direction().hub.borrow().next(process)?;
        self.add_translation(process, &mut footprint);
        Some(footprint)
    }

    fn enabled(&self, process: Process) -> bool {
        !self.broken && self.direction().hub.borrow().enabled(process)
    }

    fn step(&mut self, process: Process, number: StepNumber) -> Step {
        self.world.steps.set(number.into());
        let mut translation = Footprint::default();
        self.add_translation(process, &mut translation);
        let (mut step, command) = self.direction().hub.borrow_mut().step(process, number);
        step.footprint.reads.append(&mut translation.reads);
        step.footprint.touches = step.footprint.touches.or(translation.touches);
        match command {
            Command::Run(cpu) => self.resume(cpu),
            Command::Deliver(cpu, kind) => {
                self.world.cores[cpu].handler.set(Some(kind));
                self.resume(cpu);
            }
            Command::Write(_, word, value) => direction::write(word, value),
        }
        self.direction().judge_conflicts::<TAGGED>();
        step
    }
}

impl<const TAGGED: bool> Drop for Directed<TAGGED> {
    fn drop(&mut self) {
        for strand in self.strands.iter_mut().filter_map(Option::take) {
            let mut strand = strand;
            if !strand.done() {
                // SAFETY: nothing on the coroutine's stack is needed again, and nothing refers to it: all of them stop
                // here.
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
