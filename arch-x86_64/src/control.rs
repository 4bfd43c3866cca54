//! Control registers: what each CPU switches on before it runs anything else.

use core::sync::atomic::{AtomicBool, Ordering};

use raw_cpuid::CpuId;
use crate::features::{self, Translation};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

/// Whether supervisor accesses to user pages are refused unless asked for.
static ACCESS_PREVENTION: AtomicBool = AtomicBool::new(false);

/// Whether user accesses have to be bracketed by STAC and CLAC.
#[inline(always)]
pub fn access_prevention() -> bool {
    // Relaxed: set on the boot CPU before other CPUs run and before there are user pages.
    ACCESS_PREVENTION.load(Ordering::Relaxed)
}

/// Whether the CPU has 1 GiB pages.
pub fn has_gigabyte_pages() -> bool {
    CpuId::new().get_extended_processor_and_feature_identifiers().is_some_and(|f| f.has_1gib_pages())
}

/// Asks the boot CPU what it can do with translations. Before [`init_cpu`], once.
pub fn find_features() {
    features::note(Translation::of(&CpuId::new()));
}

/// Switches on: write protection in the kernel too, NX, global pages, FXSAVE and SSE for user mode (not XSAVE), and,
/// where the CPU has them, the refusal to execute (SMEP) and to access (SMAP) user pages, and to tell user mode where
/// descriptor tables are (UMIP), and tags of translations (PCID).
pub fn init_cpu() {
    let extended = CpuId::new().get_extended_feature_info();
    let smep = extended.as_ref().is_some_and(|f| f.has_smep());
    let smap = extended.as_ref().is_some_and(|f| f.has_smap());
    let umip = extended.as_ref().is_some_and(|f| f.has_umip());
    let mut cr4 = Cr4Flags::PAGE_GLOBAL | Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, umip);
    // Allowed while the PCID in CR3 is 0, as it is here.
    cr4.set(Cr4Flags::PCID, features::tags());
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, smap);
    // SAFETY: the kernel's mappings stay as they are: it writes to nothing read-only, executes and accesses no user
    // page outside `user`, and the entry code enabled NX together with paging.
    unsafe {
        Cr0::update(|flags| flags.insert(Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR | Cr0Flags::MONITOR_COPROCESSOR));
        Cr4::update(|flags| flags.insert(cr4));
        Efer::update(|flags| flags.insert(EferFlags::NO_EXECUTE_ENABLE));
    }
    ACCESS_PREVENTION.store(smap, Ordering::Relaxed);
}
