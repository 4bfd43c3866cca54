//! A real tree, then the same tree broken in every way that is cheap to try: never a panic, always a typed error where
//! it can not be what it was.

use std::vec::Vec;

use super::*;

/// `-M virt,gic-version=3,dtb-randomness=off,dumpdtb=… -smp 4 -cpu max -m 512`, cut to its contents.
const VIRT: &[u8] = include_bytes!("../../tests/data/virt-4.dtb");

#[test]
fn what_virt_is() {
    let found = read(VIRT).unwrap();
    assert_eq!(found.memory[..], [MemoryRegion { start: PhysAddr(0x4000_0000), end: PhysAddr(0x6000_0000) }]);
    assert_eq!(found.cpus[..], [0, 1, 2, 3]);
    assert_eq!(found.conduit, Conduit::Hvc);
    assert_eq!(found.uart, PhysAddr(0x0900_0000));
    assert_eq!(found.distributor, PhysAddr(0x0800_0000));
    assert_eq!(found.redistributors[..], [RedistributorRegion { start: PhysAddr(0x080a_0000), bytes: 0xf6_0000 }]);
    assert_eq!(found.command_line, "");
}

#[test]
fn what_follows_the_tree_does_not_matter() {
    let mut longer = VIRT.to_vec();
    longer.resize(1 << 20, 0xff);
    assert_eq!(read(&longer).unwrap().cpus.len(), 4);
}

#[test]
fn every_truncation_is_noticed() {
    for length in 0..VIRT.len() {
        let expected = if length < 40 {
            BlobError::NoHeader(length)
        } else {
            BlobError::Truncated { has: length, announced: VIRT.len() }
        };
        assert_eq!(read(&VIRT[..length]).unwrap_err(), TreeError::Blob(expected));
    }
}

/// The tree cut off, and its header made to agree: still noticed, now by its structure.
#[test]
fn every_truncation_that_the_header_hides_is_noticed() {
    for length in 40..VIRT.len() {
        let mut cut = VIRT[..length].to_vec();
        cut[4..8].copy_from_slice(&(length as u32).to_be_bytes());
        assert!(matches!(read(&cut), Err(TreeError::Blob(BlobError::Block { .. }))), "cut at {length}");
    }
}

/// Structure block shortened by the header: every length but the whole one ends early.
#[test]
fn every_shorter_structure_is_noticed() {
    let whole = u32::from_be_bytes(VIRT[36..40].try_into().unwrap());
    for length in 0..whole {
        let mut cut = VIRT.to_vec();
        cut[36..40].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(read(&cut), Err(TreeError::Blob(_))), "structure of {length} bytes");
    }
}

/// Each byte replaced by several others: an error or a different machine, but no panic.
#[test]
fn no_corrupted_byte_panics() {
    for at in 0..VIRT.len() {
        for change in [0x01, if at % 2 == 0 { 0x80 } else { 0xff }] {
            let mut broken = VIRT.to_vec();
            broken[at] ^= change;
            let _ = read(&broken);
        }
    }
}

/// Runs of bytes overwritten at pseudo-random places.
#[test]
fn no_corrupted_run_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..4_000 {
        let mut broken = VIRT.to_vec();
        for _ in 0..1 + next() % 4 {
            let at = next() as usize % broken.len();
            let end = (at + next() as usize % 16).min(broken.len());
            let with = next().to_be_bytes();
            broken[at..end].iter_mut().zip(with.iter().cycle()).for_each(|(byte, new)| *byte = *new);
        }
        let _ = read(&broken);
    }
}

/// Replaces the only occurrence of `old`, which has the length of `new`.
fn replaced(old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut tree = VIRT.to_vec();
    let at = tree.windows(old.len()).position(|window| window == old).expect("the text is in the tree");
    tree[at..at + new.len()].copy_from_slice(new);
    tree
}

#[test]
fn what_is_missing_is_named() {
    let gic = "GICv3 interrupt controller (use -M virt,gic-version=3)";
    for (tree, expected) in [
        (replaced(b"memory\0", b"nemory\0"), TreeError::Missing("memory")),
        (replaced(b"arm,pl011\0", b"arm,pl012\0"), TreeError::Missing("PL011 console")),
        (replaced(b"arm,gic-v3\0", b"arm,gic-v2\0"), TreeError::Missing(gic)),
        (replaced(b"hvc\0", b"hvx\0"), TreeError::NoPsci),
    ] {
        assert_eq!(read(&tree).err(), Some(expected));
    }
}

#[test]
fn a_single_cpu_needs_no_firmware_calls() {
    // Three of the four CPUs are no longer CPUs; QEMU names no method for a single one.
    let mut tree = VIRT.to_vec();
    let places: Vec<usize> =
        tree.windows(4).enumerate().filter(|(_, window)| window == b"cpu\0").map(|(at, _)| at).collect();
    for at in &places[1..] {
        tree[*at] = b'x';
    }
    assert_eq!(read(&tree).map(|found| found.cpus.len()), Ok(1));
}

#[test]
fn the_magic_number() {
    let mut tree = VIRT.to_vec();
    tree[0] = 0;
    assert_eq!(read(&tree).unwrap_err(), TreeError::Blob(BlobError::Magic(0x000d_feed)));
}
