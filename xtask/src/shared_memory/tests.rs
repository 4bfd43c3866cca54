//! Forged memory, read as the runner reads it.

use super::forged::*;
use super::*;

macro_rules! field {
    ($memory:expr, $base:expr, $type:ty, $field:ident, $value:expr) => {
        $memory.put($base + offset_of!($type, $field) as u64, &$value.to_le_bytes())
    };
}

#[test]
fn untouched_memory_is_a_guest_that_has_not_started() {
    let standing = Forged::new().memory().standing().unwrap();
    assert!(!standing.started);
    assert_eq!(standing.run_state(), Some(RunState::Booting));
}

#[test]
fn rows_are_read_where_the_root_says() {
    let memory = Forged::new();
    let cells = BASE + 0x8000;
    field!(memory, ROOT, Shared, magic, MAGIC);
    field!(memory, ROOT, Shared, version, VERSION);
    field!(memory, ROOT, Shared, state, 2u32);
    field!(memory, ROOT, Shared, cells_planned, 3u32);
    field!(memory, ROOT, Shared, cells_done, 2u32);
    field!(memory, ROOT, Shared, cells_at, cells);
    let row = cells + size_of::<CellRow>() as u64;
    field!(memory, row, CellRow, strategy, 2u16);
    field!(memory, row, CellRow, workload, 6u16);
    field!(memory, row, CellRow, hook, 1u8);
    field!(memory, row, CellRow, verdict, 1u8);
    field!(memory, row, CellRow, cpus, 4u32);
    field!(memory, row, CellRow, ops, 64u64);
    field!(memory, row, CellRow, sync_ipis, 192u64);
    field!(memory, row, CellRow, predicted_elided, u64::MAX);
    let first = row + offset_of!(CellRow, first) as u64;
    field!(memory, first, Violation, kind, 1u16);
    field!(memory, first, Violation, address, 0x40_0000_0000u64);
    memory.put(first + offset_of!(Violation, times) as u64 + 24, &99u64.to_le_bytes());

    let guest = memory.memory();
    let standing = guest.standing().unwrap();
    assert_eq!((standing.run_state(), standing.cells_planned), (Some(RunState::Finished), 3));
    let row = guest.row(&standing, 1).unwrap();
    assert_eq!((row.strategy, row.workload, row.hook, row.verdict, row.cpus), (2, 6, 1, 1, 4));
    assert_eq!((row.ops, row.sync_ipis, row.predicted_elided, row.flush_ipis), (64, 192, u64::MAX, 0));
    assert_eq!((row.first.kind, row.first.address, row.first.times), (1, 0x40_0000_0000, [0, 0, 0, 99]));
    assert!(guest.row(&standing, 2).is_err());
}

#[test]
fn another_version_is_refused() {
    let memory = Forged::new();
    field!(memory, ROOT, Shared, magic, MAGIC);
    field!(memory, ROOT, Shared, version, 77u32);
    assert!(memory.memory().standing().unwrap_err().to_string().contains("version 77"));
}

#[test]
fn an_address_outside_of_memory_is_an_error() {
    let memory = Forged::new();
    for at in [0x10u64, BASE + (1 << 20) - 8] {
        field!(memory, ROOT, Shared, magic, MAGIC);
        field!(memory, ROOT, Shared, version, VERSION);
        field!(memory, ROOT, Shared, cells_done, 1u32);
        field!(memory, ROOT, Shared, cells_at, at);
        let guest = memory.memory();
        assert!(guest.row(&guest.standing().unwrap(), 0).is_err());
    }
}

#[test]
fn a_ring_that_wrapped_is_put_back_in_order() {
    let memory = Forged::new();
    let header = ROOT + offset_of!(Shared, defmt) as u64;
    field!(memory, header, RingHeader, at, (BASE + 0x8000));
    field!(memory, header, RingHeader, capacity, 8u64);
    field!(memory, header, RingHeader, written, 11u64);
    memory.put(BASE + 0x8000, b"ijkdefgh");
    let ring = memory.memory().structured_log().unwrap();
    assert_eq!(ring, RingContents { bytes: b"defghijk".to_vec(), lost: 3 });
}

