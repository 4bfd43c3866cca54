//! The pager: demand paging, and copy on write, through messages. The kernel calls it when a thread touches what is not
//! mapped, or not mapped for that; it maps a page of the template for reading, or copies it and maps the copy for
//! writing; then the kernel lets the thread try again. What a fork inherits it copies when parent or child writes.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use runtime::abi::{Access, FAULT, FAULT_HANDLED, Info, Rights, Status};
use runtime::kernel::{self, Received};
use runtime::pager::{FORGET, FORK, MOST, PAGES, SERVE, template};
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

/// What is known of a client, pages by one bit each.
struct Client {
    /// Where its copy begins; 0: there is no such client.
    at: AtomicU64,
    /// Pages of the template that are mapped for it, or were until it had its own.
    read: AtomicU64,
    /// Pages of its own.
    own: AtomicU64,
    /// Of these, the ones that are mapped for reading only, since forks of it may read them too.
    kept: AtomicU64,
    /// The client that it is a fork of, and the pages that are still that one's.
    parent: AtomicU64,
    inherited: AtomicU64,
    /// Of those, the ones that are mapped here.
    seen: AtomicU64,
    /// How many it inherited and has got since.
    copied: AtomicU64,
}

impl Client {
    const fn none() -> Client {
        let [at, read, own, kept, parent, inherited, seen, copied] = [const { AtomicU64::new(0) }; 8];
        Client { at, read, own, kept, parent, inherited, seen, copied }
    }
}

static KNOWN: [Client; MOST as usize] = [const { Client::none() }; MOST as usize];

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

/// Client `number`, if there is one.
fn known(number: u64) -> Result<&'static Client, Status> {
    let client = number.checked_sub(1).and_then(|n| KNOWN.get(n as usize));
    client.filter(|client| client.at.load(Relaxed) != 0).ok_or(Status::BadArgument)
}

fn answer(message: &Received) -> Answer {
    let [request, number, word, ..] = message.words;
    match request {
        FAULT => {
            let [_, at, access, ..] = message.words;
            let handled = fault(message.badge.into(), at, access);
            Answer::of([if handled.is_ok() { FAULT_HANDLED } else { FAULT_HANDLED + 1 }, 0, 0, 0, 0, 0])
        }
        SERVE => begin(number, word, message.info).map(|_| ()).into(),
        FORK => fork(number, word, message.info).into(),
        FORGET => match forget(number) {
            Ok([read, own, copied]) => Answer::of([Status::Done as u64, read, own, copied, 0, 0]),
            Err(error) => Err(error).into(),
        },
        _ => Err(Status::BadNumber).into(),
    }
}

/// There is a client `number`, whose process came with the message.
fn begin(number: u64, at: u64, info: Info) -> Result<&'static Client, Status> {
    let client = number.checked_sub(1).and_then(|n| KNOWN.get(n as usize)).ok_or(Status::BadArgument)?;
    let taken = client.at.load(Relaxed) != 0;
    if taken || !info.contains(Info::CAPABILITY) || at == 0 || !at.is_multiple_of(PAGE) {
        return Err(Status::BadArgument);
    }
    kernel::copy(LANDING, process(number), Rights::MANAGE, 0)?;
    kernel::delete(LANDING)?;
    kernel::make_frames(pages(number), PAGES)?;
    kernel::map(OWN, pages(number), window(number), 0, PAGES * PAGE, BOTH)?;
    let Client { read, own, kept, parent, inherited, seen, copied, .. } = client;
    [read, own, kept, parent, inherited, seen, copied].into_iter().for_each(|word| word.store(0, Relaxed));
    client.at.store(at, Relaxed);
    Ok(client)
}

/// Client `number` is a fork of `of`: what that has of its own is both's until one of them writes.
fn fork(of: u64, number: u64, info: Info) -> Result<(), Status> {
    let parent = known(of)?;
    let at = parent.at.load(Relaxed);
    inherit_no_more(of, parent)?;
    let child = begin(number, at, info)?;
    for page in 0..PAGES {
        let bit = 1 << page;
        if parent.own.load(Relaxed) & !parent.kept.load(Relaxed) & bit != 0 {
            kernel::protect(process(of), at + page * PAGE, Rights::READ)?;
            parent.kept.fetch_or(bit, Relaxed);
        }
    }
    child.parent.store(of, Relaxed);
    child.inherited.store(parent.own.load(Relaxed), Relaxed);
    Ok(())
}

