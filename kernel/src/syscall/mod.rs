//! System calls: eight words in, eight words out.
//!
//! [`decode::decode`] turns words into a [`decode::Request`], in which every field has its type and its range;
//! `perform` does it, with the capabilities of the calling process and with nothing else. Whatever the words are, one
//! of three things happens: an answer, which begins with a status; a wait; the thread's end. What may take long makes
//! room for others on the way ([`Outcome::Later`], `later`). The table of numbers is [`crate::abi::number`].

pub mod decode;
mod later;
mod perform;

use alloc::sync::Arc;

use crate::abi::WORDS;
use crate::arch::Arch;
use crate::ipc::exchange::Outcome;
use crate::object::thread::Thread;
use crate::smp::cpu::Cpu;

pub use self::later::go_on;

/// Does what `thread`, whose mm is loaded, asks for.
pub fn handle<A: Arch>(cpu: &'static Cpu<A>, thread: &Arc<Thread<A>>, words: [u64; WORDS]) -> Outcome {
    let outcome = decode::decode(words).and_then(|request| perform::perform(cpu, thread, request));
    outcome.unwrap_or_else(Outcome::from)
}
