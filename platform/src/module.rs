//! Where the initial module lies, where the firmware does not say: QEMU gives no `-initrd` to a kernel that is an ELF
//! file on `virt`, so the runner has it loaded to an address of its choice and names that on the command line, as
//! `module=START,BYTES` in hexadecimal.

use kernel::addr::PhysAddr;
use kernel::boot::MemoryRegion;

/// The word makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the command line's module= wants a start and a number of bytes, both hexadecimal, with a comma between")]
pub struct BadModule;

/// What the word `module=` of the command line says; nothing where there is none.
pub fn named(command_line: &str) -> Result<Option<MemoryRegion>, BadModule> {
    let Some(value) = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("module=")) else {
        return Ok(None);
    };
    let (start, bytes) = value.split_once(',').ok_or(BadModule)?;
    let number = |text| u64::from_str_radix(text, 16).map_err(|_| BadModule);
    let (start, bytes) = (number(start)?, number(bytes)?);
    let end = start.checked_add(bytes).filter(|end| *end > start).ok_or(BadModule)?;
    Ok(Some(MemoryRegion { start: PhysAddr(start), end: PhysAddr(end) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_or_none_or_nonsense() {
        assert_eq!(named("ops=64 log=debug"), Ok(None));
        let found = named("ops=64 module=5fe00000,1234 log=debug");
        assert_eq!(found, Ok(Some(MemoryRegion { start: PhysAddr(0x5fe0_0000), end: PhysAddr(0x5fe0_1234) })));
        for word in ["module=", "module=1", "module=1,", "module=1,0", "module=g,1", "module=ffffffffffffffff,2"] {
            assert_eq!(named(word), Err(BadModule), "{word}");
        }
    }
}
