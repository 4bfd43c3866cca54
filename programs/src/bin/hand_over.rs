//! Two processes that share a page: a client on the first CPU sends 64 KiB and a capability to a server on the second,
//! which looks at them, signals by what it was given, gives that back, and answers.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::{Info, Rights};
use runtime::first::{FREE, PRIORITY, PROCESS, Told};
use runtime::image::Image;
use runtime::kernel::{self, Limits};
use runtime::{call, check, check_telling, exit, must, program};

program!(start);

/// What the client has, each in a slot of its table.
const IMAGE: u64 = FREE;
const PAGE: u64 = FREE + 1;
const READY: u64 = FREE + 2;
const ENDPOINT: u64 = FREE + 3;
const GIFT: u64 = FREE + 4;
const SERVER: u64 = FREE + 5;
const THREAD: u64 = FREE + 6;
/// What the server has in its own: what to tell the client by, where it is called, and where a capability goes that
/// comes with a call.
const TELL: u64 = 0;
const CALLED: u64 = 1;
const GIVEN: u64 = 2;
/// What the server may use of the kernel's memory: out of the client's account.
const LIMITS: Limits = Limits { slots: 8, frames: 64, bytes: 64 << 10, spaces: 0 };
const BOTH: Rights = Rights::READ.union(Rights::WRITE);
/// Where both have the page, and where each has a message.
const SHARED: u64 = 0x50_0000_0000;
const BUFFER: u64 = 0x20_0000_0000;
const BYTES: u64 = 64 << 10;

fn start(argument: u64) -> u64 {
    let told = Told::by(argument);
    // A process that runs this program, too, with variables of its own; it has what it is given here.
    let image = must!(Image::new(PROCESS, IMAGE));
    must!(image.process(SERVER, LIMITS, PRIORITY));
    must!(kernel::make_frames(PAGE, 1));
    for process in [PROCESS, SERVER] {
        must!(kernel::map(process, PAGE, SHARED, 0, 4096, BOTH));
        must!(kernel::map_anonymous(process, BUFFER, BYTES, BOTH));
    }
    must!(kernel::make_notification(READY));
    must!(kernel::make_endpoint(ENDPOINT));
    must!(kernel::make_notification(GIFT));
    must!(kernel::grant(SERVER, TELL, READY, Rights::WRITE, 0));
    must!(kernel::grant(SERVER, CALLED, ENDPOINT, Rights::READ, 0));
    must!(image.start(SERVER, THREAD, server, 0, PRIORITY, 1 % told.cpus));
    // A check of the server's that fails is told by bits of the notification, too.
    let bits = must!(kernel::wait_for_bits(READY));
    if let Some(status) = runtime::failed(bits) {
        return status;
    }
    for op in 0..told.ops {
        for word in 0..BYTES / 8 {
            write(BUFFER + word * 8, op + word);
        }
        // The last two of six words say where a long message is, the fourth which capability goes with it.
        let words = [op, 0, 0, kernel::capability(GIFT, Rights::WRITE), BUFFER, BYTES];
        let answer = must!(kernel::call(ENDPOINT, Info::LONG | Info::CAPABILITY, words));
        check!(answer.words[0] == op + 1);
        check!(must!(kernel::wait_for_bits(GIFT)) == 1);
        check!(read(SHARED) == op + 1);
    }
    // It waits for the next call, and would for ever.
    must!(kernel::end(SERVER, exit::DONE));
    check!(must!(kernel::wait_for_end(SERVER)) == exit::DONE);
    exit::DONE
}

extern "C" fn server(_argument: u64) -> ! {
    check_telling!(TELL, kernel::set_buffer(BUFFER, BYTES, GIVEN).is_ok());
    check_telling!(TELL, kernel::signal(TELL, 1).is_ok());
    let mut received = kernel::wait(CALLED, Info::EXPECT_LONG);
    loop {
        let Ok(message) = received else { call::exit(exit::CHECK | u64::from(line!())) };
        let op = message.words[0];
        let whole = (0..BYTES / 8).all(|word| read(BUFFER + word * 8) == op + word);
        write(SHARED, op + 1);
        let signalled = kernel::signal(GIVEN, 1).is_ok() && kernel::delete(GIVEN).is_ok();
        let answer = if whole && signalled { op + 1 } else { 0 };
        received = kernel::reply_wait(CALLED, Info::EXPECT_LONG, [answer, 0, 0, 0, 0, 0]);
    }
}

fn write(at: u64, value: u64) {
    // SAFETY: mapped for as long as the processes run; what both see is read when it was written, as messages say.
    unsafe { (at as *mut u64).write_volatile(value) }
}

fn read(at: u64) -> u64 {
    // SAFETY: as above.
    unsafe { (at as *const u64).read_volatile() }
}
