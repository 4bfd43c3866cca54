//! What an ELF file says that a program is: segments and an entry. Checked whole before anything is mapped; a file that
//! is not exactly what it should be is refused with one sentence, whatever its bytes are.

use core::ops::Range;

use arrayvec::ArrayVec;
use elf::ElfBytes;
use elf::abi::{ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;

use crate::addr::{PAGE_SIZE, VirtAddr};
use crate::arch::Arch;
use crate::mm::entry::Perm;

/// The most segments that a program has.
pub const MOST_SEGMENTS: usize = 16;
/// Nothing may be below: a null pointer with an offset must fault.
pub const LOWEST: u64 = 0x1_0000;
/// The most memory that a program's segments take.
pub const MOST_BYTES: u64 = 64 << 20;

/// Why a file is no program for this machine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProgramError {
    /// The header or the table of segments cannot be read.
    #[error("the program is no ELF file: its header or its table of segments makes no sense")]
    NoElf,
    /// 32-bit, another machine's, or not linked to fixed addresses.
    #[error("the program is an ELF file of another kind (class {class:?}, type {kind}, machine {machine})")]
    OtherKind {
        /// 32 or 64 bit.
        class: Class,
        /// `e_type`.
        kind: u16,
        /// `e_machine`.
        machine: u16,
    },
    /// More segments than there is room for, or none.
    #[error("the program has {0} segments; there must be 1 to {MOST_SEGMENTS}")]
    Segments(usize),
    /// A segment's bytes are not in the file.
    #[error("the program's segment at {0} lies outside of its file")]
    Truncated(VirtAddr),
    /// A segment is not in the user half, or too near to 0, or too large.
    #[error("the program's segment at {0} is not where a program may be")]
    Misplaced(VirtAddr),
    /// Two segments share a page.
    #[error("two of the program's segments share the page at {0}")]
    Overlap(VirtAddr),
    /// A segment that may be written and executed.
    #[error("the program's segment at {0} may be both written and executed")]
    WritableCode(VirtAddr),
    /// The entry is in no segment that may be executed.
    #[error("the program begins at {0}, where it has no code")]
    Entry(VirtAddr),
}

/// A piece of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment<'f> {
    /// Whole pages.
    pub range: Range<VirtAddr>,
    /// What its leaves allow.
    pub perm: Perm,
    /// Where `bytes` begin, in the first page of the range.
    pub start: VirtAddr,
    /// What is not 0 at the start.
    pub bytes: &'f [u8],
}

/// A program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program<'f> {
    /// Where its first thread begins.
    pub entry: VirtAddr,
    /// Its segments, ascending; no two in one page.
    pub segments: ArrayVec<Segment<'f>, MOST_SEGMENTS>,
}

impl<'f> Program<'f> {
    /// Reads `file` as a program for `A`.
    pub fn parse<A: Arch>(file: &'f [u8]) -> Result<Program<'f>, ProgramError> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| ProgramError::NoElf)?;
        let header = elf.ehdr;
        if (header.class, header.e_type, header.e_machine) != (Class::ELF64, ET_EXEC, A::ELF_MACHINE) {
            return Err(ProgramError::OtherKind {
                class: header.class,
                kind: header.e_type,
                machine: header.e_machine,
            });
        }
        let table = elf.segments().ok_or(ProgramError::Segments(0))?;
        let loaded = || table.iter().filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0);
        let count = loaded().count();
        if !(1..=MOST_SEGMENTS).contains(&count) {
            return Err(ProgramError::Segments(count));
        }
        let mut segments = ArrayVec::<_, MOST_SEGMENTS>::new();
        for found in loaded() {
            segments.push(segment::<A>(file, &found)?);
        }
        segments.sort_unstable_by_key(|s| s.range.start);
        if let Some(pair) = segments.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
            return Err(ProgramError::Overlap(pair[1].range.start));
        }
        if segments.iter().map(|s| s.range.end.0 - s.range.start.0).sum::<u64>() > MOST_BYTES {
            return Err(ProgramError::Misplaced(segments[0].start));
        }
        let entry = VirtAddr(header.e_entry);
        if !segments.iter().any(|s| s.perm.contains(Perm::EXEC) && s.range.contains(&entry)) {
            return Err(ProgramError::Entry(entry));
        }
        Ok(Program { entry, segments })
    }
}

fn segment<'f, A: Arch>(file: &'f [u8], header: &ProgramHeader) -> Result<Segment<'f>, ProgramError> {
    let start = VirtAddr(header.p_vaddr);
    let inside = || {
        let from = usize::try_from(header.p_offset).ok()?;
        file.get(from..from.checked_add(usize::try_from(header.p_filesz).ok()?)?)
    };
    let bytes = inside().filter(|_| header.p_filesz <= header.p_memsz).ok_or(ProgramError::Truncated(start))?;
    let end = header.p_vaddr.checked_add(header.p_memsz).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
    let end = end
        .filter(|end| header.p_vaddr >= LOWEST && *end <= A::USER_END.0 && header.p_memsz <= MOST_BYTES)
        .ok_or(ProgramError::Misplaced(start))?;
    let mut perm = Perm::empty();
    perm.set(Perm::WRITE, header.p_flags & PF_W != 0);
    perm.set(Perm::EXEC, header.p_flags & PF_X != 0);
    if perm == Perm::all() {
        return Err(ProgramError::WritableCode(start));
    }
    Ok(Segment { range: VirtAddr(start.0 - start.0 % PAGE_SIZE)..VirtAddr(end), perm, start, bytes })
}
