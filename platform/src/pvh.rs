//! The PVH boot protocol: what the start-info structure says.
//!
//! The firmware leaves the structure's physical address in EBX. Only version 1 has a memory map in it, and the kernel
//! needs one.

use arrayvec::ArrayVec;

use crate::PhysicalBytes;

/// First word of the structure.
const MAGIC: u32 = 0x336e_c578;
/// Bytes of the structure, from version 1 on.
const BYTES: usize = 56;
/// Bytes of an entry of the memory map, and of a module's.
const ENTRY_BYTES: usize = 24;
const MODULE_BYTES: usize = 32;
/// In an entry of the memory map: RAM.
const TYPE_RAM: u32 = 1;

/// The most RAM ranges that are kept.
pub const MAX_RANGES: usize = 32;
/// The most bytes of a command line.
pub const MAX_COMMAND_LINE: usize = 4096;

/// A range of physical addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
}

/// What the structure says.
#[derive(PartialEq, Eq, Debug)]
pub struct StartInfo {
    /// RAM, as given: in any order.
    pub ram: ArrayVec<Range, MAX_RANGES>,
    /// Where the firmware left things that must be kept until they are read: the structure itself, the memory map, the
    /// command line, the list of modules and the modules.
    pub occupied: ArrayVec<Range, MAX_RANGES>,
    /// Physical address of the command line, and its bytes without the final 0; `None` where there is none.
    pub command_line: Option<(u64, usize)>,
    /// The first module (QEMU's `-initrd`); `None` where there is none.
    pub module: Option<Range>,
    /// Physical address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Why the structure cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartInfoError {
    /// It, or something that it points at, is not in readable memory.
    #[error("the boot information points at {0:#x}, which cannot be read")]
    Unreadable(u64),
    /// It is something else.
    #[error("the boot information has magic number {0:#x} instead of {MAGIC:#x}: not booted by PVH")]
    Magic(u32),
    /// It has no memory map.
    #[error("the boot information has version {0}; only from version 1 on does it have a memory map")]
    Version(u32),
    /// No RAM in the memory map.
    #[error("the memory map has no RAM")]
    NoRam,
    /// A range that ends before it begins.
    #[error("the memory map has a range at {0:#x} that wraps around")]
    Wraps(u64),
    /// More ranges than there is room for.
    #[error(
        "the memory map has more than {MAX_RANGES} ranges of RAM, or the firmware left more than {MAX_RANGES} things in it"
    )]
    TooManyRanges,
    /// A command line without an end.
    #[error("the command line is longer than {MAX_COMMAND_LINE} bytes")]
    CommandLineTooLong,
    /// No ACPI tables.
    #[error("the firmware has no ACPI tables, so the CPUs are unknown (with -M microvm: acpi=on)")]
    NoAcpi,
}

