//! Is this a well-formed flattened devicetree?
//!
//! The parser in use trusts its input: a truncated or corrupted tree makes it index out of bounds or panic. So the
//! whole blob is walked once here before the parser sees it, and everything that the parser relies on is checked: the
//! header's offsets, the nesting of the nodes, that every name ends, that every property lies inside. What passes can
//! be parsed; what it *means* is checked by [`super`].
//!
//! Stricter than the specification in two places, because the parser is: no padding tokens (`FDT_NOP`), and names in
//! UTF-8.

/// Why the bytes are no devicetree.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlobError {
    /// Fewer bytes than a header has.
    #[error("devicetree: only {0} bytes, too few for a header")]
    NoHeader(usize),
    /// The first word is not the magic number.
    #[error("devicetree: magic number {0:#x}, expected 0xd00dfeed")]
    Magic(u32),
    /// The header announces more bytes than there are.
    #[error("devicetree: truncated, {has} bytes of {announced}")]
    Truncated {
        /// Bytes there are.
        has: usize,
        /// Bytes the header announces.
        announced: usize,
    },
    /// A block of the header lies outside the blob, or is not aligned.
    #[error("devicetree: the {block} block ({offset:#x}, {bytes:#x} bytes) is not within the tree")]
    Block {
        /// Which one.
        block: &'static str,
        /// Its offset.
        offset: usize,
        /// Its size.
        bytes: usize,
    },
    /// The structure block ends in the middle of something.
    #[error("devicetree: the structure ends early, at offset {0:#x}")]
    EndsEarly(usize),
    /// An unknown token, or one that must not come here.
    #[error("devicetree: unexpected token {token:#x} at offset {at:#x} of the structure")]
    Token {
        /// The token.
        token: u32,
        /// Where in the structure block.
        at: usize,
    },
    /// A name that does not end, or is not UTF-8.
    #[error("devicetree: bad name at offset {0:#x}")]
    Name(usize),
    /// More levels than any real tree has.
    #[error("devicetree: nodes nested more than {MAX_DEPTH} deep at offset {0:#x}")]
    TooDeep(usize),
    /// A property that must hold a 32-bit number is shorter.
    #[error("devicetree: a cell count of {1} bytes at offset {0:#x}")]
    CellCount(usize, usize),
}

/// The deepest nesting that is accepted; QEMU's trees have five levels.
pub const MAX_DEPTH: usize = 32;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_BYTES: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// Checks the blob at the start of `bytes` and returns exactly its bytes.
pub fn check(bytes: &[u8]) -> Result<&[u8], BlobError> {
    if bytes.len() < HEADER_BYTES {
        return Err(BlobError::NoHeader(bytes.len()));
    }
    let header = |word: usize| be32(bytes, 4 * word).map_or(0, |value| value as usize);
    if header(0) != MAGIC as usize {
        return Err(BlobError::Magic(header(0) as u32));
    }
    let announced = header(1);
    if announced < HEADER_BYTES || announced > bytes.len() {
        return Err(BlobError::Truncated { has: bytes.len(), announced });
    }
    let blob = &bytes[..announced];
    let block = |name, offset: usize, bytes: usize| {
        let aligned = offset.is_multiple_of(4);
        blob.get(offset..offset + bytes).filter(|_| aligned || name == "strings").ok_or(BlobError::Block {
            block: name,
            offset,
            bytes,
        })
    };
    let structure = block("structure", header(2), header(9))?;
    let strings = block("strings", header(3), header(8))?;
    check_structure(structure, strings)?;
    Ok(blob)
}

fn check_structure(structure: &[u8], strings: &[u8]) -> Result<(), BlobError> {
    let mut at = 0;
    let mut depth = 0;
    // Properties precede the children of their node.
    let mut properties_allowed = false;
    let mut root_seen = false;
    loop {
        let token = be32(structure, at).ok_or(BlobError::EndsEarly(at))?;
        let here = at;
        at += 4;
        match token {
            BEGIN_NODE if depth > 0 || !root_seen => {
                root_seen = true;
                let name = text(structure, at).ok_or(BlobError::Name(at))?;
                at = skip(structure, at, name.len() + 1)?;
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(BlobError::TooDeep(here));
                }
                properties_allowed = true;
            }
            PROPERTY if depth > 0 && properties_allowed => {
                let bytes = be32(structure, at).ok_or(BlobError::EndsEarly(at))? as usize;
                let name_at = be32(structure, at + 4).ok_or(BlobError::EndsEarly(at))? as usize;
                let name = text(strings, name_at).ok_or(BlobError::Name(here))?;
                if matches!(name, "#address-cells" | "#size-cells") && bytes < 4 {
                    return Err(BlobError::CellCount(here, bytes));
                }
                at = skip(structure, at + 8, bytes)?;
            }
            END_NODE if depth > 0 => {
                depth -= 1;
                properties_allowed = false;
            }
            END if depth == 0 && root_seen => return Ok(()),
            token => return Err(BlobError::Token { token, at: here }),
        }
    }
}

/// The offset after `bytes` bytes from `at` and their padding, if that is still inside.
fn skip(structure: &[u8], at: usize, bytes: usize) -> Result<usize, BlobError> {
    let end = (at + bytes).next_multiple_of(4);
    if end > structure.len() { Err(BlobError::EndsEarly(at)) } else { Ok(end) }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// The zero-terminated UTF-8 string at `at`.
fn text(bytes: &[u8], at: usize) -> Option<&str> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    core::str::from_utf8(&rest[..end]).ok()
}
