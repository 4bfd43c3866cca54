//! What the pins and the second walks of long messages are for: with them the guarantee holds when pages are taken away
//! at the worst moment; without, it does not. Guards are taken away for the whole process, so this file has one test.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use kernel::abi::message::{Info, pack};
use kernel::abi::{Number, Rights, Status};
use kernel::addr::{Level, PAGE_SIZE, PMD_SIZE, VirtAddr};
use kernel::arch::Arch;
use kernel::guard::{self, Guard};
use kernel::mm::address_space::Mm;
use kernel::mm::entry::{Entry, EntryCodec};
use kernel::mm::fault;
use kernel::object::frames::Memory;
use kernel::object::mapping::View;
use kernel::object::process::Process;
use kernel::object::{Object, capability};
use kernel::scenario::Point;
use kernel::smp::cpu::Cpu;
use kernel::tlb::switch;
use tests::host::{Tagged, Untagged, run_on, while_waiting};
use tests::kernel_of::FREE;
use tests::talk::{ENDPOINT, IN, Log, OUT, Talk, fill, heard, long, send, stamps};

const PAGES: u64 = 40;
const BYTES: u64 = PAGES * PAGE_SIZE;

/// How pages of a buffer are taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    /// They are anonymous, and discarded.
    Discarded,
    /// They are of memory that is truncated, by somebody else who has it.
    Truncated,
}

const TAKEN: [Taken; 2] = [Taken::Discarded, Taken::Truncated];

/// A buffer whose pages are taken away.
struct Buffer<A: Arch> {
    process: Arc<Process<A>>,
    at: VirtAddr,
    memory: Option<Arc<Memory<A>>>,
}

impl<A: Arch> Buffer<A> {
    /// That of `process` at `at`, which has no pages yet.
    fn new(talk: &Talk<A>, process: &Arc<Process<A>>, at: VirtAddr, taken: Taken) -> Buffer<A> {
        const SLOT: u32 = 31;
        let memory = (taken == Taken::Truncated).then(|| {
            let (first, cpu) = (&talk.kernel.first, talk.kernel.world.cpu(0));
            let memory = Memory::frames(&first.account, PMD_SIZE / PAGE_SIZE).expect("there is enough");
            talk.kernel.world.on(0, || {
                let made = capability::install(cpu, &first.table, SLOT, Object::Memory(memory.clone()));
                made.expect("it is empty");
                assert_eq!(process.unmap(cpu, at, &mut || false), Ok(true));
            });
            let rights = Rights::READ | Rights::WRITE;
            let node = first.table.get(SLOT).expect("it was made");
            let view = View { at, offset: 0, bytes: PMD_SIZE, rights };
            process.map(&first.account, &node, view).expect("there is enough");
            memory
        });
        Buffer { process: process.clone(), at, memory }
    }

    /// `pages` of it, from number `first` on, go.
    fn lose(&self, cpu: &'static Cpu<A>, first: u64, pages: u64) {
        let (offset, bytes) = (first * PAGE_SIZE, pages * PAGE_SIZE);
        match &self.memory {
            None => self.process.discard(cpu, self.at.add(offset), bytes).expect("it is mapped"),
            Some(memory) => memory.truncate(cpu, offset, bytes).expect("no page is cut"),
        }
    }
}

/// What came of a message: how it ended for the client and for the server, and the stamps that the server found.
type Came = (Status, Status, Vec<(u64, u64)>);

/// What the server received.
type Received = Log<(Status, Vec<(u64, u64)>)>;

/// A server that receives one message and answers it, and a client that sends one.
fn exchange<A: Arch>(talk: &Talk<A>, fills: bool) -> (Received, Log<Status>) {
    let (received, sent) = (Log::default(), Log::default());
    let (at_server, at_client) = (received.clone(), sent.clone());
    talk.server(1, move |user| {
        user.ask(Number::SetBuffer, &[IN.0, BYTES, u64::MAX]);
        let call = heard(user.ask(Number::Wait, &[pack(ENDPOINT as u32, Info::EXPECT_LONG)]));
        let seen = if call.status == Status::Done { stamps(user, IN, BYTES) } else { Vec::new() };
        at_server.borrow_mut().push((call.status, seen));
        send(user, Number::ReplyWait, ENDPOINT, Info::empty(), [0; 6]);
    });
    talk.client(move |user| {
        if fills {
            fill(user, OUT, BYTES, 1);
        }
        let answer = send(user, Number::Call, ENDPOINT, Info::LONG, long(OUT, BYTES));
        at_client.borrow_mut().push(answer.status);
    });
    (received, sent)
}

