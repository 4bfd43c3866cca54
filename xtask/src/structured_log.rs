//! The kernel's structured log: defmt frames from a ring in the guest's memory, made readable with the image's symbols.
//!
//! A frame names its format string by the low 16 bits of a symbol's address. The decoder expects those bits to be the whole
//! address, which they are where the strings' section lies at 0. In this kernel it lies at a multiple of 64 KiB near the
//! code, so the symbols and the section are moved down to 0 in a copy of the image first.

use anyhow::{Context, ensure};
use defmt_decoder::{DecodeError, Table};

use crate::build::repository;
use crate::image::Image;
use crate::shared_memory::RingContents;

const SECTION: &str = ".defmt";
const WINDOW: u64 = 0x1_0000;

/// Sizes and offsets of the ELF format that are needed to change an address in place.
mod elf64 {
    pub(super) const SECTION_OFFSET_FIELD: usize = 0x28;
    pub(super) const SECTION_COUNT_FIELD: usize = 0x3c;
    pub(super) const SECTION_BYTES: usize = 64;
    pub(super) const SECTION_ADDRESS: usize = 0x10;
    pub(super) const SECTION_FILE_OFFSET: usize = 0x18;
    pub(super) const SECTION_SIZE: usize = 0x20;
    pub(super) const SECTION_TYPE: usize = 4;
    pub(super) const TYPE_SYMBOLS: u32 = 2;
    pub(super) const SYMBOL_BYTES: usize = 24;
    pub(super) const SYMBOL_SECTION: usize = 6;
    pub(super) const SYMBOL_VALUE: usize = 8;
}

/// The log as lines; empty where the image has no structured log.
pub(crate) fn lines(image: &Image, ring: &RingContents) -> anyhow::Result<Vec<String>> {
    if ring.bytes.is_empty() {
        return Ok(Vec::new());
    }
    let Some(moved) = with_section_at_zero(&image.bytes)? else { return Ok(Vec::new()) };
    let Some(table) = Table::parse(&moved)? else { return Ok(Vec::new()) };
    let locations = table.get_locations(&moved).unwrap_or_default();
    let mut lines = Vec::new();
    if ring.lost > 0 {
        lines.push(format!("({} bytes of earlier messages were overwritten)", ring.lost));
    }
    let mut decoder = table.new_stream_decoder();
    decoder.received(&ring.bytes);
    let mut malformed = 0;
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let place = locations.get(&frame.index()).map(|l| {
                    let file = l.file.strip_prefix(repository()).unwrap_or(&l.file);
                    format!(" ({}:{})", file.display(), l.line)
                });
                lines.push(format!("{}{}", frame.display(false), place.unwrap_or_default()));
            }
            Err(DecodeError::UnexpectedEof) => break,
            Err(DecodeError::Malformed) if table.encoding().can_recover() => malformed += 1,
            Err(DecodeError::Malformed) => {
                malformed += 1;
                break;
            }
        }
    }
    // A ring that wrapped begins in the middle of a frame.
    if malformed > u32::from(ring.lost > 0) {
        lines.push(format!("({malformed} frames could not be read)"));
    }
    Ok(lines)
}

/// A copy of the image whose `.defmt` section, with its symbols, begins at address 0. `None` without such a section.
fn with_section_at_zero(image: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    use elf64::*;
    use object::{Object, ObjectSection};
    let elf = object::File::parse(image).context("the image is not an ELF file")?;
    let Some(section) = elf.section_by_name(SECTION) else { return Ok(None) };
    let base = section.address();
    ensure!(section.size() <= WINDOW, "{SECTION} holds more strings than 16 bits can name");
    ensure!(
        base % WINDOW == 0 || base + section.size() <= WINDOW,
        "{SECTION} is at {base:#x}, which is no multiple of 64 KiB"
    );
    let base = base & !(WINDOW - 1);
    let index = section.index().0;
    let mut copy = image.to_vec();
    let table = read_u64(&copy, SECTION_OFFSET_FIELD)? as usize;
    let own = table + index * SECTION_BYTES + SECTION_ADDRESS;
    lower(&mut copy, own, base)?;
    let count = read_u16(&copy, SECTION_COUNT_FIELD)? as usize;
    for header in (0..count).map(|i| table + i * SECTION_BYTES) {
        if read_u32(&copy, header + SECTION_TYPE)? != TYPE_SYMBOLS {
            continue;
        }
        let start = read_u64(&copy, header + SECTION_FILE_OFFSET)? as usize;
        let bytes = read_u64(&copy, header + SECTION_SIZE)? as usize;
        for symbol in (start..start + bytes).step_by(SYMBOL_BYTES) {
            if read_u16(&copy, symbol + SYMBOL_SECTION)? as usize == index {
                lower(&mut copy, symbol + SYMBOL_VALUE, base)?;
            }
        }
    }
    Ok(Some(copy))
}

fn lower(bytes: &mut [u8], at: usize, by: u64) -> anyhow::Result<()> {
    let value = read_u64(bytes, at)?.wrapping_sub(by);
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    Ok(())
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> anyhow::Result<[u8; N]> {
    let slice = bytes.get(at..at + N).context("the image is cut short")?;
    Ok(std::array::from_fn(|i| slice[i]))
}

fn read_u16(bytes: &[u8], at: usize) -> anyhow::Result<u16> {
    Ok(u16::from_le_bytes(read(bytes, at)?))
}

fn read_u32(bytes: &[u8], at: usize) -> anyhow::Result<u32> {
    Ok(u32::from_le_bytes(read(bytes, at)?))
}

fn read_u64(bytes: &[u8], at: usize) -> anyhow::Result<u64> {
    Ok(u64::from_le_bytes(read(bytes, at)?))
}
