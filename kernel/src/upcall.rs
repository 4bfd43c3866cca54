//! What the architecture's interrupt and exception code calls: always with interrupts masked, after it has acknowledged
//! the interrupt to its controller.

use core::sync::atomic::Ordering;

use crate::arch::Arch;
use crate::smp::call;
use crate::smp::cpu::Cpu;
use crate::smp::nmi;
use crate::smp::rcu;
use crate::task::sched;

/// The call doorbell rang ([`crate::arch::Doorbell::Call`]).
pub fn call<A: Arch>() {
    call::serve(A::this_cpu());
}

/// The NMI doorbell rang ([`crate::arch::Doorbell::Nmi`]). May interrupt any code of this CPU, [`call()`] included.
pub fn nmi<A: Arch>() {
    nmi::enter(A::this_cpu());
}

/// This CPU's timer fired: a seeded moment at which the machine may turn to another CPU.
pub fn timer<A: Arch>() {
    let cpu = A::this_cpu();
    // It interrupted code with interrupts enabled, so no walk.
    rcu::quiescent(cpu);
    call::acknowledge_generation(cpu);
    sched::tick(cpu);
    start_ticks(cpu);
}

/// Arms this CPU's timer for a moment between half and one and a half of the mean, if the run wants that.
pub fn start_ticks<A: Arch>(cpu: &Cpu<A>) {
    let mean = A::machine().policy.tick_ns.load(Ordering::Relaxed);
    if mean != 0 {
        sched::set_timer(cpu, mean / 2 + cpu.chance.next() % mean);
    }
}
