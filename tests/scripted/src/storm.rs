//! A client and a server that exchange long messages on two CPUs, while a third program, on a third CPU, takes their
//! memory away from under them: collapses it, discards it, unmaps it and maps it again, leaves and joins a shared
//! table.
//!
//! Every message has a number, which the client writes into each page, at its beginning and at its end, before it
//! calls. What the server finds after a call that was answered with `Done` must be that number on every page, whole and
//! unmixed, but where contents were taken away by right: a page that the meddler took from the *client* during the call
//! may be empty in the message, and one that it took from the *server* after the message was there may be empty in the
//! buffer. An old number, another page's, half a page, or anything that nobody wrote, never may be.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use kernel::abi::message::{Info, pack};
use kernel::abi::{Number, Rights, Status};
use kernel::addr::{CpuId, PAGE_SIZE, PMD_SIZE, PUD_SIZE, VirtAddr};
use kernel::arch::Arch;
use kernel::mm::fault;
use kernel::object::account::{Account, Price};
use kernel::object::endpoint::Endpoint;
use kernel::object::frames::Memory;
use kernel::object::mapping::View;
use kernel::object::payer::Payer;
use kernel::object::process::Process;
use kernel::object::thread::{Start, Thread};
use kernel::object::{Object, capability, finish};
use kernel::smp::cpu::Cpu;

use crate::words::{fill, heard, long, send};
use crate::{User, load};

/// Where the client sends from, and the server receives: anonymous, 2 MiB.
const BUFFER: VirtAddr = VirtAddr(0x4000_0000);
/// Where both have mapped the shared table.
const SHARED: VirtAddr = VirtAddr(2 * PUD_SIZE);
/// Pages of a message: more than the kernel pins at once.
const PAGES: u64 = 36;
const BYTES: u64 = PAGES * PAGE_SIZE;

/// What the three know of each other, outside of the machine.
#[derive(Default)]
struct Common {
    /// The number of the message under way; 0: none, and the meddler keeps still.
    under_way: Cell<u64>,
    /// The meddler is about something.
    meddles: Cell<bool>,
    /// Since the message began, contents were taken from the client.
    taken_from_client: Cell<bool>,
    /// Contents are being taken from the server, or were, and it may have been after the message was there. Not if the
    /// server had yet to look at it when that was done: then it has to find out.
    excused_at_server: Cell<bool>,
    /// Whether the server has yet to look at a message.
    has_unread: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// A whole buffer went: its owner touches all of it again, since only what is all there is collapsed. By
    /// [`CLIENT`], [`SERVER`].
    touch: [Cell<bool>; 2],
    over: Cell<bool>,
}

/// What came of a storm.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Messages that the server received whole.
    pub received: u64,
    /// Of them, those that no meddling could excuse anything in.
    pub exact: u64,
    /// Calls that ended with an error, by status.
    pub refused: Vec<Status>,
    /// Meddling that was done.
    pub meddled: u64,
    /// Collapses among it.
    pub collapsed: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// A storm under way.