#[test]
fn each_cpu_has_its_events() {
    let memory = Forged::new();
    field!(memory, ROOT, Shared, cpus, 2u32);
    field!(memory, ROOT, Shared, rings_at, (BASE + 0x8000));
    let second = BASE + 0x8000 + size_of::<RingHeader>() as u64;
    field!(memory, second, RingHeader, at, (BASE + 0x9000));
    field!(memory, second, RingHeader, capacity, 64u64);
    field!(memory, second, RingHeader, written, 32u64);
    field!(memory, (BASE + 0x9000), Event, time, 77u64);
    field!(memory, (BASE + 0x9000), Event, kind, 3u16);
    field!(memory, (BASE + 0x9000), Event, cpu, 1u16);
    field!(memory, (BASE + 0x9000), Event, a, 0x4000u64);
    let event = Event { time: 77, kind: 3, cpu: 1, mm: 0, a: 0x4000, b: 0 };
    let second = CpuEvents { events: vec![event], ..CpuEvents::default() };
    assert_eq!(memory.memory().events().unwrap(), [CpuEvents::default(), second]);
}

#[test]
fn a_full_ring_says_how_many_events_it_lost() {
    let memory = Forged::new();
    field!(memory, ROOT, Shared, cpus, 1u32);
    field!(memory, ROOT, Shared, rings_at, (BASE + 0x8000));
    field!(memory, (BASE + 0x8000), RingHeader, at, (BASE + 0x9000));
    field!(memory, (BASE + 0x8000), RingHeader, capacity, (4 * EVENT_BYTES as u64));
    field!(memory, (BASE + 0x8000), RingHeader, written, (11 * EVENT_BYTES as u64));
    field!(memory, (BASE + 0x8000), RingHeader, dropped, 2u64);
    for n in 0..11u64 {
        field!(memory, (BASE + 0x9000 + n % 4 * EVENT_BYTES as u64), Event, time, (100 + n));
    }
    let [cpu] = &memory.memory().events().unwrap()[..] else { panic!("one CPU") };
    assert_eq!((cpu.overwritten, cpu.dropped), (7, 2));
    assert_eq!(cpu.events.iter().map(|e| e.time).collect::<Vec<_>>(), [107, 108, 109, 110]);
}

#[test]
fn message_and_backtrace_are_cut_at_their_bounds() {
    let memory = Forged::new();
    field!(memory, ROOT, Shared, message_len, 5u32);
    memory.put(ROOT + offset_of!(Shared, message) as u64, b"oh no and more");
    field!(memory, ROOT, Shared, backtrace_len, 1000u32);
    field!(memory, ROOT, Shared, panic_cpu, 3u32);
    let guest = memory.memory();
    assert_eq!(guest.message().unwrap(), "oh no");
    let (cpu, addresses) = guest.backtrace().unwrap();
    assert_eq!((cpu, addresses.len()), (3, BACKTRACE_DEPTH));
}

#[test]
fn cpu_states_say_who_waits_for_whom() {
    let memory = Forged::new();
    field!(memory, ROOT, Shared, cpus, 2u32);
    field!(memory, ROOT, Shared, status_at, (BASE + 0x8000));
    field!(memory, (BASE + 0x8000), CpuStatus, doing, 5u32);
    field!(memory, (BASE + 0x8000), CpuStatus, waits_for, 1u32);
    field!(memory, (BASE + 0x8040), CpuStatus, doing, 3u32);
    field!(memory, (BASE + 0x8040), CpuStatus, waits_for, u32::MAX);
    let states = memory.memory().cpu_states().unwrap();
    assert_eq!(states[0], CpuState { doing: Some(Doing::WaitSync), waits_for: Some(1), detail: 0, points: 0 });
    assert_eq!(states[1], CpuState { doing: Some(Doing::Walk), waits_for: None, detail: 0, points: 0 });
}