fn came(received: &Received, sent: &Log<Status>) -> Came {
    let (status, seen) = received.borrow()[0].clone();
    (sent.borrow()[0], status, seen)
}

/// A page of the receiver's buffer goes after the message was copied and before the receiver goes on.
fn receiver_loses_a_page(taken: Taken) -> Came {
    let talk = Talk::<Untagged>::new();
    let buffer = Buffer::new(&talk, &talk.server, IN, taken);
    let (received, sent) = exchange(&talk, true);
    talk.run_cpu(1);
    talk.run_cpu(0);
    let cpu = talk.kernel.world.cpu(2);
    talk.kernel.world.on(2, || buffer.lose(cpu, 5, 1));
    talk.kernel.run_in_turn();
    let came = came(&received, &sent);
    drop(buffer);
    talk.finish();
    came
}

/// Writes `stamp` into pages as another thread of the process would.
fn restamp(mm: &Mm<Tagged>, stamp: u64) {
    let cpu = Tagged::this_cpu();
    for page in 0..PAGES {
        let va = OUT.add(page * PAGE_SIZE);
        fault::handle(cpu, mm, va, true).expect("it is mapped");
        let table = mm.table_at(Level::Pte, va).expect("it is there now");
        let raw = table.load(Level::Pte, va);
        let Entry::Leaf { page: at, .. } = <Tagged as Arch>::Codec::decode(Level::Pte, raw) else { panic!("no page") };
        for offset in [8, PAGE_SIZE - 8] {
            // SAFETY: the page is mapped, and nothing else runs in between.
            unsafe { Tagged::direct_map(at).add(offset as usize).cast::<u64>().write(stamp << 16 | page) };
        }
    }
}

/// All pages of the sender's buffer go and are written anew when the first part of them is pinned.
fn sender_is_changed_between(taken: Taken) -> Came {
    let talk = Talk::<Tagged>::new();
    let buffer = Buffer::new(&talk, &talk.client, OUT, taken);
    let mm = talk.client.mm.clone();
    let cpu = talk.kernel.world.cpu(2);
    talk.kernel.world.on(2, || {
        switch::load(cpu, &mm);
        restamp(&mm, 1);
    });
    let table = mm.table_at(Level::Pte, OUT).expect("it is populated");
    let (received, sent) = exchange(&talk, false);
    talk.run_cpu(1);
    let theirs = mm.clone();
    talk.kernel.world.after_load(table, Level::Pte, OUT.add(32 * PAGE_SIZE), move || {
        run_on(2, || {
            buffer.lose(cpu, 0, PAGES);
            restamp(&theirs, 2);
        });
    });
    talk.kernel.run_in_turn();
    assert!(talk.kernel.world.hook_ran());
    let came = came(&received, &sent);
    drop(mm);
    talk.finish();
    came
}

/// A page of the receiver's buffer goes before the message comes, and a stranger gets the frame. What the stranger then
/// has.
fn stranger_is_written_to(taken: Taken) -> u64 {
    const STRANGERS: VirtAddr = VirtAddr(OUT.0 + 0x10_0000);
    let talk = Talk::<Untagged>::new();
    let buffer = Buffer::new(&talk, &talk.server, IN, taken);
    let (received, sent) = exchange(&talk, true);
    let world = &talk.kernel.world;
    // The client has its pages, so that the frame is not its own next one.
    world.on(0, || fault::populate(world.cpu(0), &talk.client.mm, OUT..OUT.add(BYTES))).expect("it is mapped");
    talk.run_cpu(1);
    let cpu = world.cpu(2);
    world.on(2, || {
        buffer.lose(cpu, 5, 1);
        switch::load(cpu, &talk.client.mm);
    });
    world.write(2, &talk.client.mm, STRANGERS.add(8), 99).expect("it is mapped");
    talk.run_cpu(0);
    let seen = world.read(2, &talk.client.mm, STRANGERS.add(8)).expect("it is mapped");
    drop(buffer);
    if guard::present(Guard::IpcPin) {
        talk.kernel.run_in_turn();
        assert_eq!(came(&received, &sent), (Status::Undelivered, Status::BufferGone, Vec::new()));
        talk.finish();
    }
    seen
}

