//! The module of programs as an object: whoever has a capability to it may load programs from it into processes that it
//! manages.

use alloc::sync::Arc;

use super::ObjectError;
use super::account::{Account, Paid, Price};
use super::payer::Payer;
use super::process::Process;
use crate::abi::{NAME_BYTES, name_bytes};
use crate::addr::VirtAddr;
use crate::arch::Arch;
use crate::smp::cpu::Cpu;
use crate::task::program::Program;
use crate::task::{load, module};

/// An archive of programs.
pub struct Module {
    archive: &'static [u8],
    _paid: Paid,
}

impl Module {
    /// The programs in `archive`; `payer` pays for the object.
    pub fn new(payer: &Arc<Account>, archive: &'static [u8]) -> Result<Arc<Module>, ObjectError> {
        let paid = payer.charge(Price::of::<Module>())?;
        Ok(Arc::new(Module { archive, _paid: paid }))
    }

    /// Maps the program with this name ([`crate::abi::name_words`]) into `process`; `payer` pays for its memory.
    /// Returns where it begins.
    pub fn load<A: Arch>(
        &self,
        cpu: &'static Cpu<A>,
        payer: Payer<'_, A>,
        process: &Arc<Process<A>>,
        name: [u64; NAME_BYTES / 8],
    ) -> Result<VirtAddr, ObjectError> {
        let (bytes, length) = name_bytes(name);
        let name = core::str::from_utf8(&bytes[..length]).map_err(|_| ObjectError::NoProgram)?;
        let file = module::file(self.archive, name).ok_or(ObjectError::NoProgram)?;
        let program = Program::parse::<A>(file).map_err(|_| ObjectError::NoProgram)?;
        load::load(cpu, payer, process, &program)?;
        Ok(program.entry)
    }
}
