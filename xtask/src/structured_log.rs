//! The kernel's structured log: defmt frames from a ring in the guest's memory, made readable with the image's symbols.
//!
//! A frame names its format string by the low 16 bits of a symbol's address. The decoder expects those bits to be the
//! whole address, which they are where the strings' section lies at 0. In this kernel it lies at a multiple of 64 KiB
//! near the code, so the symbols and the section are moved down to 0 in a copy of the image first.

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

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0xffff_0000_4100_0000;

    fn name(tag: &str, data: &str) -> String {
        format!(r#"{{"package":"p","tag":"{tag}","data":"{data}","disambiguator":"1","crate_name":"c"}}"#)
    }

    /// A small ELF file with `.defmt` at [`BASE`] and these symbols in it.
    fn forged(symbols: &[(String, u64)]) -> Vec<u8> {
        let strings = b"\0.defmt\0.symtab\0.strtab\0".to_vec();
        let mut strtab = strings.clone();
        let mut symtab = vec![0; elf64::SYMBOL_BYTES];
        for (name, value) in symbols {
            symtab.extend((strtab.len() as u32).to_le_bytes());
            symtab.extend([1, 0, 1, 0]); // an object, in section 1
            symtab.extend(value.to_le_bytes());
            symtab.extend(1u64.to_le_bytes());
            strtab.extend(name.as_bytes());
            strtab.push(0);
        }
        let (defmt_at, symtab_at) = (64, 64 + 256);
        let strtab_at = symtab_at + symtab.len();
        let headers_at = strtab_at + strtab.len();
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(16, 0);
        elf.extend([2, 0, 183, 0, 1, 0, 0, 0]);
        elf.extend([0; 16]);
        elf.extend((headers_at as u64).to_le_bytes());
        elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 0, 0, 64, 0, 4, 0, 3, 0]);
        elf.extend([0; 256]);
        elf.extend(symtab.iter());
        elf.extend(strtab.iter());
        let mut header = |name: u32, kind: u32, address: u64, at: usize, size: usize, link: u32, entry: u64| {
            elf.extend(name.to_le_bytes());
            elf.extend(kind.to_le_bytes());
            elf.extend([0; 8]);
            elf.extend(address.to_le_bytes());
            elf.extend((at as u64).to_le_bytes());
            elf.extend((size as u64).to_le_bytes());
            elf.extend(link.to_le_bytes());
            elf.extend(0u32.to_le_bytes());
            elf.extend(1u64.to_le_bytes());
            elf.extend(entry.to_le_bytes());
        };
        header(0, 0, 0, 0, 0, 0, 0);
        header(1, 1, BASE, defmt_at, 256, 0, 0);
        header(8, 2, 0, symtab_at, symtab.len(), 3, elf64::SYMBOL_BYTES as u64);
        header(16, 3, 0, strtab_at, strtab.len(), 0, 0);
        elf
    }

    fn image() -> Image {
        let symbols = [
            (name("defmt_info", "cpu {=u8} is online"), BASE + 0x21),
            (name("defmt_warn", "late"), BASE + 0x22),
            ("_defmt_version_ = 4".into(), BASE + 1),
            ("_defmt_encoding_ = rzcobs".into(), BASE + 2),
        ];
        Image { path: "forged".into(), bytes: forged(&symbols) }
    }

    /// Short frames in the transport encoding: each byte that is 0 is a set bit of the code that follows.
    fn encoded(frame: &[u8]) -> Vec<u8> {
        assert!(frame.len() <= 7);
        let mut out: Vec<u8> = frame.iter().copied().filter(|b| *b != 0).collect();
        let zeroes = (0..7).filter(|&i| frame.get(i).is_none_or(|b| *b == 0)).fold(0, |code, i| code | 1 << i);
        // A code of all ones and a code of 0 do not occur in these tests.
        out.push(zeroes);
        out.push(0);
        out
    }

    #[test]
    fn frames_are_read_with_symbols_that_lie_high() {
        let bytes = [encoded(&[0x21, 0, 3]), encoded(&[0x22, 0])].concat();
        let lines = lines(&image(), &RingContents { bytes, lost: 0 }).unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("INFO") && lines[0].contains("cpu 3 is online"), "{lines:?}");
        assert!(lines[1].contains("WARN") && lines[1].contains("late"), "{lines:?}");
    }

    #[test]
    fn a_ring_that_wrapped_is_read_from_the_next_frame() {
        let bytes = [vec![0x55, 0], encoded(&[0x22, 0])].concat();
        let lines = lines(&image(), &RingContents { bytes, lost: 7 }).unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("7 bytes") && lines[1].contains("late"), "{lines:?}");
    }

    #[test]
    fn an_image_without_a_structured_log_has_none() {
        let image = Image { path: "plain".into(), bytes: forged(&[]) };
        assert!(lines(&image, &RingContents { bytes: vec![], lost: 0 }).unwrap().is_empty());
    }

    #[test]
    fn a_section_at_a_crooked_address_is_refused() {
        let mut bytes = image().bytes;
        let table = read_u64(&bytes, elf64::SECTION_OFFSET_FIELD).unwrap() as usize;
        let address = table + elf64::SECTION_BYTES + elf64::SECTION_ADDRESS;
        bytes[address..address + 8].copy_from_slice(&(BASE + 0x10).to_le_bytes());
        assert!(with_section_at_zero(&bytes).unwrap_err().to_string().contains("64 KiB"));
    }
}
