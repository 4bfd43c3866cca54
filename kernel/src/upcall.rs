//! What the architecture's interrupt and exception code calls: always with interrupts masked, after it has acknowledged
//! the interrupt to its controller.

use crate::arch::Arch;

/// The call doorbell rang ([`crate::arch::Doorbell::Call`]).
pub fn call<A: Arch>() {
    let _ = A::this_cpu();
}

/// The NMI doorbell rang ([`crate::arch::Doorbell::Nmi`]). May interrupt any code of this CPU, [`call`] included.
pub fn nmi<A: Arch>() {
    let _ = A::this_cpu();
}

/// This CPU's timer fired.
pub fn timer<A: Arch>() {
    let _ = A::this_cpu();
}
