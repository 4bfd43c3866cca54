//! Bring-up: from what the firmware said to a machine whose every CPU is online.
//!
//! The platform finds memory and CPUs, sets up the boot CPU's traps and calls [`run`]. A started CPU sets up its own
//! traps and calls [`secondary`]. A CPU counts as online only when a call to it was acknowledged, that is, when its
//! interrupts work.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{CpuId, MAX_CPUS, PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::arch::Arch;
use crate::guard;
use crate::ledger::Cause;
use crate::ledger::events::EventRing;
use crate::ledger::profile::CpuProfile;
use crate::machine::Machine;
use crate::mm::frame::{Frame, FrameState, FrameTable};
use crate::mm::frame_alloc::FrameAllocator;
use crate::oracle;
use crate::record::cell::CellRow;
use crate::record::event::EVENT_BYTES;
use crate::record::profile::Profile;
use crate::record::ring::RingHeader;
use crate::record::shared::{CpuStatus, Doing, MAGIC, RunState, Shared, VERSION};
use crate::smp::call::call_many;
use crate::smp::cpu::Cpu;
use crate::smp::mask::CpuMask;
use crate::smp::rcu;
use crate::smp::wait::Wait;
use crate::suite::{Instead, Suite};
use crate::workload::{bench, cell, programs, store_buffer};

/// A range of usable RAM: nothing of the image, the firmware or the devicetree lies in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryRegion {
    /// First byte.
    pub start: PhysAddr,
    /// First byte after it.
    pub end: PhysAddr,
}

/// How the machine is left. The runner decodes it from QEMU's exit status; 0 is never used, since QEMU exits with 0 for
/// other reasons too (a triple fault under `-no-reboot`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ExitCode {
    /// All cells ran; the verdicts are in the rows.
    Finished = 0x10,
    /// What was asked for was refused.
    Refused = 0x11,
    /// The kernel panicked.
    Panicked = 0x12,
}

/// Why a CPU could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The firmware refused, with its own code.
    #[error("the firmware refused to start it (code {0})")]
    Firmware(i64),
    /// The interrupt that starts it cannot name it.
    #[error("its hardware number {0:#x} cannot be addressed")]
    Unaddressable(u64),
}

