//! The boot CPU's way to the core: traps, what the firmware left, the kernel's page tables, the CPUs.

use core::slice;

use arrayvec::ArrayVec;
use firmware::PhysicalBytes;
use firmware::madt::{self, LocalApics, MadtError};
use firmware::pvh::{self, MAX_COMMAND_LINE, MAX_RANGES, Range, StartInfo, StartInfoError};
use firmware::regions::{self, Regions, TooManyPieces};
use kernel::addr::{MAX_CPUS, PhysAddr};
use kernel::arch::Arch;
use kernel::smp::cpu::Cpu;
use kernel::tlb::switch::KERNEL_ASID;
use spin::Once;
use x86_64::instructions::port::Port;

use arch_x86_64::apic::ApicError;
use arch_x86_64::kernel_map::{DIRECT_MAP, ImageLayout, MapError, ROOT, image_physical};
use arch_x86_64::{X86, apic, control, cpu_area, descriptors, kernel_map, traps, user_mode};

use super::{__data_start, __image_end, __image_start, __rodata_start, __text_start, init_serial, trampoline};
use crate::start::refuse;
use crate::{Found, start};

/// What the entry code's tables map at the direct map's place.
const EARLY_MAP_BYTES: u64 = 4 << 30;
/// Below this everything belongs to the firmware, and to the trampoline.
const FIRMWARE_BYTES: u64 = 1 << 20;
/// The masks of the two legacy interrupt controllers.
const LEGACY_MASKS: [u16; 2] = [0x21, 0xa1];

static MEMORY: Once<Regions> = Once::new();
static CPUS: Once<ArrayVec<u64, MAX_CPUS>> = Once::new();
static COMMAND_LINE: Once<ArrayVec<u8, MAX_COMMAND_LINE>> = Once::new();

