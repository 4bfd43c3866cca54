//! From a program's file to a process: each segment anonymous memory, what has bytes in the file filled by the kernel,
//! the rest left to faults. Whoever asks pays.

use alloc::sync::Arc;

use super::program::{Program, Segment};
use crate::abi::Rights;
use crate::arch::Arch;
use crate::mm::entry::Perm;
use crate::object::ObjectError;
use crate::object::payer::Payer;
use crate::object::process::Process;
use crate::smp::cpu::Cpu;

/// Maps `program` into `process`; `payer` pays. If one of its segments cannot be had, those before it are unmapped
/// again.
pub fn load<A: Arch>(
    cpu: &'static Cpu<A>,
    payer: Payer<'_, A>,
    process: &Arc<Process<A>>,
    program: &Program<'_>,
) -> Result<(), ObjectError> {
    for (done, segment) in program.segments.iter().enumerate() {
        if let Err(error) = load_segment(cpu, payer, process, segment) {
            for before in &program.segments[..done] {
                // Whoever else manages the process may have unmapped it already.
                let _ = process.unmap(cpu, before.range.start, &mut || false);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn load_segment<A: Arch>(
    cpu: &'static Cpu<A>,
    payer: Payer<'_, A>,
    process: &Arc<Process<A>>,
    segment: &Segment<'_>,
) -> Result<(), ObjectError> {
    let mut rights = Rights::READ;
    rights.set(Rights::WRITE, segment.perm.contains(Perm::WRITE));
    rights.set(Rights::EXECUTE, segment.perm.contains(Perm::EXEC));
    process.map_filled(cpu, payer, segment, rights)
}
