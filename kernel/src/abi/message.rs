//! How a message lies in registers, when it is sent and when it is received.
//!
//! The first argument of [`super::Number::Call`], `ReplyWait` and `Wait` is a slot in its low half and an [`Info`] in
//! its high half; the six words behind it are the message. With [`Info::LONG`] the last two of them are the address (of
//! a page) and the length in bytes of a longer one; with [`Info::CAPABILITY`] the fourth is a slot in its low half and
//! rights in its high half. What is received looks the same: the first result is the sender's badge in its low half and
//! an [`Info`] in its high half; of a long message the last two words are where it lies and how long it is; of a
//! capability the fourth word is the slot.

/// Words of a message that go in registers.
pub const MESSAGE_WORDS: usize = 6;

/// Bytes of the longest message.
pub const MOST_BYTES: u64 = 1 << 20;

/// Which word names a capability.
pub const CAPABILITY_WORD: usize = 3;
/// Which word is the address of a long message.
pub const ADDRESS_WORD: usize = 4;
/// Which word is its length in bytes.
pub const BYTES_WORD: usize = 5;

bitflags::bitflags! {
    /// What a message consists of beside its words.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Info: u32 {
        /// A longer message lies in memory.
        const LONG = 1;
        /// A capability goes with it.
        const CAPABILITY = 2;
        /// Whoever receives takes a long message, into the buffer that was set. Pages are pinned for it.
        const EXPECT_LONG = 4;
        /// Of an answer: do not wait until a long one has arrived; if it does not, only its receiver is told.
        const UNCONFIRMED = 8;
    }
}

/// The slot and the info of a first argument, or the badge and the info of a first result. `None`: there are bits that
/// mean nothing.
pub fn unpack(word: u64) -> Option<(u32, Info)> {
    Some((word as u32, Info::from_bits((word >> 32) as u32)?))
}

/// Both in one word.
pub fn pack(low: u32, info: Info) -> u64 {
    u64::from(low) | u64::from(info.bits()) << 32
}
