//! Servers: programs of the module that another program starts, and that answer its calls.
//!
//! Whoever starts one gives it three capabilities: to its own process, to the endpoint where it receives, and to the
//! notification by which it tells of a check that failed. A call is six words, the first of which says what is asked
//! for; the answer's first is a [`Status`]. A capability that goes with a call lies in the slot that the server has
//! chosen for the next one.

use crate::abi::{Info, Rights, Status};
use crate::kernel::{self, Begin, Limits, Received, Words};
use crate::{call, exit};

/// Slots of a server's own table: its process,
pub const OWN: u64 = 0;
/// the endpoint,
pub const ENDPOINT: u64 = 1;
/// the notification of who started it,
pub const TELL: u64 = 2;
/// and the first that is empty.
pub const FREE: u64 = 3;
/// How many it has.
pub const SLOTS: u64 = 128;

/// What every server takes: it ends. The caller is told [`Status::Unanswered`].
pub const STOP: u64 = 1;

/// What servers may use, each.
const LIMITS: Limits = Limits { slots: SLOTS, frames: 8192, bytes: 1 << 20, spaces: 0 };
const STACK: u64 = 0x7000_0000_0000;
const STACK_BYTES: u64 = 32 << 10;

/// A server, as whoever started it sees it: slots of that table.
#[derive(Clone, Copy)]
pub struct Server {
    /// Its process.
    pub process: u64,
    /// Its thread.
    pub thread: u64,
    /// Where it is called.
    pub endpoint: u64,
}

impl Server {
    /// How many slots a server takes.
    pub const STEP: u64 = 3;

    /// Starts program `name` of `module`, with three slots from `at` on. `tell` is a notification.
    pub fn start(
        name: &str,
        module: u64,
        at: u64,
        tell: u64,
        priority: u8,
        cpu: u64,
        argument: u64,
    ) -> Result<Server, Status> {
        let server = Server { process: at, thread: at + 1, endpoint: at + 2 };
        kernel::make_endpoint(server.endpoint)?;
        kernel::make_process(server.process, LIMITS, priority)?;
        let entry = kernel::load(server.process, module, name)?;
        let stack = STACK - STACK_BYTES;
        kernel::map_anonymous(server.process, stack, STACK_BYTES, Rights::READ | Rights::WRITE)?;
        kernel::grant(server.process, OWN, server.process, Rights::all(), 0)?;
        kernel::grant(server.process, ENDPOINT, server.endpoint, Rights::all(), 0)?;
        kernel::grant(server.process, TELL, tell, Rights::WRITE, 0)?;
        kernel::make_thread(server.process, server.thread, Begin { entry, stack: STACK, argument, priority, cpu })?;
        Ok(server)
    }

    /// Asks for something, and for all but the status of the answer.
    pub fn ask(&self, words: Words) -> Result<Words, Status> {
        answered(kernel::call(self.endpoint, Info::empty(), words)?)
    }

    /// The same, with a capability to what is in `slot`; it goes into word 3.
    pub fn ask_with(&self, mut words: Words, slot: u64, rights: Rights) -> Result<Words, Status> {
        words[crate::abi::message::CAPABILITY_WORD] = kernel::capability(slot, rights);
        answered(kernel::call(self.endpoint, Info::CAPABILITY, words)?)
    }

    /// Ends it, and says what it ended with.
    pub fn stop(&self) -> Result<u64, Status> {
        match kernel::call(self.endpoint, Info::empty(), [STOP, 0, 0, 0, 0, 0]) {
            Err(Status::Unanswered) => kernel::ended(self.thread)?.ok_or(Status::Busy),
            Err(error) => Err(error),
            // Not what was asked for.
            Ok(_) => Err(Status::BadArgument),
        }
    }
}

/// An answer, unless its status is an error.
pub fn answered(answer: Received) -> Result<Words, Status> {
    match Status::from_number(answer.words[0]) {
        Some(Status::Done) => Ok(answer.words),
        error => Err(error.unwrap_or(Status::BadNumber)),
    }
}

/// What a server does with a call: the words of its answer, and with them a capability if the fourth word names one.
pub struct Answer {
    /// What it consists of.
    pub info: Info,
    /// Its words.
    pub words: Words,
}

impl Answer {
    /// Words alone.
    pub const fn of(words: Words) -> Answer {
        Answer { info: Info::empty(), words }
    }
}

impl From<Result<(), Status>> for Answer {
    fn from(result: Result<(), Status>) -> Answer {
        Answer::of([result.err().map_or(0, |error| error as u64), 0, 0, 0, 0, 0])
    }
}

/// Receives calls and answers them, until [`STOP`]. With a `patience`, in ticks, `meanwhile` is called whenever so much
/// time has gone by without a call. Returns the exit status.
pub fn serve(patience: u64, mut answer: impl FnMut(&Received) -> Answer, mut meanwhile: impl FnMut()) -> u64 {
    if kernel::set_patience(patience).is_err() {
        return exit::CHECK | u64::from(line!());
    }
    let mut received = kernel::wait(ENDPOINT, Info::empty());
    loop {
        received = match received {
            Ok(message) if message.words[0] == STOP => return exit::DONE,
            Ok(message) => {
                let Answer { info, words } = answer(&message);
                kernel::reply_wait(ENDPOINT, info, words)
            }
            Err(Status::TimedOut) => {
                meanwhile();
                kernel::wait(ENDPOINT, Info::empty())
            }
            // Whoever asked is gone, or would not take the answer.
            Err(Status::NobodyWaits | Status::Undelivered | Status::Unanswered | Status::TooLong) => {
                kernel::wait(ENDPOINT, Info::empty())
            }
            Err(_) => return exit::CHECK | u64::from(line!()),
        };
    }
}

/// Says by [`TELL`] that a check failed, and ends.
pub fn give_up(line: u32) -> ! {
    let _ = kernel::signal(TELL, u64::from(line) << 40);
    call::exit(exit::CHECK | u64::from(line))
}
