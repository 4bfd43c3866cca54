//! Which CPUs there are: the ACPI tables from the root pointer to the MADT.
//!
//! The tables' formats are those of the crate `acpi`, which trusts what it reads: lengths that are too small or too
//! large make it loop, overflow, or read beyond the table. So everything on the way is checked first (that it is
//! readable, its length, its checksum, each entry's length), and only what passed is handed over.

use core::ptr::NonNull;

use acpi::madt::{self, Madt, MadtEntry};
use acpi::sdt::{SdtHeader, Signature};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use arrayvec::ArrayVec;
use kernel::addr::MAX_CPUS;

use crate::PhysicalBytes;

/// Bytes of the root pointer in its first version, and in the later ones.
const ROOT_BYTES: usize = 20;
const LONG_ROOT_BYTES: usize = 36;
/// Bytes that every table begins with.
const HEADER_BYTES: usize = size_of::<SdtHeader>();
/// Bytes of the MADT before its entries.
const MADT_BYTES: usize = size_of::<Madt>();
/// The most bytes of one table that are believed.
const MAX_TABLE_BYTES: usize = 1 << 20;
/// In an entry of a CPU: it can be used.
const ENABLED: u32 = 1;

/// What the MADT says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalApics {
    /// Physical address of each CPU's own APIC registers.
    pub registers: u64,
    /// The CPUs' APIC numbers, in the order of the table; disabled ones are left out.
    pub ids: ArrayVec<u64, MAX_CPUS>,
}

/// Why the CPUs could not be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MadtError {
    /// Something is not in readable memory.
    #[error("the ACPI tables point at {0:#x}, which cannot be read")]
    Unreadable(u64),
    /// There is no root pointer where it should be.
    #[error("there is no ACPI root pointer at {0:#x}")]
    NoRoot(u64),
    /// A length that cannot be.
    #[error("the ACPI table at {at:#x} says that it has {length} bytes")]
    Length {
        /// Where the table is.
        at: u64,
        /// What it says.
        length: usize,
    },
    /// The bytes do not add up to 0.
    #[error("the ACPI table at {0:#x} has a wrong checksum")]
    Checksum(u64),
    /// The root table is none.
    #[error("the ACPI root table at {0:#x} has a wrong signature")]
    RootSignature(u64),
    /// No MADT among the tables.
    #[error("the ACPI tables have no MADT, so the CPUs are unknown")]
    Missing,
    /// An entry that is cut, or shorter than its type.
    #[error("the MADT's entry at offset {offset} (type {kind}) says that it has {length} bytes")]
    Entry {
        /// Where it is in the table.
        offset: usize,
        /// Its type.
        kind: u8,
        /// What it says.
        length: usize,
    },
    /// The same CPU twice.
    #[error("the MADT names the CPU with APIC number {0} twice")]
    Twice(u64),
    /// More than there is room for.
    #[error("the MADT names more than {MAX_CPUS} CPUs")]
    TooMany,
    /// None at all.
    #[error("the MADT names no CPU that can be used")]
    None,
    /// The crate found something that the checks here did not.
    #[error("the ACPI tables are malformed")]
    Malformed,
}

/// Reads the tables that the root pointer at `root` leads to.
///
/// # Errors
/// When a table is not what it should be.
pub fn local_apics(memory: &impl PhysicalBytes, root: u64) -> Result<LocalApics, MadtError> {
    check_tables(memory, root)?;
    let checked = Checked(memory);
    // SAFETY: `check_tables` found everything on the way readable, as long as it says, and with the right checksum.
    let tables = unsafe { AcpiTables::from_rsdp(checked, root as usize) }.map_err(|_| MadtError::Malformed)?;
    let madt = tables.find_table::<Madt>().map_err(|_| MadtError::Malformed)?;
    let mut found = LocalApics { registers: u64::from(madt.get().local_apic_address), ids: ArrayVec::new() };
    for entry in madt.get().entries() {
        let (id, flags) = match entry {
            MadtEntry::LocalApic(cpu) => (u64::from(cpu.apic_id), cpu.flags),
            MadtEntry::LocalX2Apic(cpu) => (u64::from(cpu.x2apic_id), cpu.flags),
            MadtEntry::LocalApicAddressOverride(o) => {
                found.registers = o.local_apic_address;
                continue;
            }
            _ => continue,
        };
        if flags & ENABLED == 0 {
            continue;
        }
        if found.ids.contains(&id) {
            return Err(MadtError::Twice(id));
        }
        found.ids.try_push(id).map_err(|_| MadtError::TooMany)?;
    }
    if found.ids.is_empty() { Err(MadtError::None) } else { Ok(found) }
}

