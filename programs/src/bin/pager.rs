//! The pager: demand paging, and copy on write, through messages. The kernel calls it when a thread touches what is not
//! mapped, or not mapped for that; it maps a page of the template for reading, or copies it and maps the copy for
//! writing; then the kernel lets the thread try again.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::abi::{Access, FAULT, FAULT_HANDLED, Info, Rights, Status};
use runtime::kernel::{self, Received};
use runtime::pager::{FORGET, MOST, PAGES, SERVE, template};
use runtime::program;
use runtime::server::{self, Answer, FREE, OWN};

program!(start);

const PAGE: u64 = 4096;
/// Slots: the template, the next capability that comes, and of each client its process and its own pages.
const TEMPLATE: u64 = FREE;
const LANDING: u64 = FREE + 1;
const CLIENTS: u64 = FREE + 2;
/// Where the template is mapped here, and where the pages of each client.
const HERE: u64 = 0x50_0000_0000;
const THEIRS: u64 = 0x51_0000_0000;
const BOTH: Rights = Rights::READ.union(Rights::WRITE);

/// What is known of a client: where its copy begins (0: there is none), and one bit for each page that is mapped for
/// reading, and for writing.
struct Client {
    at: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

static CLIENTS_KNOWN: [Client; MOST as usize] =
    [const { Client { at: AtomicU64::new(0), read: AtomicU64::new(0), written: AtomicU64::new(0) } }; MOST as usize];

fn start(_argument: u64) -> u64 {
    if set_up().is_err() {
        server::give_up(line!());
    }
    server::serve(0, answer, || {})
}

fn set_up() -> Result<(), Status> {
    kernel::make_frames(TEMPLATE, PAGES)?;
    kernel::map(OWN, TEMPLATE, HERE, 0, PAGES * PAGE, BOTH)?;
    for page in 0..PAGES {
        for word in 0..PAGE / 8 {
            // SAFETY: mapped above, and nobody else's yet.
            unsafe { ((HERE + page * PAGE + word * 8) as *mut u64).write_volatile(template(page, word)) };
        }
    }
    kernel::set_buffer(0, 0, LANDING)
}

fn process(client: u64) -> u64 {
    CLIENTS + 2 * (client - 1)
}

fn pages(client: u64) -> u64 {
    CLIENTS + 2 * (client - 1) + 1
}

/// Where the client's own pages are mapped here.
fn window(client: u64) -> u64 {
    THEIRS + (client - 1) * 2 * PAGES * PAGE
}

fn known(client: u64) -> Option<&'static Client> {
    CLIENTS_KNOWN.get(usize::try_from(client.checked_sub(1)?).ok()?)
}

fn answer(message: &Received) -> Answer {
    let [request, client, at, ..] = message.words;
    match request {
        FAULT => {
            let [_, at, access, ..] = message.words;
            let handled = fault(message.badge.into(), at, access);
            Answer::of([if handled.is_ok() { FAULT_HANDLED } else { FAULT_HANDLED + 1 }, 0, 0, 0, 0, 0])
        }
        SERVE => begin(client, at, message.info).into(),
        FORGET => match forget(client) {
            Ok((read, written)) => Answer::of([Status::Done as u64, read, written, 0, 0, 0]),
            Err(error) => Err(error).into(),
        },
        _ => Err(Status::BadNumber).into(),
    }
}

fn begin(number: u64, at: u64, info: Info) -> Result<(), Status> {
    let client = known(number).filter(|client| client.at.load(Ordering::Relaxed) == 0).ok_or(Status::BadArgument)?;
    if !info.contains(Info::CAPABILITY) || at == 0 || !at.is_multiple_of(PAGE) {
        return Err(Status::BadArgument);
    }
    kernel::copy(LANDING, process(number), Rights::MANAGE, 0)?;
    kernel::delete(LANDING)?;
    kernel::make_frames(pages(number), PAGES)?;
    kernel::map(OWN, pages(number), window(number), 0, PAGES * PAGE, BOTH)?;
    client.read.store(0, Ordering::Relaxed);
    client.written.store(0, Ordering::Relaxed);
    client.at.store(at, Ordering::Relaxed);
    Ok(())
}

/// Makes the page at `at` present for `access`.
fn fault(number: u64, at: u64, access: u64) -> Result<(), Status> {
    let client = known(number).ok_or(Status::BadArgument)?;
    let start = client.at.load(Ordering::Relaxed);
    let page = at.checked_sub(start).map(|offset| offset / PAGE).filter(|page| *page < PAGES && start != 0);
    let page = page.ok_or(Status::NotMapped)?;
    let (bit, at) = (1 << page, start + page * PAGE);
    let (read, written) = (client.read.load(Ordering::Relaxed), client.written.load(Ordering::Relaxed));
    if written & bit != 0 {
        // Another thread of it was here first: the page is there.
        return Ok(());
    }
    if access != Access::Write as u64 {
        if read & bit == 0 {
            kernel::map(process(number), TEMPLATE, at, page * PAGE, PAGE, Rights::READ)?;
            client.read.store(read | bit, Ordering::Relaxed);
        }
        return Ok(());
    }
    for word in 0..PAGE / 8 {
        let offset = page * PAGE + word * 8;
        // SAFETY: both are mapped here, and the client does not have its page yet.
        unsafe { ((window(number) + offset) as *mut u64).write_volatile(*((HERE + offset) as *const u64)) };
    }
    if read & bit != 0 {
        kernel::unmap(process(number), at)?;
    }
    kernel::map(process(number), pages(number), at, page * PAGE, PAGE, BOTH)?;
    client.written.store(written | bit, Ordering::Relaxed);
    Ok(())
}

/// How many pages it read and wrote; both is both.
fn forget(number: u64) -> Result<(u64, u64), Status> {
    let client = known(number).filter(|client| client.at.swap(0, Ordering::Relaxed) != 0).ok_or(Status::BadArgument)?;
    // Its own pages go wherever they are mapped.
    kernel::delete(pages(number))?;
    // Who made the process may have ended it, and with it every capability to it.
    match kernel::delete(process(number)) {
        Ok(()) | Err(Status::NoCapability | Status::Gone) => {}
        Err(error) => return Err(error),
    }
    let count = |bits: &AtomicU64| u64::from(bits.load(Ordering::Relaxed).count_ones());
    Ok((count(&client.read), count(&client.written)))
}
