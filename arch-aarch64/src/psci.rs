//! Starting CPUs through the firmware (PSCI).

use kernel::boot::StartError;
use smccc::{Hvc, Smc, psci};

use crate::firmware::Conduit;

/// Starts the CPU with affinity `hw_id` at physical address `entry`, with its MMU off and `context` in `x0`.
pub fn start(conduit: Conduit, hw_id: u64, entry: u64, context: u64) -> Result<(), StartError> {
    let outcome = match conduit {
        Conduit::Hvc => psci::cpu_on::<Hvc>(hw_id, entry, context),
        Conduit::Smc => psci::cpu_on::<Smc>(hw_id, entry, context),
    };
    outcome.map_err(|refusal| StartError::Firmware(i64::from(refusal)))
}

/// Turns the machine off; QEMU then exits with status 0, whatever happened.
pub fn turn_off(conduit: Conduit) {
    // It returns only where the firmware refuses, and then there is nothing left to do.
    let _ = match conduit {
        Conduit::Hvc => psci::system_off::<Hvc>(),
        Conduit::Smc => psci::system_off::<Smc>(),
    };
}
