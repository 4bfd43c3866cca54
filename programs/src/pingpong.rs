//! A client and a server, of one process or of two: calls of six words, each answered with its words turned around.

use crate::abi::{Info, Number, Rights, Status};
use crate::first::{FREE, PRIORITY, PROCESS, Told};
use crate::image::Image;
use crate::kernel::{self, Begin, Limits};
use crate::{call, exit};

const ENDPOINT: u64 = FREE;
const SERVER: u64 = FREE + 1;
const STACK: u64 = 0x30_0000_0000;
const STACK_BYTES: u64 = 16384;
/// Where the client has a long message, and where the server takes it.
const OUT: u64 = 0x20_0000_0000;
const IN: u64 = 0x21_0000_0000;
/// What the client says last.
const LAST: u64 = u64::MAX;

/// The program as memory, and the server's process, where it is not the client's.
const IMAGE: u64 = FREE + 2;
const APART: u64 = FREE + 3;
const LIMITS: Limits = Limits { slots: FREE + 1, frames: 0, bytes: 0, spaces: 0 };

/// Makes as many calls as `argument` says, to a server on CPU `cpu`. The line of what was not as it must be.
pub fn between(argument: u64, cpu: u64) -> Result<(), u32> {
    let told = Told::by(argument);
    if cpu >= told.cpus {
        return Err(line!());
    }
    let all = Rights::READ | Rights::WRITE;
    kernel::map_anonymous(PROCESS, STACK, STACK_BYTES, all).map_err(|_| line!())?;
    kernel::make_endpoint(ENDPOINT).map_err(|_| line!())?;
    let entry = serve as extern "C" fn(u64) -> ! as usize as u64;
    let begin = Begin { entry, stack: STACK + STACK_BYTES, argument: 0, priority: PRIORITY, cpu };
    kernel::make_thread(PROCESS, SERVER, begin).map_err(|_| line!())?;
    talk(told)
}

/// The same, to a server in another process, on CPU 0.
pub fn apart(argument: u64) -> Result<(), u32> {
    kernel::make_endpoint(ENDPOINT).map_err(|_| line!())?;
    let image = Image::new(PROCESS, IMAGE).map_err(|_| line!())?;
    image.process(APART, LIMITS, PRIORITY).map_err(|_| line!())?;
    kernel::grant(APART, ENDPOINT, ENDPOINT, Rights::READ, 0).map_err(|_| line!())?;
    image.start(APART, SERVER, serve, 0, PRIORITY, 0).map_err(|_| line!())?;
    talk(Told::by(argument))
}

fn talk(told: Told) -> Result<(), u32> {
    for n in 0..told.ops {
        // As it is, since what the program does is counted too.
        let [status, _, a, b, c, d, e, f] = call::raw(Number::Call as u64, [ENDPOINT, n, 1, 2, 3, 4, 5]);
        if status | a ^ 5 | b ^ 4 | c ^ 3 | d ^ 2 | e ^ 1 | f ^ n != Status::Done as u64 {
            return Err(line!());
        }
    }
    let last = kernel::call(ENDPOINT, Info::empty(), [LAST, 0, 0, 0, 0, 0]).map_err(|_| line!())?;
    if last.words[0] != told.ops {
        return Err(line!());
    }
    // The server waits for the next call, and would for ever.
    kernel::end(PROCESS, exit::DONE).map_err(|_| line!())
}

/// Makes as many calls with a message of `bytes` bytes, whose first and last word the server looks at, and has a short
/// answer to each. The line of what was not as it must be.
pub fn long(argument: u64, bytes: u64) -> Result<(), u32> {
    let told = Told::by(argument);
    let all = Rights::READ | Rights::WRITE;
    kernel::map_anonymous(PROCESS, STACK, STACK_BYTES, all).map_err(|_| line!())?;
    kernel::map_anonymous(PROCESS, OUT, bytes, all).map_err(|_| line!())?;
    kernel::map_anonymous(PROCESS, IN, bytes, all).map_err(|_| line!())?;
    kernel::make_endpoint(ENDPOINT).map_err(|_| line!())?;
    for at in (0..bytes).step_by(8) {
        write(OUT + at, at);
    }
    let entry = serve_long as extern "C" fn(u64) -> ! as usize as u64;
    let begin = Begin { entry, stack: STACK + STACK_BYTES, argument: bytes, priority: PRIORITY, cpu: 0 };
    kernel::make_thread(PROCESS, SERVER, begin).map_err(|_| line!())?;
    for n in 0..told.ops {
        write(OUT, n);
        write(OUT + bytes - 8, !n);
        let answer = kernel::call(ENDPOINT, Info::LONG, [n, 0, 0, 0, OUT, bytes]).map_err(|_| line!())?;
        if answer.words[0] != n {
            return Err(line!());
        }
    }
    kernel::end(PROCESS, exit::DONE).map_err(|_| line!())
}

fn write(at: u64, value: u64) {
    // SAFETY: mapped by `long`, before; the kernel copies it when this thread waits.
    unsafe { (at as *mut u64).write_volatile(value) }
}

fn read(at: u64) -> u64 {
    // SAFETY: mapped by `long`, before; the kernel writes there when this thread waits.
    unsafe { (at as *const u64).read_volatile() }
}

extern "C" fn serve_long(bytes: u64) -> ! {
    if kernel::set_buffer(IN, bytes, u64::MAX).is_err() {
        call::exit(exit::CHECK | u64::from(line!()))
    }
    let mut received = kernel::wait(ENDPOINT, Info::EXPECT_LONG);
    loop {
        let Ok(message) = received else { call::exit(exit::CHECK | u64::from(line!())) };
        let n = message.words[0];
        let good = message.words[5] == bytes && read(IN) == n && read(IN + bytes - 8) == !n;
        received = kernel::reply_wait(ENDPOINT, Info::EXPECT_LONG, [if good { n } else { LAST }, 0, 0, 0, 0, 0]);
    }
}

extern "C" fn serve(_argument: u64) -> ! {
    let mut answered = 0;
    let mut received = call::raw(Number::Wait as u64, [ENDPOINT, 0, 0, 0, 0, 0, 0]);
    loop {
        let [status, _, a, b, c, d, e, f] = received;
        if status != Status::Done as u64 {
            call::exit(exit::CHECK | u64::from(line!()))
        }
        // The last answer says how many there were.
        let f = if a == LAST { answered } else { f };
        answered += 1;
        received = call::raw(Number::ReplyWait as u64, [ENDPOINT, f, e, d, c, b, a]);
    }
}