pub struct Storm<A: Arch> {
    account: Arc<Account>,
    first: Arc<Process<A>>,
    common: Rc<Common>,
    outcome: Rc<RefCell<Outcome>>,
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn choice(state: &Cell<u64>, below: u64) -> u64 {
    state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    let mut z = state.get();
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below
}

fn touch(user: &User<'_>, common: &Common, whose: u64) {
    if common.touch[whose as usize].replace(false) {
        for page in PAGES..PMD_SIZE / PAGE_SIZE {
            user.write(BUFFER.add(page * PAGE_SIZE + 8), 1);
        }
    }
}

fn client(user: &User<'_>, common: &Common, outcome: &RefCell<Outcome>, messages: u64) {
    for n in 1..=messages {
        while common.meddles.get() {
            user.pause();
        }
        touch(user, common, CLIENT);
        let from = if n % 3 == 0 { SHARED } else { BUFFER };
        fill(user, from, BYTES, n);
        common.taken_from_client.set(false);
        common.excused_at_server.set(false);
        common.under_way.set(n);
        let answer = send(user, Number::Call, 1, Info::LONG, long(from, BYTES));
        common.under_way.set(0);
        if answer.status != Status::Done {
            outcome.borrow_mut().refused.push(answer.status);
        }
    }
    common.over.set(true);
}

fn server(user: &User<'_>, common: &Common, outcome: &RefCell<Outcome>) {
    user.ask(Number::SetBuffer, &[BUFFER.0, BYTES, u64::MAX]);
    let wait = || heard(user.ask(Number::Wait, &[pack(1, Info::EXPECT_LONG)]));
    let mut call = wait();
    loop {
        if call.status != Status::Done {
            call = wait();
            continue;
        }
        let n = common.under_way.get();
        let (mut empty, mut wrong) = (0, Vec::new());
        for page in 0..PAGES {
            let at = BUFFER.add(page * PAGE_SIZE);
            let ends = [user.read(at.add(8)), user.read(at.add(PAGE_SIZE - 8))];
            for value in ends {
                match value {
                    0 => empty += 1,
                    value if value == n << 16 | page => {}
                    value => wrong.push(format!("message {n}, page {page}: {value:#x}")),
                }
            }
        }
        let excused = common.taken_from_client.get() || common.excused_at_server.get();
        if empty != 0 && !excused {
            wrong.push(format!("message {n}: {empty} words are empty and nobody took them"));
        }
        let mut seen = outcome.borrow_mut();
        seen.received += 1;
        seen.exact += u64::from(!excused);
        seen.wrong.append(&mut wrong);
        drop(seen);
        touch(user, common, SERVER);
        call = send(user, Number::ReplyWait, 1, Info::EXPECT_LONG, [0; 6]);
    }
}

/// What the meddler writes into a page of its own, and where.
const JUNK: u64 = 0x7ad_0000_0000;
/// See above.
const PLACE: VirtAddr = VirtAddr(0x1000_0000);

/// Slots of the meddler: the client, the server, the shared table, itself.
const CLIENT: u64 = 0;
const SERVER: u64 = 1;
const TABLE: u64 = 2;
const OWN: u64 = 3;

fn meddler(user: &User<'_>, common: &Common, outcome: &RefCell<Outcome>, seed: u64) {
    let state = Cell::new(seed);
    // Beside its place, so that the tables are there: a frame that it gets is for the page.
    user.ask(Number::MapAnonymous, &[OWN, PLACE.0 + PAGE_SIZE, PAGE_SIZE, 3]);
    user.write(PLACE.add(PAGE_SIZE + 8), 1);
    // How often it meddles with one message: so that some get through.
    let (mut message, mut left) = (0, 0);
    while !common.over.get() {
        user.pause();
        if common.under_way.get() != message {
            message = common.under_way.get();
            left = choice(&state, 3);
        }
        if message == 0 || left == 0 {
            continue;
        }
        left -= 1;
        (0..choice(&state, 24)).for_each(|_| user.pause());
        if common.under_way.get() == 0 {
            continue;
        }
        let whose = choice(&state, 2);
        let excused = common.excused_at_server.get();
        common.meddles.set(true);
        let page = BUFFER.0 + choice(&state, PAGES) * PAGE_SIZE;
        let takes = || {
            if whose == CLIENT {
                common.taken_from_client.set(true);
            } else {
                common.excused_at_server.set(true);
            }
        };
        let answer = match choice(&state, 12) {
            0..5 => {
                let answer = user.ask(Number::Collapse, &[whose, BUFFER.0]);
                outcome.borrow_mut().collapsed += u64::from(answer[0] == Status::Done as u64);
                answer
            }
            5..8 => {
                takes();
                user.ask(Number::Discard, &[whose, page, PAGE_SIZE])
            }
            8 => {
                takes();
                common.touch[whose as usize].set(true);
                // Whole, so that the table goes too.
                user.ask(Number::Discard, &[whose, BUFFER.0, PMD_SIZE])
            }
            9 => {
                takes();
                common.touch[whose as usize].set(true);
                user.ask(Number::Unmap, &[whose, BUFFER.0]);
                user.ask(Number::MapAnonymous, &[whose, BUFFER.0, PMD_SIZE, 3])
            }
            _ => {
                user.ask(Number::Unmap, &[whose, SHARED.0]);
                user.ask(Number::Map, &[whose, TABLE, SHARED.0, 0, PUD_SIZE, 3])
            }
        };
        if !excused && common.has_unread.borrow().as_ref().is_some_and(|unread| unread()) {
            common.excused_at_server.set(false);
        }
        // A page of its own: the frame that went last comes first. What it writes belongs to nobody else.
        user.ask(Number::MapAnonymous, &[OWN, PLACE.0, PAGE_SIZE, 3]);
        user.write(PLACE.add(8), JUNK);
        user.write(PLACE.add(PAGE_SIZE - 8), JUNK);
        (0..choice(&state, 24)).for_each(|_| user.pause());
        if user.read(PLACE.add(8)) != JUNK || user.read(PLACE.add(PAGE_SIZE - 8)) != JUNK {
            outcome.borrow_mut().wrong.push(format!("message {message} was written to a stranger's page"));
        }
        user.ask(Number::Unmap, &[OWN, PLACE.0]);
        outcome.borrow_mut().meddled += u64::from(answer[0] == Status::Done as u64);
        common.meddles.set(false);
    }
}

impl<A: Arch> Storm<A> {
    /// Makes the three programs, whose threads are then in the queues of CPUs 0, 1 and 2 of a machine with `frames`
    /// frames to give away.
    pub fn begin(cpu: &'static Cpu<A>, frames: u64, messages: u64, seed: u64) -> Storm<A> {
        let all = Price { frames, bytes: 1 << 20, spaces: 8 };
        let account = Account::first(all.and(Price { frames: 8, bytes: 1 << 16, spaces: 1 }));
        let first = Process::new(cpu, &account, 16, all, 31).expect("there is enough");
        let install = |slot, object| capability::install(cpu, &first.table, slot, object).expect("it is empty");
        install(0, Object::Process(first.clone()));
        install(1, Object::Endpoint(Endpoint::new(&first.account).expect("there is enough")));
        install(2, Object::Memory(Memory::shared_table(&first.account, 1).expect("there is enough")));
        let give = |process: &Arc<Process<A>>, to, from| {
            let node = first.table.get(from).expect("it is there");
            capability::derive(&node, &process.table, to, Rights::all(), 0).expect("it is free");
        };
        let talker = |slot| {
            let limit = Price { frames: 1100, bytes: 1 << 16, spaces: 0 };
            let process = first.make_child(cpu, slot, 4, limit, 31).expect("there is enough");
            give(&process, 1, 1);
            give(&process, 2, 2);
            let rights = Rights::READ | Rights::WRITE;
            process.map_anonymous(Payer::own(&first.account), BUFFER, PMD_SIZE, rights).expect("it is free");
            fault::populate(cpu, &process.mm, BUFFER..BUFFER.add(PMD_SIZE)).expect("it is mapped");
            let node = process.table.get(2).expect("it was given");
            let view = View { at: SHARED, offset: 0, bytes: PUD_SIZE, rights };
            process.map(&first.account, &node, view).expect("it is free");
            process
        };
        let (client_process, server_process) = (talker(3), talker(4));
        let limit = Price { frames: 1700, bytes: 1 << 16, spaces: 0 };
        let third = first.make_child(cpu, 5, 4, limit, 31).expect("there is enough");
        give(&third, CLIENT as u32, 3);
        give(&third, SERVER as u32, 4);
        give(&third, TABLE as u32, 2);
        give(&third, OWN as u32, 5);

        let common = Rc::<Common>::default();
        let outcome = Rc::<RefCell<Outcome>>::default();
        let known = || (common.clone(), outcome.clone());
        let thread = |process: &Arc<Process<A>>, number: u16, entry| {
            let start = Start { entry, stack: VirtAddr(0), argument: 0, priority: 4, cpu: CpuId(number) };
            Thread::make(cpu, &first, 6 + u32::from(number), process, start).expect("there is enough")
        };
        let (c, o) = known();
        thread(&client_process, 0, load(move |user| client(user, &c, &o, messages)));
        let (c, o) = known();
        let receiver = Arc::downgrade(&thread(&server_process, 1, load(move |user| server(user, &c, &o))));
        let unread = move || receiver.upgrade().is_some_and(|receiver| receiver.has_unread());
        *common.has_unread.borrow_mut() = Some(Box::new(unread));
        let (c, o) = known();
        thread(&third, 2, load(move |user| meddler(user, &c, &o, seed)));
        Storm { account, first, common, outcome }
    }

    /// Whether the client has sent all.
    pub fn is_over(&self) -> bool {
        self.common.over.get()
    }

    /// Ends everything; the CPUs have to take turns until [`Storm::is_gone`].
    pub fn end(&self, cpu: &'static Cpu<A>) {
        if let Ok(original) = self.first.table.get(0) {
            capability::delete(cpu, &original).expect("nobody revokes it");
        }
        finish(cpu);
    }

    /// What has come of it so far.
    pub fn so_far(&self) -> Outcome {
        self.outcome.borrow().clone()
    }

    /// What is still charged.
    pub fn left(&self) -> Price {
        self.first.account.used()
    }

    /// Whether nothing is left of it but this value.
    pub fn is_gone(&self) -> bool {
        self.first.has_ended() && self.left() == Price::NOTHING
    }

    /// What came of it, and what is still charged.
    pub fn outcome(self) -> (Outcome, Price) {
        let Storm { account, first, outcome, .. } = self;
        drop(first);
        let seen = outcome.borrow().clone();
        (seen, account.used())
    }
}
