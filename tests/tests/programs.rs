//! Programs as files: what is right is read as it is, and whatever else is refused with a sentence, never a panic.

use kernel::addr::VirtAddr;
use kernel::mm::entry::Perm;
use kernel::task::program::{Program, ProgramError};
use tests::host::Host;

type Machine = Host<1, false>;

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const TEXT: u64 = 0x40_0000;
const DATA: u64 = 0x40_2000;

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put64(file: &mut [u8], at: usize, value: u64) {
    put(file, at, &value.to_le_bytes());
}

/// One entry of the table of segments: type, flags, where in the file, address, bytes in the file, bytes in memory.
fn segment(file: &mut [u8], n: usize, words: [u64; 6]) {
    let at = HEADER + n * SEGMENT;
    put(file, at, &(words[0] as u32).to_le_bytes());
    put(file, at + 4, &(words[1] as u32).to_le_bytes());
    for (offset, word) in [(8, words[2]), (16, words[3]), (24, words[3]), (32, words[4]), (40, words[5])] {
        put64(file, at + offset, word);
    }
    put64(file, at + 48, 4096);
}

/// A program of code and of data that is partly zero, for the machine `machine`.
fn good() -> Vec<u8> {
    let mut file = vec![0; 0x400];
    put(&mut file, 0, b"\x7fELF\x02\x01\x01");
    put(&mut file, 16, &2u16.to_le_bytes());
    put(&mut file, 18, &62u16.to_le_bytes());
    put(&mut file, 20, &1u32.to_le_bytes());
    put64(&mut file, 24, TEXT + 0x10);
    put64(&mut file, 32, HEADER as u64);
    put(&mut file, 52, &(HEADER as u16).to_le_bytes());
    put(&mut file, 54, &(SEGMENT as u16).to_le_bytes());
    put(&mut file, 56, &2u16.to_le_bytes());
    segment(&mut file, 0, [1, 5, 0x200, TEXT, 0x80, 0x80]);
    segment(&mut file, 1, [1, 6, 0x300, DATA + 0x20, 0x40, 0x1800]);
    file[0x300] = 0xaa;
    file
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<(), ProgramError> {
    let mut file = good();
    change(&mut file);
    Program::parse::<Machine>(&file).map(drop)
}

#[test]
fn a_program_is_read_as_it_is() {
    let file = good();
    let program = Program::parse::<Machine>(&file).unwrap();
    assert_eq!(program.entry, VirtAddr(TEXT + 0x10));
    let [text, data] = &program.segments[..] else { panic!("{} segments", program.segments.len()) };
    assert_eq!((text.range.clone(), text.perm), (VirtAddr(TEXT)..VirtAddr(TEXT + 0x1000), Perm::EXEC));
    assert_eq!((data.range.clone(), data.perm), (VirtAddr(DATA)..VirtAddr(DATA + 0x2000), Perm::WRITE));
    assert_eq!((data.start, data.bytes.len(), data.bytes[0]), (VirtAddr(DATA + 0x20), 0x40, 0xaa));
}

#[test]
fn what_is_wrong_is_named() {
    use ProgramError::*;
    let at = VirtAddr;
    assert_eq!(changed(|f| f[0] = 0), Err(NoElf));
    assert!(matches!(changed(|f| f[4] = 1), Err(NoElf | OtherKind { .. })));
    assert!(matches!(changed(|f| f[18] = 183), Err(OtherKind { machine: 183, .. })));
    assert!(matches!(changed(|f| f[16] = 3), Err(OtherKind { kind: 3, .. })));
    assert_eq!(changed(|f| put(f, 56, &0u16.to_le_bytes())), Err(Segments(0)));
    assert_eq!(changed(|f| segment(f, 1, [1, 6, 0x3f0, DATA, 0x40, 0x40])), Err(Truncated(at(DATA))));
    assert_eq!(changed(|f| segment(f, 1, [1, 6, u64::MAX, DATA, 0x40, 0x40])), Err(Truncated(at(DATA))));
    assert_eq!(changed(|f| segment(f, 1, [1, 6, 0x300, DATA, 0x40, 0x20])), Err(Truncated(at(DATA))));
    assert_eq!(changed(|f| segment(f, 1, [1, 6, 0x300, 0x1000, 0x40, 0x40])), Err(Misplaced(at(0x1000))));
    assert_eq!(changed(|f| segment(f, 1, [1, 6, 0x300, DATA, 0x40, u64::MAX])), Err(Misplaced(at(DATA))));
    assert_eq!(changed(|f| segment(f, 1, [1, 6, 0x300, DATA, 0x40, 1 << 40])), Err(Misplaced(at(DATA))));
    let kernel = 0xffff_8000_0000_0000;
    assert_eq!(changed(|f| segment(f, 1, [1, 6, 0x300, kernel, 0x40, 0x40])), Err(Misplaced(at(kernel))));
    assert_eq!(changed(|f| segment(f, 1, [1, 6, 0x300, TEXT + 0x800, 0x40, 0x40])), Err(Overlap(at(TEXT))));
    assert_eq!(changed(|f| segment(f, 1, [1, 7, 0x300, DATA, 0x40, 0x40])), Err(WritableCode(at(DATA))));
    assert_eq!(changed(|f| put64(f, 24, DATA)), Err(Entry(at(DATA))));
    assert_eq!(changed(|f| put64(f, 24, 0)), Err(Entry(at(0))));
}

#[test]
fn no_cut_and_no_changed_byte_panics() {
    let file = good();
    for length in 0..file.len() {
        let _ = Program::parse::<Machine>(&file[..length]);
    }
    // Everything that has a meaning is in the first bytes; what is accepted nevertheless must be mappable.
    for index in 0..HEADER + 2 * SEGMENT {
        for byte in [0, 1, 2, 3, 5, 6, 7, 0x10, 0x40, 0x7f, 0x80, 0xff] {
            let mut broken = file.clone();
            broken[index] = byte;
            let Ok(program) = Program::parse::<Machine>(&broken) else { continue };
            for segment in &program.segments {
                assert!(segment.range.start.0 >= 0x1_0000 && segment.range.end.0 <= 0x8000_0000_0000);
                assert!(segment.range.start <= segment.start && segment.perm != Perm::all());
                assert!(segment.start.0 + segment.bytes.len() as u64 <= segment.range.end.0);
            }
        }
    }
}
