//! The interrupt controller: GICv3, one distributor, one redistributor per CPU, the CPU interface in system registers.
//!
//! Set-up is by the `arm-gic` crate. Sending, acknowledging and ending an interrupt are single register accesses of our
//! own: they are on the path whose instructions are counted, and there the crate's checked interface would cost more
//! than the interrupt.
//!
//! Interrupt numbers, groups and priorities: [`crate::sgi`]. There is no second security state (`GICD_CTLR.DS` is 1,
//! checked): with one, Group 0 would belong to the firmware and the NMI could not be an FIQ.

use aarch64_cpu::asm::barrier;
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicCpuInterface, GicDistributor, GicRedistributor, GicRedistributorIterator, Group, SecureIntGroup};
use arm_gic::{IntId, UniqueMmioPointer};
use core::arch::asm;
use core::ptr::NonNull;

use kernel::arch::Doorbell;

use crate::firmware::Gic;
use crate::kernel_map::direct_map;
use crate::sgi;

/// Why the controller can not be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GicError {
    /// Group 0 belongs to someone else.
    #[error("the interrupt controller has two security states (secure=on); Group 0 is not the kernel's")]
    TwoSecurityStates,
    /// No redistributor has this CPU's affinity.
    #[error("no redistributor for the CPU with affinity {0:#x}")]
    NoRedistributor(u64),
    /// Refused by the driver.
    #[error("{0}")]
    Driver(arm_gic::gicv3::GicError),
}

impl From<arm_gic::gicv3::GicError> for GicError {
    fn from(error: arm_gic::gicv3::GicError) -> Self {
        GicError::Driver(error)
    }
}

/// `GICD_CTLR.DS`: there is one security state.
const DISABLE_SECURITY: u32 = 1 << 6;

impl Gic {
    /// Sets up the distributor. Called once, on the boot CPU.
    pub fn init_distributor(&self) -> Result<(), GicError> {
        let registers = direct_map(self.distributor);
        // SAFETY: the distributor's control register, which is readable and has no read side effect.
        let control = unsafe { (registers as *const u32).read_volatile() };
        if control & DISABLE_SECURITY == 0 {
            return Err(GicError::TwoSecurityStates);
        }
        let registers = NonNull::new(registers.cast::<Gicd>()).expect("the direct map does not begin at 0");
        // SAFETY: mapped as device memory; only this function uses the distributor, and it runs once.
        let mut distributor = GicDistributor::new(unsafe { UniqueMmioPointer::new(registers) });
        distributor.configure_default_settings();
        distributor.enable_group0(true);
        Ok(())
    }

    /// Sets up the calling CPU's redistributor and CPU interface. `index` is where its redistributor probably is.
    pub fn init_cpu(&self, hw_id: u64, index: usize) -> Result<(), GicError> {
        let mut own = self.redistributor(hw_id, index)?;
        // The only failure is that it is awake already.
        let _ = own.mark_core_awake();
        own.configure_default_settings();
        let call = IntId::sgi(sgi::CALL);
        let nmi = IntId::sgi(sgi::NMI);
        let timer = IntId::ppi(sgi::TIMER - 16);
        own.set_group(nmi, Group::Secure(SecureIntGroup::Group0))?;
        own.set_interrupt_priority(nmi, sgi::NMI_PRIORITY)?;
        for ordinary in [call, timer] {
            own.set_interrupt_priority(ordinary, sgi::ORDINARY_PRIORITY)?;
        }
        for used in [call, nmi, timer] {
            own.enable_interrupt(used, true)?;
        }
        own.wait_for_pending_write();

        GicCpuInterface::enable_system_register_el1();
        barrier::isb(barrier::SY);
        GicCpuInterface::set_priority_mask(0xff);
        GicCpuInterface::enable_group0(true);
        GicCpuInterface::enable_group1(true);
        barrier::isb(barrier::SY);
        Ok(())
    }

