//! A guest panic: its backtrace with functions, files and lines.

use std::borrow::Cow;

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use anyhow::Context as _;
use object::{Object, ObjectSection};

use crate::build::repository;
use crate::image::Image;

/// A backtrace as text, innermost first; an address that the image does not explain stays a number.
pub(crate) fn backtrace(image: &Image, addresses: &[u64]) -> Vec<String> {
    symbolised(image, addresses)
        .unwrap_or_else(|_| addresses.iter().enumerate().map(|(i, a)| format!("{i:>2}: {a:#x}")).collect())
}

fn symbolised(image: &Image, addresses: &[u64]) -> anyhow::Result<Vec<String>> {
    let elf = object::File::parse(&*image.bytes).context("the image is not an ELF file")?;
    let section = |id: gimli::SectionId| -> Result<Cow<'_, [u8]>, gimli::Error> {
        let data = elf.section_by_name(id.name()).and_then(|s| s.uncompressed_data().ok());
        Ok(data.unwrap_or(Cow::Borrowed(&[])))
    };
    let sections = gimli::DwarfSections::load(section)?;
    let dwarf = sections.borrow(|data| EndianSlice::new(data, LittleEndian));
    let context = addr2line::Context::from_dwarf(dwarf).context("the image's debug information is damaged")?;
    let symbols = elf.symbol_map();
    let mut frames: Vec<Vec<String>> = Vec::new();
    for &address in addresses {
        // A return address is the instruction after the call.
        let mut lines = explain(&context, address.saturating_sub(1))?;
        if lines.is_empty() {
            let symbol = symbols.get(address).map(|s| addr2line::demangle_auto(s.name().into(), None).into_owned());
            lines.push(symbol.unwrap_or_else(|| format!("{address:#x}")));
        }
        frames.push(lines);
    }
    Ok(numbered(&frames))
}

/// Numbers the frames; a recursion takes one line.
fn numbered(frames: &[Vec<String>]) -> Vec<String> {
    let mut out = Vec::new();
    let mut depth = 0;
    while depth < frames.len() {
        let same = frames[depth..].iter().take_while(|f| **f == frames[depth]).count();
        for (i, line) in frames[depth].iter().enumerate() {
            out.push(if i == 0 { format!("{depth:>2}: {line}") } else { format!("    {line}") });
        }
        if same > 1 {
            out.push(format!("    ... and the same {} more times", same - 1));
        }
        depth += same;
    }
    out
}

/// The function at an address and those it is inlined into, innermost first.
fn explain<R: gimli::Reader>(context: &addr2line::Context<R>, address: u64) -> anyhow::Result<Vec<String>> {
    let mut frames = context.find_frames(address).skip_all_loads()?;
    let mut lines = Vec::new();
    while let Some(frame) = frames.next()? {
        let function = frame.function.as_ref().and_then(|f| f.demangle().ok().map(Cow::into_owned));
        let Some(function) = function else { continue };
        let place = frame.location.as_ref().and_then(|l| Some((l.file?, l.line.unwrap_or(0))));
        let place = place.map_or(String::new(), |(file, line)| format!(" at {}:{line}", short(file)));
        lines.push(format!("{function}{place}"));
    }
    Ok(lines)
}

/// A path as seen from the repository.
fn short(file: &str) -> &str {
    file.strip_prefix(&*repository().to_string_lossy()).map_or(file, |rest| rest.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_debug_information_leaves_numbers() {
        let image = Image { path: "none".into(), bytes: vec![1, 2, 3] };
        assert_eq!(backtrace(&image, &[0x1000, 0xffff_ffff_8020_0000]), [" 0: 0x1000", " 1: 0xffffffff80200000"]);
    }

    #[test]
    fn a_recursion_takes_one_line() {
        let frame = |name: &str| vec![name.to_owned(), "caller".to_owned()];
        let frames = [frame("a"), frame("down"), frame("down"), frame("down"), frame("z")];
        let expected = [
            " 0: a",
            "    caller",
            " 1: down",
            "    caller",
            "    ... and the same 2 more times",
            " 4: z",
            "    caller",
        ];
        assert_eq!(numbered(&frames), expected);
    }

    /// This test program explains itself: it is an ELF file with debug information.
    #[test]
    fn an_address_of_this_program_is_explained() {
        let path = std::env::current_exe().unwrap();
        let image = Image::open(&path).unwrap();
        let address = image.virtual_address("main").unwrap();
        let lines = symbolised(&image, &[address + 1]).unwrap();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with(" 0: "), "{lines:?}");
    }

    #[test]
    fn paths_are_shown_from_the_repository() {
        let inside = repository().join("kernel/src/boot.rs");
        assert_eq!(short(inside.to_str().unwrap()), "kernel/src/boot.rs");
        assert_eq!(short("/rustc/library/core/src/panicking.rs"), "/rustc/library/core/src/panicking.rs");
    }
}