/// What a server finds in its own memory when it has received a call that came on the short way, and the client when it
/// has the answer: each had left another number there.
fn memory_of_the_other() -> (u64, u64) {
    let talk = Talk::<Untagged>::new();
    let log = Log::default();
    let (at_server, at_client) = (log.clone(), log.clone());
    let note = OUT.add(8);
    talk.server(0, move |user| {
        user.write(note, 7);
        user.ask(Number::Wait, &[ENDPOINT]);
        at_server.borrow_mut().push(user.read(note));
        send(user, Number::ReplyWait, ENDPOINT, Info::empty(), [0; 6]);
    });
    talk.run_cpu(0);
    talk.client(move |user| {
        user.write(note, 8);
        send(user, Number::Call, ENDPOINT, Info::empty(), [0; 6]);
        at_client.borrow_mut().push(user.read(note));
    });
    talk.run_cpu(0);
    talk.finish();
    let seen = log.borrow();
    (seen[0], seen[1])
}

/// What unwinds a revocation that waits.
struct Waits;

/// A client's capability is revoked by CPU 0 when its short call, on CPU 1, has found it alive: whether the revocation
/// waits for the call, and how many calls the server has received in the end.
fn revoked_in_a_short_call() -> (bool, usize) {
    let talk = Talk::<Untagged>::new();
    let log = Log::default();
    let at_server = log.clone();
    talk.server(1, move |user| {
        user.ask(Number::Wait, &[ENDPOINT]);
        at_server.borrow_mut().push(());
    });
    talk.run_cpu(1);
    talk.thread(&talk.client, 1, 5, |user| {
        send(user, Number::Call, ENDPOINT, Info::empty(), [0; 6]);
    });
    let (root, cpu) = (talk.kernel.first.table.get(FREE as u32).expect("it is there"), talk.kernel.world.cpu(0));
    let waits = Rc::new(Cell::new(false));
    let seen = waits.clone();
    talk.kernel.world.at_point(Point::ShortLooked, move || {
        let over = Rc::new(Cell::new(false));
        let is_over = over.clone();
        while_waiting(move || {
            if !is_over.get() {
                // What it waits for is below it on this stack.
                resume_unwind(Box::new(Waits));
            }
        });
        let revoked = catch_unwind(AssertUnwindSafe(|| capability::revoke(cpu, &root)));
        over.set(true);
        seen.set(revoked.is_err_and(|what| what.is::<Waits>()));
    });
    talk.run_cpu(1);
    // A revocation that was unwound leaves things half done.
    std::mem::forget(talk);
    (waits.get(), log.borrow().len())
}

#[test]
fn a_removed_guard_of_messages_is_found() {
    let (done, gone, lost) = (Status::Done, Status::BufferGone, Status::Undelivered);
    let all = |stamp| vec![(stamp, stamp); PAGES as usize];

    for taken in TAKEN {
        assert_eq!(receiver_loses_a_page(taken), (lost, gone, Vec::new()), "{taken:?}");
        assert_eq!(sender_is_changed_between(taken), (done, done, all(2)), "{taken:?}");
        assert_eq!(stranger_is_written_to(taken), 99, "{taken:?}");
    }
    assert_eq!(memory_of_the_other(), (7, 8));
    assert_eq!(revoked_in_a_short_call(), (true, 1));

    guard::remove(1 << Guard::KillMeets as u64);
    assert_eq!(revoked_in_a_short_call(), (false, 1), "a call by a capability whose revocation was over");

    guard::remove(1 << Guard::ShortLoads as u64);
    assert_eq!(memory_of_the_other(), (8, 8), "the server goes on in the client's memory");

    guard::remove(1 << Guard::IpcPinAgain as u64);
    for taken in TAKEN {
        let (client, server, seen) = receiver_loses_a_page(taken);
        assert_eq!((client, server, seen[4], seen[5]), (done, done, (1, 1), (0, 0)), "{taken:?}");
        let (client, server, seen) = sender_is_changed_between(taken);
        let ends = (client, server, seen[0], seen[39]);
        assert_eq!(ends, (done, done, (1, 1), (2, 2)), "old and new pages in one message, {taken:?}");
    }

    guard::remove(1 << Guard::IpcPin as u64);
    for taken in TAKEN {
        assert_eq!(stranger_is_written_to(taken), 1 << 16 | 5, "the message went into a stranger's page, {taken:?}");
    }
}