/// Checks the root pointer, the root table, the headers of all tables, and all of the MADT.
fn check_tables(memory: &impl PhysicalBytes, root: u64) -> Result<(), MadtError> {
    let bytes = memory.get(root, LONG_ROOT_BYTES).ok_or(MadtError::Unreadable(root))?;
    if !bytes.starts_with(b"RSD PTR ") {
        return Err(MadtError::NoRoot(root));
    }
    let long = bytes[15] > 0;
    let length = if long { word32(bytes, 20) as usize } else { ROOT_BYTES };
    // The crate sums as many bytes as the pointer says, so no more may be said than there are.
    if length != if long { LONG_ROOT_BYTES } else { ROOT_BYTES } {
        return Err(MadtError::Length { at: root, length });
    }
    check_sum(root, &bytes[..length])?;

    let (table, signature, pointer_bytes): (u64, &[u8], usize) = match long {
        true => (u64::from(word32(bytes, 24)) | u64::from(word32(bytes, 28)) << 32, b"XSDT", 8),
        false => (u64::from(word32(bytes, 16)), b"RSDT", 4),
    };
    let root_table = check_table(memory, table)?;
    if !root_table.starts_with(signature) {
        return Err(MadtError::RootSignature(table));
    }
    let pointers = &root_table[HEADER_BYTES..];
    if !pointers.len().is_multiple_of(pointer_bytes) {
        return Err(MadtError::Length { at: table, length: root_table.len() });
    }
    let mut found = false;
    for pointer in pointers.chunks_exact(pointer_bytes) {
        let at = pointer.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        let header = memory.get(at, HEADER_BYTES).ok_or(MadtError::Unreadable(at))?;
        if header.starts_with(Signature::MADT.as_str().as_bytes()) {
            check_entries(at, check_table(memory, at)?)?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(MadtError::Missing) }
}

/// The bytes of the table at `at`, which are as many as it says, and add up.
fn check_table(memory: &impl PhysicalBytes, at: u64) -> Result<&[u8], MadtError> {
    let header = memory.get(at, HEADER_BYTES).ok_or(MadtError::Unreadable(at))?;
    let length = word32(header, 4) as usize;
    if !(HEADER_BYTES..=MAX_TABLE_BYTES).contains(&length) {
        return Err(MadtError::Length { at, length });
    }
    let table = memory.get(at, length).ok_or(MadtError::Length { at, length })?;
    check_sum(at, table)?;
    Ok(table)
}

fn check_sum(at: u64, bytes: &[u8]) -> Result<(), MadtError> {
    let sum = bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte));
    if sum == 0 { Ok(()) } else { Err(MadtError::Checksum(at)) }
}

/// Checks that each entry lies in the table and has as many bytes as its type needs.
fn check_entries(at: u64, table: &[u8]) -> Result<(), MadtError> {
    let mut rest = table.get(MADT_BYTES..).ok_or(MadtError::Length { at, length: table.len() })?;
    while !rest.is_empty() {
        let offset = table.len() - rest.len();
        let (kind, length) = (rest[0], rest.get(1).map_or(0, |&length| usize::from(length)));
        if length < least_bytes(kind) || length > rest.len() {
            return Err(MadtError::Entry { offset, kind, length });
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// The bytes that the crate reads of an entry of type `kind`.
fn least_bytes(kind: u8) -> usize {
    match kind {
        0x0 => size_of::<madt::LocalApicEntry>(),
        0x1 => size_of::<madt::IoApicEntry>(),
        0x2 => size_of::<madt::InterruptSourceOverrideEntry>(),
        0x3 => size_of::<madt::NmiSourceEntry>(),
        0x4 => size_of::<madt::LocalApicNmiEntry>(),
        0x5 => size_of::<madt::LocalApicAddressOverrideEntry>(),
        0x6 => size_of::<madt::IoSapicEntry>(),
        0x7 => size_of::<madt::LocalSapicEntry>(),
        0x8 => size_of::<madt::PlatformInterruptSourceEntry>(),
        0x9 => size_of::<madt::LocalX2ApicEntry>(),
        0xa => size_of::<madt::X2ApicNmiEntry>(),
        0xb => size_of::<madt::GiccEntry>(),
        0xc => size_of::<madt::GicdEntry>(),
        0xd => size_of::<madt::GicMsiFrameEntry>(),
        0xe => size_of::<madt::GicRedistributorEntry>(),
        0xf => size_of::<madt::GicInterruptTranslationServiceEntry>(),
        0x10 => size_of::<madt::MultiprocessorWakeupEntry>(),
        _ => 2,
    }
}

fn word32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|i| bytes[at + i]))
}

/// Memory in which [`check_tables`] found nothing wrong.
struct Checked<'a, M>(&'a M);

impl<M> Clone for Checked<'_, M> {
    fn clone(&self) -> Self {
        Checked(self.0)
    }
}

impl<M: PhysicalBytes> AcpiHandler for Checked<'_, M> {
    unsafe fn map_physical_region<T>(&self, at: usize, size: usize) -> PhysicalMapping<Self, T> {
        let bytes = self.0.get(at as u64, size).expect("the tables were checked");
        // The crate reads through this pointer only.
        let start = NonNull::from(bytes).cast();
        // SAFETY: `size` bytes are there for as long as `self`; the crate's table types are packed.
        unsafe { PhysicalMapping::new(at, start, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

#[cfg(test)]
mod tests;
