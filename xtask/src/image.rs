//! The bootable image as an ELF file: where a symbol lies in physical memory.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};

/// An image, read into memory.
pub(crate) struct Image {
    /// Where it was read from.
    pub(crate) path: PathBuf,
    /// The file.
    pub(crate) bytes: Vec<u8>,
}

impl Image {
    /// Reads the image at `path`.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Image> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read the image {}", path.display()))?;
        Ok(Image { path: path.to_owned(), bytes })
    }

    /// The address of a symbol, as the program sees it.
    pub(crate) fn virtual_address(&self, symbol: &str) -> anyhow::Result<u64> {
        let found = self.elf()?.symbols().find(|s| s.name() == Ok(symbol)).map(|s| s.address());
        found.ok_or_else(|| anyhow!("{} has no symbol {symbol}: it is no image of this kernel", self.path.display()))
    }

    /// The physical address of a symbol.
    pub(crate) fn physical_address(&self, symbol: &str) -> anyhow::Result<u64> {
        let address = self.virtual_address(symbol)?;
        let elf = self.elf()?;
        let endian = elf.endian();
        let segments = elf.elf_program_headers().iter().filter(|h| h.p_type(endian) == object::elf::PT_LOAD);
        let spans =
            segments.map(|h| Span { start: h.p_vaddr(endian), bytes: h.p_memsz(endian), physical: h.p_paddr(endian) });
        to_physical(spans, address)
            .ok_or_else(|| anyhow!("no segment of {} holds {symbol} ({address:#x})", self.path.display()))
    }

    /// How many functions have `part` in their mangled names: `6oracle` for those of a module `oracle`.
    pub(crate) fn functions_of(&self, part: &str) -> anyhow::Result<usize> {
        let named =
            |s: &object::read::elf::ElfSymbol64<'_, '_, Endianness>| s.name().is_ok_and(|name| name.contains(part));
        Ok(self.elf()?.symbols().filter(|s| s.kind() == object::SymbolKind::Text && named(s)).count())
    }

    fn elf(&self) -> anyhow::Result<ElfFile64<'_, Endianness>> {
        ElfFile64::parse(&*self.bytes).with_context(|| format!("{} is not a 64-bit ELF file", self.path.display()))
    }
}

/// One loaded segment.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    bytes: u64,
    physical: u64,
}

fn to_physical(spans: impl Iterator<Item = Span>, address: u64) -> Option<u64> {
    spans
        .filter(|s| address.checked_sub(s.start).is_some_and(|offset| offset < s.bytes))
        .map(|s| address - s.start + s.physical)
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_translated_by_the_segment_that_holds_it() {
        let spans = [
            Span { start: 0x10_0000, bytes: 0x1000, physical: 0x10_0000 },
            Span { start: 0xffff_ffff_8020_0000, bytes: 0x4000, physical: 0x20_0000 },
        ];
        let find = |a| to_physical(spans.into_iter(), a);
        assert_eq!(find(0xffff_ffff_8020_3fff), Some(0x20_3fff));
        assert_eq!(find(0xffff_ffff_8020_4000), None);
        assert_eq!(find(0x10_0010), Some(0x10_0010));
        assert_eq!(find(0), None);
    }
}