/// Reads the structure at `at`.
///
/// # Errors
/// When it is not what it should be, or points outside of memory.
pub fn read(memory: &impl PhysicalBytes, at: u64) -> Result<StartInfo, StartInfoError> {
    let get = |at: u64, bytes: usize| memory.get(at, bytes).ok_or(StartInfoError::Unreadable(at));
    let mut occupied = ArrayVec::new();
    let mut occupy = |start: u64, bytes: u64| {
        let end = start.checked_add(bytes).ok_or(StartInfoError::Wraps(start))?;
        occupied.try_push(Range { start, end }).map_err(|_| StartInfoError::TooManyRanges)
    };

    let magic = word32(get(at, 4)?, 0);
    if magic != MAGIC {
        return Err(StartInfoError::Magic(magic));
    }
    let version = word32(get(at, 8)?, 4);
    if version < 1 {
        return Err(StartInfoError::Version(version));
    }
    let info = get(at, BYTES)?;
    occupy(at, BYTES as u64)?;

    let mut module = None;
    let (modules, list) = (word32(info, 12) as usize, word64(info, 16));
    if modules > 0 {
        let all = get(list, modules.checked_mul(MODULE_BYTES).ok_or(StartInfoError::TooManyRanges)?)?;
        occupy(list, all.len() as u64)?;
        for entry in all.chunks_exact(MODULE_BYTES) {
            let (start, bytes) = (word64(entry, 0), word64(entry, 8));
            occupy(start, bytes)?;
            module = module.or((bytes > 0).then_some(Range { start, end: start + bytes }));
        }
    }

    let (map, entries) = (word64(info, 40), word32(info, 48) as usize);
    let map_bytes = get(map, entries.checked_mul(ENTRY_BYTES).ok_or(StartInfoError::TooManyRanges)?)?;
    occupy(map, map_bytes.len() as u64)?;
    let mut ram = ArrayVec::new();
    for entry in map_bytes.chunks_exact(ENTRY_BYTES) {
        let (start, bytes) = (word64(entry, 0), word64(entry, 8));
        let end = start.checked_add(bytes).ok_or(StartInfoError::Wraps(start))?;
        if word32(entry, 16) == TYPE_RAM && bytes > 0 {
            ram.try_push(Range { start, end }).map_err(|_| StartInfoError::TooManyRanges)?;
        }
    }
    if ram.is_empty() {
        return Err(StartInfoError::NoRam);
    }

    let text = word64(info, 24);
    let command_line = match text {
        0 => None,
        _ => {
            let mut length = 0;
            while get(text + length as u64, 1)?[0] != 0 {
                length += 1;
                if length > MAX_COMMAND_LINE {
                    return Err(StartInfoError::CommandLineTooLong);
                }
            }
            occupy(text, length as u64 + 1)?;
            Some((text, length))
        }
    };

    match word64(info, 32) {
        0 => Err(StartInfoError::NoAcpi),
        rsdp => Ok(StartInfo { ram, occupied, command_line, module, rsdp }),
    }
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|i| bytes[at + i]))
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Memory that begins at 0x1000.
    struct Page(Vec<u8>);

    impl PhysicalBytes for Page {
        fn get(&self, at: u64, bytes: usize) -> Option<&[u8]> {
            let start = at.checked_sub(0x1000)? as usize;
            self.0.get(start..start.checked_add(bytes)?)
        }
    }

    const INFO: usize = 0x100;
    const MAP: usize = 0x200;
    const TEXT: usize = 0x300;

    fn put64(page: &mut Page, at: usize, value: u64) {
        page.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Two ranges of RAM and one that is reserved, and a command line.
    fn good() -> Page {
        let mut page = Page(std::vec![0; 0x1000]);
        put64(&mut page, INFO, u64::from(MAGIC) | 1 << 32);
        put64(&mut page, INFO + 24, 0x1000 + TEXT as u64);
        put64(&mut page, INFO + 32, 0xf_5aa0);
        put64(&mut page, INFO + 40, 0x1000 + MAP as u64);
        put64(&mut page, INFO + 48, 3);
        for (i, (start, bytes, kind)) in
            [(0, 0x9_fc00, 1), (0xf_0000, 0x1_0000, 2), (0x10_0000, 0x1ff0_0000, 1)].into_iter().enumerate()
        {
            put64(&mut page, MAP + 24 * i, start);
            put64(&mut page, MAP + 24 * i + 8, bytes);
            put64(&mut page, MAP + 24 * i + 16, kind);
        }
        page.0[TEXT..TEXT + 6].copy_from_slice(b"ops=3\0");
        page
    }

    fn read_good(change: impl FnOnce(&mut Page)) -> Result<StartInfo, StartInfoError> {
        let mut page = good();
        change(&mut page);
        read(&page, 0x1000 + INFO as u64)
    }

    #[test]
    fn all_of_it_is_found() {
        let info = read_good(|_| ()).unwrap();
        assert_eq!(info.ram[..], [Range { start: 0, end: 0x9_fc00 }, Range { start: 0x10_0000, end: 0x2000_0000 }]);
        assert_eq!(info.command_line, Some((0x1000 + TEXT as u64, 5)));
        assert_eq!(info.rsdp, 0xf_5aa0);
        assert_eq!((info.occupied.len(), info.module), (3, None));
    }

    #[test]
    fn a_module_is_found_and_kept_out_of_what_is_usable() {
        const LIST: usize = 0x400;
        let with_module = |start, bytes| {
            read_good(|page| {
                put64(page, INFO + 12, 1);
                put64(page, INFO + 16, 0x1000 + LIST as u64);
                put64(page, LIST, start);
                put64(page, LIST + 8, bytes);
            })
        };
        let info = with_module(0x100_0000, 0x2345).unwrap();
        let module = Range { start: 0x100_0000, end: 0x100_2345 };
        assert_eq!(info.module, Some(module));
        assert!(info.occupied.contains(&module) && info.occupied.len() == 5);
        assert_eq!(with_module(0x100_0000, 0).unwrap().module, None);
        assert_eq!(with_module(8, u64::MAX), Err(StartInfoError::Wraps(8)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        use StartInfoError::*;
        assert_eq!(read_good(|p| put64(p, INFO, 7)), Err(Magic(7)));
        assert_eq!(read_good(|p| put64(p, INFO, u64::from(MAGIC))), Err(Version(0)));
        assert_eq!(read_good(|p| put64(p, INFO + 48, 0)), Err(NoRam));
        assert_eq!(read_good(|p| put64(p, INFO + 40, 0x9000)), Err(Unreadable(0x9000)));
        assert_eq!(read_good(|p| put64(p, INFO + 48, 0xffff_ffff)), Err(Unreadable(0x1000 + MAP as u64)));
        assert_eq!(read_good(|p| put64(p, MAP + 8, u64::MAX)).unwrap().ram[0].end, u64::MAX);
        assert_eq!(read_good(|p| put64(p, MAP + 24 * 2 + 8, u64::MAX)), Err(Wraps(0x10_0000)));
        assert_eq!(read_good(|p| put64(p, INFO + 32, 0)), Err(NoAcpi));
        assert_eq!(read_good(|p| p.0[TEXT..].fill(b'x')), Err(Unreadable(0x2000)));
        assert_eq!(read(&good(), 0x1ff0), Err(Magic(0)));
        assert_eq!(read(&good(), 0x5000), Err(Unreadable(0x5000)));
    }

    #[test]
    fn no_cut_is_read_beyond() {
        let whole = good().0;
        for length in 0..whole.len() {
            let cut = Page(whole[..length].to_vec());
            let _ = read(&cut, 0x1000 + INFO as u64);
        }
    }
}
