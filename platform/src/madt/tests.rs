//! The tables that QEMU's microvm with 4 CPUs leaves in memory, as they are, and corrupted.

use super::*;
use std::vec::Vec;

/// The root pointer.
const ROOT: u64 = 0xf_34d0;
const ROOT_FILE: &[u8] = include_bytes!("../../tests/data/rsdp-microvm-4.bin");
/// The tables: FACP, MADT, XSDT.
const TABLES: u64 = 0xe_fe00;
const TABLES_FILE: &[u8] = include_bytes!("../../tests/data/acpi-microvm-4.bin");
const MADT: usize = 0x141;
const MADT_LENGTH: usize = 106;
const XSDT: usize = 0x1ab;
const XSDT_LENGTH: usize = 52;

#[derive(Clone)]
struct Memory {
    root: Vec<u8>,
    tables: Vec<u8>,
}

impl PhysicalBytes for Memory {
    fn get(&self, at: u64, bytes: usize) -> Option<&[u8]> {
        let within = |start: u64, all: &'_ Vec<u8>| {
            let first = usize::try_from(at.checked_sub(start)?).ok()?;
            Some((first, first.checked_add(bytes)?)).filter(|&(_, end)| end <= all.len())
        };
        if let Some((first, end)) = within(ROOT, &self.root) {
            return Some(&self.root[first..end]);
        }
        within(TABLES, &self.tables).map(|(first, end)| &self.tables[first..end])
    }
}

fn real() -> Memory {
    Memory { root: ROOT_FILE.to_vec(), tables: TABLES_FILE.to_vec() }
}

/// Makes the bytes add up to 0 again; the checksum is the tenth byte of every table.
fn sum_up(table: &mut [u8]) {
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, &byte| sum.wrapping_sub(byte));
}

fn with_madt(change: impl FnOnce(&mut [u8])) -> Result<LocalApics, MadtError> {
    let mut memory = real();
    let madt = &mut memory.tables[MADT..MADT + MADT_LENGTH];
    change(madt);
    sum_up(madt);
    local_apics(&memory, ROOT)
}

#[test]
fn the_real_tables_name_four_cpus() {
    let found = local_apics(&real(), ROOT).unwrap();
    assert_eq!(found.ids[..], [0, 1, 2, 3]);
    assert_eq!(found.registers, 0xfee0_0000);
}

#[test]
fn a_disabled_cpu_is_left_out() {
    // The second CPU's entry: type, length, processor, number, flags.
    let found = with_madt(|madt| madt[44 + 8 + 4] = 0).unwrap();
    assert_eq!(found.ids[..], [0, 2, 3]);
}

#[test]
fn what_is_wrong_is_named() {
    assert_eq!(with_madt(|m| m[44 + 8 + 3] = 0), Err(MadtError::Twice(0)));
    assert_eq!(with_madt(|m| m[44 + 1] = 0), Err(MadtError::Entry { offset: 44, kind: 0, length: 0 }));
    assert_eq!(with_madt(|m| m[44 + 1] = 7), Err(MadtError::Entry { offset: 44, kind: 0, length: 7 }));
    assert_eq!(with_madt(|m| m[44] = 0x80).unwrap().ids[..], [1, 2, 3]);
    assert_eq!(with_madt(|m| m[44..76].iter_mut().step_by(8).for_each(|b| *b = 0x80)), Err(MadtError::None));
    assert_eq!(with_madt(|m| m[0] = b'B'), Err(MadtError::Missing));
    let last = MADT_LENGTH - 6;
    assert_eq!(with_madt(|m| m[last + 1] = 9), Err(MadtError::Entry { offset: last, kind: 4, length: 9 }));
    let at = TABLES + MADT as u64;
    assert_eq!(with_madt(|m| m[4] = 20), Err(MadtError::Length { at, length: 20 }));
    assert_eq!(with_madt(|m| m[7] = 1), Err(MadtError::Length { at, length: 0x0100_006a }));
    assert_eq!(local_apics(&real(), ROOT + 16), Err(MadtError::Unreadable(ROOT + 16)));
    assert_eq!(local_apics(&real(), TABLES), Err(MadtError::NoRoot(TABLES)));
}

#[test]
fn every_corrupted_byte_of_a_summed_table_is_found() {
    for (start, length) in [(MADT, MADT_LENGTH), (XSDT, XSDT_LENGTH)] {
        for at in start..start + length {
            for flip in [1, 0x80, 0xff] {
                let mut memory = real();
                memory.tables[at] ^= flip;
                assert!(local_apics(&memory, ROOT).is_err(), "byte {at:#x} with {flip:#x} went unnoticed");
            }
        }
    }
    for at in 0..ROOT_FILE.len() {
        let mut memory = real();
        memory.root[at] ^= 0x10;
        assert!(local_apics(&memory, ROOT).is_err(), "byte {at:#x} of the root pointer went unnoticed");
    }
}

#[test]
fn no_corruption_with_a_right_checksum_is_believed_beyond_the_table() {
    for (start, length) in [(MADT, MADT_LENGTH), (XSDT, XSDT_LENGTH)] {
        for at in start..start + length {
            for value in 0..=255 {
                let mut memory = real();
                let table = &mut memory.tables[start..start + length];
                table[at - start] = value;
                sum_up(table);
                // Whatever it says: it comes to an end, within the table.
                let _ = local_apics(&memory, ROOT);
            }
        }
    }
}

#[test]
fn a_table_that_was_cut_is_an_error() {
    for length in 0..XSDT + XSDT_LENGTH {
        let mut memory = real();
        memory.tables.truncate(length);
        assert!(local_apics(&memory, ROOT).is_err(), "cut after {length:#x} bytes");
    }
    for length in 0..ROOT_FILE.len() {
        let mut memory = real();
        memory.root.truncate(length);
        assert!(local_apics(&memory, ROOT).is_err(), "root pointer cut after {length} bytes");
    }
}