    /// The redistributor of the CPU with affinity `hw_id`: the one at `index` if that is it, else by looking at all.
    fn redistributor(&self, hw_id: u64, index: usize) -> Result<GicRedistributor<'static>, GicError> {
        let mut left = index;
        for region in self.redistributors {
            let frames = (region.bytes as usize) / size_of::<GicrSgi>();
            if left < frames {
                let base = NonNull::new(direct_map(region.start).cast::<GicrSgi>()).expect("as above");
                // SAFETY: frame `left` is within the region, mapped as device memory. Other CPUs read its type register
                // while they look for theirs; only the CPU that it belongs to writes to it.
                let guess = GicRedistributor::new(unsafe { UniqueMmioPointer::new(base.add(left)) });
                if guess.typer().core_mpidr() == hw_id {
                    return Ok(guess);
                }
                break;
            }
            left -= frames;
        }
        for region in self.redistributors {
            let base = NonNull::new(direct_map(region.start).cast::<GicrSgi>()).expect("as above");
            // SAFETY: a mapped region of redistributors; the last has its mark, and `take` bounds the walk in any case.
            let all = unsafe { GicRedistributorIterator::new(base) }?;
            let frames = (region.bytes as usize) / size_of::<GicrSgi>();
            if let Some(own) = all.take(frames).find(|frame| frame.typer().core_mpidr() == hw_id) {
                return Ok(own);
            }
        }
        Err(GicError::NoRedistributor(hw_id))
    }
}

/// Rings `bell` on the CPU with affinity `hw_id`. Stores before this are visible to its handler.
#[inline(always)]
pub fn ring(hw_id: u64, bell: Doorbell) {
    // A store barrier that waits: the interrupt is sent by a register write, which no memory barrier orders.
    barrier::dsb(barrier::ISHST);
    let word = sgi::word(hw_id, bell);
    // SAFETY: raises an interrupt that its target has a handler for.
    unsafe {
        match bell {
            Doorbell::Call => asm!("msr S3_0_C12_C11_5, {}", in(reg) word, options(nostack, preserves_flags)),
            Doorbell::Nmi => asm!("msr S3_0_C12_C11_7, {}", in(reg) word, options(nostack, preserves_flags)),
        }
    }
    barrier::isb(barrier::SY);
}

/// Acknowledges the pending Group 1 interrupt (`ICC_IAR1_EL1`) and returns its number; 1020 and above are none.
#[inline(always)]
pub fn acknowledge() -> u32 {
    let number: u64;
    // SAFETY: called by the IRQ handler, which ends what it acknowledged.
    unsafe { asm!("mrs {}, S3_0_C12_C12_0", "dsb sy", out(reg) number, options(nostack, preserves_flags)) };
    number as u32
}

/// Ends a Group 1 interrupt (`ICC_EOIR1_EL1`): another may be signalled.
#[inline(always)]
pub fn end(number: u32) {
    // SAFETY: `number` was acknowledged by this handler.
    unsafe { asm!("msr S3_0_C12_C12_1, {}", "isb", in(reg) u64::from(number), options(nostack, preserves_flags)) };
}

/// Acknowledges the pending Group 0 interrupt (`ICC_IAR0_EL1`).
#[inline(always)]
pub fn acknowledge_nmi() -> u32 {
    let number: u64;
    // SAFETY: called by the FIQ handler, which ends what it acknowledged.
    unsafe { asm!("mrs {}, S3_0_C12_C8_0", "dsb sy", out(reg) number, options(nostack, preserves_flags)) };
    number as u32
}

/// Ends a Group 0 interrupt (`ICC_EOIR0_EL1`).
#[inline(always)]
pub fn end_nmi(number: u32) {
    // SAFETY: `number` was acknowledged by this handler.
    unsafe { asm!("msr S3_0_C12_C8_1, {}", "isb", in(reg) u64::from(number), options(nostack, preserves_flags)) };
}