/// What the platform tells the core.
pub struct BootInfo<A: Arch> {
    /// Usable RAM, ascending, not overlapping, page-aligned.
    pub memory: &'static [MemoryRegion],
    /// Hardware numbers of the CPUs (APIC id, MPIDR affinity); the first is the boot CPU.
    pub cpus: &'static [u64],
    /// The kernel command line: [`crate::suite`].
    pub command_line: &'static str,
    /// What the runner gave along: an archive of programs ([`crate::task::module`]); empty where there is none. In no
    /// region of `memory`.
    pub module: &'static [u8],
    /// Starts `cpu`, whose `stack_top` is mapped; it shall set up its traps, its interrupt controller and its timer,
    /// and call [`secondary`].
    pub start_cpu: fn(cpu: &'static Cpu<A>) -> Result<(), StartError>,
    /// Sets up what the boot CPU lacks until it has its area (descriptor tables with interrupt stacks, the interrupt
    /// controller), from `cpu.arch`. Called once, on the boot CPU, with interrupts masked.
    pub init_boot_cpu: fn(cpu: &'static Cpu<A>),
    /// Gives the heap more room.
    pub grow_heap: fn(start: VirtAddr, bytes: usize),
    /// Leaves the machine.
    pub exit: fn(ExitCode) -> !,
    /// The root of what the runner reads; the image's symbol `SHARED`.
    pub shared: &'static Shared,
}

/// Pages of a kernel stack. Below it one page is never mapped.
const STACK_PAGES: u64 = 16;
/// Bytes of heap: address spaces, regions, files, the areas of the CPUs.
const HEAP_BYTES: u64 = 8 << 20;
/// Bytes of heap per CPU on top.
const HEAP_PER_CPU: u64 = 32 << 10;
/// Events that one CPU's ring keeps, in a build that writes any.
const EVENTS: usize = 8192;

/// Takes memory from the end of the largest region, before there is an allocator.
struct Carver {
    regions: Vec<MemoryRegion>,
}

impl Carver {
    /// `bytes` of zeroed memory, in whole pages.
    fn take<A: Arch>(&mut self, bytes: u64) -> Result<PhysAddr, String> {
        let bytes = bytes.next_multiple_of(PAGE_SIZE);
        let largest = self.regions.iter_mut().max_by_key(|r| r.end.0 - r.start.0);
        let Some(region) = largest.filter(|r| r.end.0 - r.start.0 >= bytes) else {
            let left = self.regions.iter().map(|r| r.end.0 - r.start.0).max().unwrap_or(0);
            return Err(format!(
                "the machine has too little memory: {bytes} more bytes are needed in one piece and {left} are free; give it more (-m)"
            ));
        };
        region.end.0 -= bytes;
        let at = region.end;
        // SAFETY: the range was usable RAM, is now nobody else's, and is covered by the direct map.
        unsafe { core::ptr::write_bytes(A::direct_map(at).cast::<u64>(), 0, bytes as usize / 8) };
        Ok(at)
    }

    /// An array of `count` of what all-zero bytes are a valid value of.
    ///
    /// # Safety
    /// All-zero is a valid `T`, and `T` needs no more than page alignment.
    unsafe fn array<A: Arch, T>(&mut self, count: usize) -> Result<(PhysAddr, &'static [T]), String> {
        let at = self.take::<A>((count * size_of::<T>()) as u64)?;
        // SAFETY: zeroed, owned for ever, aligned to a page; the caller vouches for the type.
        Ok((at, unsafe { core::slice::from_raw_parts(A::direct_map(at).cast::<T>(), count) }))
    }
}

/// Runs the kernel on the boot CPU: memory, the other CPUs, the cells of the command line, the end.
///
/// Called with interrupts masked, on a boot stack that is left behind, with traps set up and `log` working.
pub fn run<A: Arch>(info: BootInfo<A>) -> ! {
    let (shared, exit) = (info.shared, info.exit);
    match prepare(info) {
        Ok(cpu) => {
            // SAFETY: the stack was mapped for this CPU alone; nothing of the present one is needed again.
            unsafe { A::switch_stack(cpu.stack_top, operate::<A>) }
        }
        Err(message) => refuse(shared, exit, &message),
    }
}

fn refuse(shared: &Shared, exit: fn(ExitCode) -> !, message: &str) -> ! {
    log::error!("{message}");
    shared.set_message(message);
    shared.version.store(VERSION, Ordering::Relaxed);
    shared.set_state(RunState::Refused);
    // Release: pairs with the runner's read of the magic before anything else (tests/litmus/hand-over).
    shared.magic.store(MAGIC, Ordering::Release);
    exit(ExitCode::Refused)
}

/// Memory and the areas of all CPUs; the machine is installed and the boot CPU has its area.
fn prepare<A: Arch>(info: BootInfo<A>) -> Result<&'static Cpu<A>, String> {
    if info.cpus.len() > MAX_CPUS {
        return Err(format!(
            "the machine has {} CPUs and there is room for {MAX_CPUS}; give it fewer (-smp)",
            info.cpus.len()
        ));
    }
    let count = info.cpus.len();
    let (Some(first), Some(last)) = (info.memory.first(), info.memory.last()) else {
        return Err(String::from("the firmware names no usable memory"));
    };
    let base = first.start.pfn();
    let frames_count = (last.end.pfn().0 - base.0) as usize;
    let mut carver = Carver { regions: info.memory.to_vec() };

    let heap = HEAP_BYTES + HEAP_PER_CPU * count as u64;
    let at = carver.take::<A>(heap)?;
    (info.grow_heap)(VirtAddr(A::direct_map(at) as u64), heap as usize);

    let at = carver.take::<A>((frames_count * size_of::<Frame<A>>()) as u64)?;
    let frames = A::direct_map(at).cast::<Frame<A>>();
    for i in 0..frames_count {
        // SAFETY: the range was carved for exactly this array and is page-aligned.
        unsafe { frames.add(i).write(Frame::new()) };
    }
    // SAFETY: all of it has just been written, and belongs to the frame table for ever.
    let frames: &'static [Frame<A>] = unsafe { core::slice::from_raw_parts(frames, frames_count) };
    let table = FrameTable::new(base, frames);

    // SAFETY: these consist of atomics, whose all-zero value is valid, and are aligned to 64 bytes.
    let (status_at, status) = unsafe { carver.array::<A, CpuStatus>(count)? };
    // SAFETY: as above.
    let (rings_at, rings) = unsafe { carver.array::<A, RingHeader>(count)? };
    let mut cpus: Vec<&'static Cpu<A>> = Vec::with_capacity(count);
    for (i, hw_id) in info.cpus.iter().enumerate() {
        let id = CpuId(i as u16);
        let events = if cfg!(feature = "checking") {
            // SAFETY: as above.
            let (at, slots) = unsafe { carver.array::<A, [AtomicU64; EVENT_BYTES / 8]>(EVENTS)? };
            rings[i].at.store(at.0, Ordering::Relaxed);
            rings[i].capacity.store((EVENTS * EVENT_BYTES) as u64, Ordering::Relaxed);
            // SAFETY: as above.
            let (_, profile) = unsafe { carver.array::<A, CpuProfile>(1)? };
            EventRing::new::<A>(id, &rings[i], slots).profiled(&profile[0])
        } else {
            EventRing::off(id)
        };
        let slot = A::KERNEL_STACKS.add(i as u64 * (STACK_PAGES + 1).next_power_of_two() * PAGE_SIZE);
        for page in 1..=STACK_PAGES {
            let frame = carver.take::<A>(PAGE_SIZE)?;
            let mut missing = None;
            let mut table = || match carver.take::<A>(PAGE_SIZE) {
                Ok(at) => at,
                Err(error) => {
                    missing = Some(error);
                    PhysAddr(0)
                }
            };
            // SAFETY: nothing refers to the stack window; only this CPU runs; the frame is new.
            unsafe { A::map_kernel_page(slot.add(page * PAGE_SIZE), frame, &mut table) };
            if let Some(error) = missing {
                return Err(error);
            }
        }
        let stack_top = slot.add((STACK_PAGES + 1) * PAGE_SIZE);
        status[i].waits_for.store(u32::MAX, Ordering::Relaxed);
        cpus.push(Box::leak(Box::new(Cpu::new(id, *hw_id, stack_top, table, &status[i], events))));
    }

    let allocator = FrameAllocator::new();
    for region in &carver.regions {
        for pfn in region.start.pfn().0..region.end.pfn().0 {
            frames[(pfn - base.0) as usize].set_state(FrameState::Free);
        }
        allocator.add(region.start.pfn(), Pfn(region.end.pfn().0));
    }

    let shared = info.shared;
    shared.version.store(VERSION, Ordering::Relaxed);
    shared.cpus.store(count as u32, Ordering::Relaxed);
    shared.status_at.store(status_at.0, Ordering::Relaxed);
    shared.rings_at.store(rings_at.0, Ordering::Relaxed);
    // Release: pairs with the runner's read of the magic before anything else (tests/litmus/hand-over).
    shared.magic.store(MAGIC, Ordering::Release);

    let boot = cpus[0];
    A::install_machine(Machine::new(Vec::leak(cpus), table, allocator, info));
    // SAFETY: this is the boot CPU, and nobody else was given its area.
    unsafe { A::set_this_cpu(boot) };
    (A::machine().firmware.init_boot_cpu)(boot);
    Ok(boot)
}

/// The boot CPU, on its own stack: brings the others online and runs the suite.
extern "C" fn operate<A: Arch>() -> ! {
    let cpu = A::this_cpu();
    let machine = A::machine();
    rcu::leave_idle(cpu);
    A::irq_restore(true);
    for other in &machine.cpus[1..] {
        bring_online(cpu, other);
    }
    log::info!("{} CPUs online, {} free frames", machine.cpus.len(), machine.free_frames());
    let which = |there| if there { "yes" } else { "no" };
    log::info!(
        "tags {}, broadcast invalidation {}, invalidation of runs {}",
        A::asids(),
        which(A::has_broadcast_invalidation()),
        which(A::has_range_invalidation()),
    );
    #[cfg(feature = "defmt")]
    defmt::info!("online {=usize} free frames {=usize}", machine.cpus.len(), machine.free_frames());
    let shared = machine.shared();
    let exit = machine.firmware.exit;
    let suite = match Suite::parse::<A>(machine.firmware.command_line, machine.cpus.len()) {
        Ok(suite) => suite,
        Err(error) => refuse(shared, exit, &format!("{error}")),
    };
    if let Err(error) = programs::check::<A>(&suite) {
        refuse(shared, exit, &format!("{error}"));
    }
    guard::remove(suite.guards);
    if !suite.oracle {
        oracle::turn_off();
    }
    let (rows, profiles) = match room_for_results::<A>(&suite) {
        Ok(room) => room,
        Err(message) => refuse(shared, exit, &message),
    };
    shared.set_state(RunState::Running);
    cpu.status.doing.store(Doing::Operation as u32, Ordering::Relaxed);
    let done = |index, row: CellRow| {
        // SAFETY: `rows` has room for every cell; the runner reads row `index` only after the count below says that it
        // is complete.
        unsafe { rows.add(index).write(row) };
        // Release: pairs with the runner's acquire of the count (tests/litmus/hand-over).
        shared.cells_done.store(index as u32 + 1, Ordering::Release);
        log_row(index, &row);
    };
    let result = match suite.bench {
        Some(Instead::Walks) => bench::run_all(cpu, &suite, done),
        Some(Instead::Barriers) => store_buffer::run_all(cpu, &suite, done),
        None => cell::run_all(cpu, &suite, profiles, done),
    };
    if let Err(error) = result {
        panic!("{error}");
    }
    shared.set_state(RunState::Finished);
    exit(ExitCode::Finished)
}

/// The structured log of one row.
fn log_row(index: usize, row: &CellRow) {
    #[cfg(feature = "defmt")]
    defmt::debug!(
        "cell {=usize} ops {=u64} flush {=u64} sync {=u64} elided {=u64} violations {=u64}",
        index,
        row.ops,
        row.flush_ipis,
        row.sync_ipis,
        row.syncs_elided,
        row.violations_ghost + row.violations_value
    );
    log::debug!("cell {index} done, verdict {}", row.verdict);
}

/// Room for the rows of `suite` and, if it wants them, profiles, where the runner finds them.
fn room_for_results<A: Arch>(suite: &Suite) -> Result<(*mut CellRow, &'static [Profile]), String> {
    let (shared, count) = (A::machine().shared(), suite.rows());
    let (rows_at, rows) = room::<A, CellRow>(count)?;
    shared.cells_at.store(rows_at.0, Ordering::Relaxed);
    shared.cells_planned.store(count as u32, Ordering::Relaxed);
    if !suite.profile || cfg!(not(feature = "checking")) {
        return Ok((rows, &[]));
    }
    let (profiles_at, profiles) = room::<A, Profile>(count)?;
    shared.profiles_at.store(profiles_at.0, Ordering::Relaxed);
    // SAFETY: there is room for so many, which nobody else uses; all of it is zero, which is valid for these atomics.
    Ok((rows, unsafe { core::slice::from_raw_parts(profiles, count) }))
}

/// Zeroed room for `count` of `T`, for ever.
fn room<A: Arch, T>(count: usize) -> Result<(PhysAddr, *mut T), String> {
    let machine = A::machine();
    let frames = (count * size_of::<T>()).div_ceil(PAGE_SIZE as usize).max(1).next_power_of_two();
    let first = machine.allocator.take(frames).map_err(|error| format!("no room for {count} results: {error}"))?;
    for i in 0..frames as u32 {
        machine.frames.get(Pfn(first.0 + i)).set_state(FrameState::Kernel);
    }
    crate::mm::frame_alloc::zero::<A>(first, frames);
    Ok((first.addr(), A::direct_map(first.addr()).cast()))
}

/// Starts `other` and waits until it has answered a call: only then do its interrupts work.
fn bring_online<A: Arch>(cpu: &'static Cpu<A>, other: &'static Cpu<A>) {
    if let Err(error) = (A::machine().firmware.start_cpu)(other) {
        panic!("{} (hardware number {:#x}) could not be started: {error}", other.id, other.hw_id);
    }
    let mut wait = Wait::new(cpu, Doing::WaitOnline);
    // Acquire: pairs with the release in `secondary` (tests/litmus/hand-over).
    while !other.online.load(Ordering::Acquire) {
        wait.again(|| Some(other.id));
    }
    wait.done();
    call_many(cpu, &CpuMask::only(other.id), Cause::Online, |_, _| {}, 0);
    A::machine().came_online();
}

/// Runs the kernel on a CPU that the boot CPU started. Called with interrupts masked, on `cpu`'s stack, with
/// [`Arch::set_this_cpu`] done, traps, interrupt controller and timer set up.
pub fn secondary<A: Arch>(cpu: &'static Cpu<A>) -> ! {
    cpu.status.doing.store(Doing::Idle as u32, Ordering::Relaxed);
    // Release: pairs with the acquire in `bring_online` (tests/litmus/hand-over).
    cpu.online.store(true, Ordering::Release);
    loop {
        let Some((job, argument)) = cpu.job() else {
            // A job that is given from here on comes with an interrupt, which ends the wait.
            A::wait_for_interrupt();
            continue;
        };
        rcu::leave_idle(cpu);
        cpu.status.doing.store(Doing::Walk as u32, Ordering::Relaxed);
        A::irq_restore(true);
        crate::upcall::start_ticks(cpu);
        job(cpu, argument);
        A::irq_save();
        cpu.status.doing.store(Doing::Idle as u32, Ordering::Relaxed);
        rcu::enter_idle(cpu);
        cpu.finish_job();
    }
}