/// Gives a fork pages of its own for all that it still inherits.
fn inherit_no_more(number: u64, client: &Client) -> Result<(), Status> {
    let inherited = client.inherited.load(Relaxed);
    (0..PAGES).filter(|page| inherited >> page & 1 != 0).try_for_each(|page| take_over(number, client, page))
}

/// Gives a fork page `page`, which it inherits, as its own.
fn take_over(number: u64, client: &Client, page: u64) -> Result<(), Status> {
    let (bit, at) = (1 << page, client.at.load(Relaxed) + page * PAGE);
    copy(window(client.parent.load(Relaxed)), number, page);
    client.inherited.fetch_and(!bit, Relaxed);
    client.copied.fetch_add(1, Relaxed);
    let seen = client.seen.load(Relaxed) & bit != 0;
    let undone = if seen { kernel::unmap(process(number), at) } else { Ok(()) };
    match undone.and_then(|()| make_own(number, client, page)) {
        // Who made the process has ended it.
        Err(Status::NoCapability | Status::Gone) => Ok(()),
        result => result,
    }
}

/// Fills page `page` of the client's own from the same of the pages at `from`.
fn copy(from: u64, number: u64, page: u64) {
    for word in 0..PAGE / 8 {
        let offset = page * PAGE + word * 8;
        // SAFETY: both are mapped here, and the client does not have its page yet; nobody writes to the other one now.
        unsafe { ((window(number) + offset) as *mut u64).write_volatile(*((from + offset) as *const u64)) };
    }
}

/// Maps page `page` of the client's own, for writing.
fn make_own(number: u64, client: &Client, page: u64) -> Result<(), Status> {
    let at = client.at.load(Relaxed) + page * PAGE;
    kernel::map(process(number), pages(number), at, page * PAGE, PAGE, BOTH)?;
    client.own.fetch_or(1 << page, Relaxed);
    Ok(())
}

/// Makes the page at `at` present for `access`.
fn fault(number: u64, at: u64, access: u64) -> Result<(), Status> {
    let client = known(number)?;
    let start = client.at.load(Relaxed);
    let page = at.checked_sub(start).map(|offset| offset / PAGE).filter(|page| *page < PAGES);
    let page = page.ok_or(Status::NotMapped)?;
    let (bit, at) = (1 << page, start + page * PAGE);
    let is = |pages: &AtomicU64| pages.load(Relaxed) & bit != 0;
    let writes = access == Access::Write as u64;
    if is(&client.own) {
        if writes && is(&client.kept) {
            let forks = (1..=MOST).filter_map(|n| Some((n, known(n).ok()?)));
            for (n, fork) in forks.filter(|(_, f)| f.parent.load(Relaxed) == number && is(&f.inherited)) {
                take_over(n, fork, page)?;
            }
            kernel::protect(process(number), at, BOTH)?;
            client.kept.fetch_and(!bit, Relaxed);
        }
        // Else another thread of it was here first: the page is there.
        return Ok(());
    }
    if is(&client.inherited) {
        if writes {
            return take_over(number, client, page);
        }
        if !is(&client.seen) {
            kernel::map(process(number), pages(client.parent.load(Relaxed)), at, page * PAGE, PAGE, Rights::READ)?;
            client.seen.fetch_or(bit, Relaxed);
        }
        return Ok(());
    }
    if !writes {
        if !is(&client.read) {
            kernel::map(process(number), TEMPLATE, at, page * PAGE, PAGE, Rights::READ)?;
            client.read.fetch_or(bit, Relaxed);
        }
        return Ok(());
    }
    copy(HERE, number, page);
    if is(&client.read) {
        kernel::unmap(process(number), at)?;
    }
    make_own(number, client, page)
}

/// How many pages of the template it read, how many are its own, and how many of these it inherited.
fn forget(number: u64) -> Result<[u64; 3], Status> {
    let client = known(number)?;
    for (n, fork) in (1..=MOST).filter_map(|n| Some((n, known(n).ok()?))) {
        if fork.parent.load(Relaxed) == number {
            inherit_no_more(n, fork)?;
            fork.parent.store(0, Relaxed);
        }
    }
    client.at.store(0, Relaxed);
    // Its own pages go wherever they are mapped.
    kernel::delete(pages(number))?;
    // Who made the process may have ended it, and with it every capability to it.
    match kernel::delete(process(number)) {
        Ok(()) | Err(Status::NoCapability | Status::Gone) => {}
        Err(error) => return Err(error),
    }
    let count = |bits: &AtomicU64| u64::from(bits.load(Relaxed).count_ones());
    Ok([count(&client.read), count(&client.own), client.copied.load(Relaxed)])
}