/// Why this machine cannot run the kernel.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error(transparent)]
    StartInfo(#[from] StartInfoError),
    #[error(transparent)]
    Cpus(#[from] MadtError),
    #[error(transparent)]
    Memory(#[from] TooManyPieces),
    #[error(transparent)]
    Map(#[from] MapError),
    #[error(transparent)]
    Apic(#[from] ApicError),
    #[error("the module at {0:#x} is not in RAM")]
    Module(u64),
    #[error("the command line is not UTF-8")]
    CommandLine,
    #[error("the MADT does not name the CPU that booted, with APIC number {0}")]
    BootCpuUnknown(u64),
}

/// The first Rust code: on the boot stack, with the entry code's tables. `info` is the physical address of the boot
/// information.
pub(super) extern "C" fn boot(info: u64) -> ! {
    cpu_area::init_without_area();
    init_serial();
    // SAFETY: the boot CPU does this once.
    unsafe { descriptors::load_boot() };
    traps::load();
    control::find_features();
    control::init_cpu();
    crate::console::init_default();
    match find(info) {
        Ok(found) => start(found),
        Err(error) => refuse(format_args!("cannot boot: {error}")),
    }
}

/// Finds memory and CPUs, and moves to the kernel's own page tables.
fn find(info: u64) -> Result<Found, BootError> {
    let memory = EarlyMap;
    let info = pvh::read(&memory, info)?;
    let command_line = COMMAND_LINE.call_once(|| copy_command_line(&memory, &info));
    let command_line = str::from_utf8(command_line).map_err(|_| BootError::CommandLine)?;
    let cpus = madt::local_apics(&memory, info.rsdp)?;
    let usable = usable(&info)?;
    apic::check()?;

    let ram = info.ram.iter().map(|r| (PhysAddr(r.start), PhysAddr(r.end)));
    kernel_map::build(ram, &image(), PhysAddr(cpus.registers), control::has_gigabyte_pages())?;
    // SAFETY: `build` mapped the image, in which this code, its stack and its data are, at the same addresses; what the
    // firmware left was read. The static root stays one.
    unsafe { kernel_map::load(ROOT.physical(), KERNEL_ASID) };
    trampoline::install();
    mask_legacy_interrupts();

    let usable = MEMORY.call_once(|| usable);
    let module = info.module.map_or(Ok(&[][..]), |range| module(&info, range))?;
    let cpus = boot_cpu_first(cpus)?;
    Ok(Found {
        memory: usable,
        cpus: CPUS.call_once(|| cpus),
        command_line,
        module,
        start_cpu: trampoline::start_cpu,
        init_boot_cpu,
    })
}

/// The bytes of the module, which stay where the firmware put them: they were left out of what is usable.
fn module(info: &StartInfo, range: Range) -> Result<&'static [u8], BootError> {
    if !info.ram.iter().any(|ram| ram.start <= range.start && range.end <= ram.end) {
        return Err(BootError::Module(range.start));
    }
    // SAFETY: the direct map covers all RAM and nobody writes there.
    Ok(unsafe { slice::from_raw_parts(kernel_map::direct(PhysAddr(range.start)), (range.end - range.start) as usize) })
}

/// [`kernel::boot::BootInfo::init_boot_cpu`]: the traps are there already; the area and the APIC are not.
fn init_boot_cpu(cpu: &'static Cpu<X86>) {
    // SAFETY: the core calls this on the boot CPU, with its area.
    unsafe { X86::set_this_cpu(cpu) };
    user_mode::init_cpu();
    apic::init_cpu();
}

/// Physical memory below 4 GiB, through the entry code's tables.
struct EarlyMap;

impl PhysicalBytes for EarlyMap {
    fn get(&self, at: u64, bytes: usize) -> Option<&[u8]> {
        let end = at.checked_add(bytes as u64)?;
        if end > EARLY_MAP_BYTES {
            return None;
        }
        // SAFETY: all of it is mapped, and nothing writes to what the firmware left as long as these tables are loaded.
        // A wrong address may name a device or nothing, where reading yields a meaningless value and has no effect that
        // matters here.
        Some(unsafe { slice::from_raw_parts((DIRECT_MAP + at) as *const u8, bytes) })
    }
}

fn copy_command_line(memory: &EarlyMap, info: &StartInfo) -> ArrayVec<u8, MAX_COMMAND_LINE> {
    let text = info.command_line.and_then(|(at, bytes)| memory.get(at, bytes)).unwrap_or_default();
    text.iter().copied().collect()
}

/// RAM without the firmware's part, the image, and what the firmware left.
fn usable(info: &StartInfo) -> Result<Regions, BootError> {
    let image = Range {
        start: image_physical(&raw const __image_start as u64).0,
        end: image_physical(&raw const __image_end as u64).0,
    };
    let mut holes: ArrayVec<Range, { MAX_RANGES + 2 }> = info.occupied.iter().copied().collect();
    holes.push(Range { start: 0, end: FIRMWARE_BYTES });
    holes.push(image);
    Ok(regions::usable(&info.ram, &holes)?)
}

fn image() -> ImageLayout {
    ImageLayout {
        text: &raw const __text_start as u64,
        constants: &raw const __rodata_start as u64,
        data: &raw const __data_start as u64,
        end: &raw const __image_end as u64,
    }
}

/// Masks all interrupts of the legacy controllers, which would come in on the vectors of exceptions.
fn mask_legacy_interrupts() {
    for port in LEGACY_MASKS {
        // SAFETY: the port is the controller's mask by convention of the PC; where there is none, the write has no
        // effect.
        unsafe { Port::new(port).write(0xff_u8) };
    }
}

/// The CPUs' numbers, that of the calling CPU first.
fn boot_cpu_first(found: LocalApics) -> Result<ArrayVec<u64, MAX_CPUS>, BootError> {
    let mut ids = found.ids;
    let own = apic::id();
    let at = ids.iter().position(|&id| id == own).ok_or(BootError::BootCpuUnknown(own))?;
    ids[..=at].rotate_right(1);
    Ok(ids)
}
