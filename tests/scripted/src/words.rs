//! What programs say and hear: messages as values, and memory with stamps in it.

use kernel::abi::message::{ADDRESS_WORD, BYTES_WORD, Info, pack, unpack};
use kernel::abi::{Number, Status, WORDS};
use kernel::addr::{PAGE_SIZE, VirtAddr};

use crate::User;

/// The oracle's tag is in the first word of a page that was just allocated; programs of these tests use the others.
const WORD: u64 = 8;

/// A system call's answer, understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// How it ended.
    pub status: Status,
    /// Of a message: the badge, and what else there is.
    pub badge: u32,
    /// See above.
    pub info: Info,
    /// Its words.
    pub words: [u64; 6],
}

/// Understands `answer`.
pub fn heard(answer: [u64; WORDS]) -> Heard {
    let status = Status::from_number(answer[0]).expect("an answer begins with a status");
    let (badge, info) = unpack(answer[1]).expect("the kernel sets bits that it knows");
    let words = std::array::from_fn(|i| answer[i + 2]);
    Heard { status, badge, info, words }
}

/// Sends six words by `number` to `slot`.
pub fn send(user: &User<'_>, number: Number, slot: u64, info: Info, words: [u64; 6]) -> Heard {
    let mut arguments = [0; 7];
    arguments[0] = pack(slot as u32, info);
    arguments[1..].copy_from_slice(&words);
    heard(user.ask(number, &arguments))
}

/// Words that say that `bytes` from `at` go with them.
pub fn long(at: VirtAddr, bytes: u64) -> [u64; 6] {
    let mut words = [0; 6];
    (words[ADDRESS_WORD], words[BYTES_WORD]) = (at.0, bytes);
    words
}

/// Writes `stamp` into every page of `bytes` from `at` on, at its beginning and at its end.
pub fn fill(user: &User<'_>, at: VirtAddr, bytes: u64, stamp: u64) {
    for page in 0..bytes.div_ceil(PAGE_SIZE) {
        let start = at.add(page * PAGE_SIZE);
        user.write(start.add(WORD), stamp << 16 | page);
        user.write(start.add(PAGE_SIZE - 8), stamp << 16 | page);
    }
}

/// What `bytes` from `at` on are stamped with: page by page, at the beginning and at the end. 0 for what was never
/// written.
pub fn stamps(user: &User<'_>, at: VirtAddr, bytes: u64) -> Vec<(u64, u64)> {
    let stamp = |at: VirtAddr, page: u64| {
        let value = user.read(at);
        assert!(value == 0 || value & 0xffff == page, "page {page} has what belongs to page {}", value & 0xffff);
        value >> 16
    };
    let pages = 0..bytes.div_ceil(PAGE_SIZE);
    let each = |page: u64| {
        let start = at.add(page * PAGE_SIZE);
        (stamp(start.add(WORD), page), stamp(start.add(PAGE_SIZE - 8), page))
    };
    pages.map(each).collect()
}
