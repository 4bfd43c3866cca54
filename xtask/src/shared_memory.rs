//! The guest's memory, read through the file that backs it: the root [`Shared`], rows, per-CPU states and rings.
//!
//! The guest writes while this is read, so whatever says "the following is complete" (a state, a count) is read before what it
//! describes, and nothing that was read is trusted to be an address without a check.

use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail, ensure};
use kernel::record::cell::{CellRow, Violation};
use kernel::record::event::{EVENT_BYTES, Event};
use kernel::record::ring::RingHeader;
use kernel::record::shared::{BACKTRACE_DEPTH, CpuStatus, Doing, MAGIC, MESSAGE_BYTES, RunState, Shared, VERSION};

/// The most that is read of one ring.
const RING_LIMIT: u64 = 64 << 20;

/// A guest's RAM.
pub(crate) struct GuestMemory {
    file: File,
    ram_base: u64,
    root: u64,
}

/// How the run stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Standing {
    /// Whether the guest has filled the root in.
    pub(crate) started: bool,
    /// A [`RunState`] number.
    pub(crate) state: u32,
    /// CPUs online.
    pub(crate) cpus: u32,
    /// Cells in the plan.
    pub(crate) cells_planned: u32,
    /// Rows complete.
    pub(crate) cells_done: u32,
    /// Grows with every operation.
    pub(crate) progress: u64,
    /// Where the rows are.
    pub(crate) cells_at: u64,
}

impl Standing {
    /// The state, if its number is one.
    pub(crate) fn run_state(&self) -> Option<RunState> {
        RunState::from_number(self.state)
    }
}

/// What one CPU was doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CpuState {
    /// Its activity; `None` for a number without a meaning.
    pub(crate) doing: Option<Doing>,
    /// The CPU that it waits for.
    pub(crate) waits_for: Option<u32>,
    /// Detail of the activity.
    pub(crate) detail: u64,
}

/// What a ring still holds, and how many bytes before that are lost.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct RingContents {
    /// In the order of writing.
    pub(crate) bytes: Vec<u8>,
    /// Bytes that were overwritten.
    pub(crate) lost: u64,
}

impl GuestMemory {
    /// The memory in `file`, whose first byte is at `ram_base`, with the root at physical address `root`.
    pub(crate) fn new(file: File, ram_base: u64, root: u64) -> GuestMemory {
        GuestMemory { file, ram_base, root }
    }

    fn read(&self, physical: u64, bytes: usize) -> anyhow::Result<Vec<u8>> {
        let offset = physical.checked_sub(self.ram_base).context("the guest named an address below its memory")?;
        let mut buffer = vec![0; bytes];
        self.file
            .read_exact_at(&mut buffer, offset)
            .with_context(|| format!("the guest named {physical:#x}, which is not in its memory"))?;
        Ok(buffer)
    }

    /// How the run stands now.
    pub(crate) fn standing(&self) -> anyhow::Result<Standing> {
        let state = self.read(self.root + offset_of!(Shared, state) as u64, 4)?;
        let head = self.read(self.root, offset_of!(Shared, message))?;
        let standing = Standing {
            started: u64::read(&head, offset_of!(Shared, magic)) == MAGIC,
            state: u32::read(&state, 0),
            cpus: u32::read(&head, offset_of!(Shared, cpus)),
            cells_planned: u32::read(&head, offset_of!(Shared, cells_planned)),
            cells_done: u32::read(&head, offset_of!(Shared, cells_done)),
            progress: u64::read(&head, offset_of!(Shared, progress)),
            cells_at: u64::read(&head, offset_of!(Shared, cells_at)),
        };
        let version = u32::read(&head, offset_of!(Shared, version));
        ensure!(
            !standing.started || version == VERSION,
            "the image writes records of version {version} and this runner reads version {VERSION}; \
             run `cargo xtask build`"
        );
        Ok(standing)
    }

    /// Row number `index` of those that `standing` calls complete.
    pub(crate) fn row(&self, standing: &Standing, index: u32) -> anyhow::Result<CellRow> {
        ensure!(standing.started && index < standing.cells_done, "row {index} is not complete");
        let bytes = size_of::<CellRow>();
        Ok(CellRow::read(&self.read(standing.cells_at + index as u64 * bytes as u64, bytes)?, 0))
    }

    /// Why the run ended, as far as the guest said.
    pub(crate) fn message(&self) -> anyhow::Result<String> {
        let length = self.read(self.root + offset_of!(Shared, message_len) as u64, 4)?;
        let length = (u32::read(&length, 0) as usize).min(MESSAGE_BYTES);
        let bytes = self.read(self.root + offset_of!(Shared, message) as u64, length)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The CPU that panicked and its return addresses, innermost first.
    pub(crate) fn backtrace(&self) -> anyhow::Result<(u32, Vec<u64>)> {
        let head = self.read(self.root, size_of::<Shared>())?;
        let depth = (u32::read(&head, offset_of!(Shared, backtrace_len)) as usize).min(BACKTRACE_DEPTH);
        let at = offset_of!(Shared, backtrace);
        let addresses = (0..depth).map(|i| u64::read(&head, at + 8 * i)).collect();
        Ok((u32::read(&head, offset_of!(Shared, panic_cpu)), addresses))
    }

    /// What each CPU is doing now.
    pub(crate) fn cpu_states(&self) -> anyhow::Result<Vec<CpuState>> {
        let head = self.read(self.root, offset_of!(Shared, message))?;
        let (cpus, at) = (u32::read(&head, offset_of!(Shared, cpus)), u64::read(&head, offset_of!(Shared, status_at)));
        if at == 0 {
            return Ok(Vec::new());
        }
        let bytes = size_of::<CpuStatus>();
        let all = self.read(at, bytes * (cpus as usize).min(4096))?;
        let decode = |one: &[u8]| CpuState {
            doing: Doing::from_number(u32::read(one, offset_of!(CpuStatus, doing))),
            waits_for: Some(u32::read(one, offset_of!(CpuStatus, waits_for))).filter(|&c| c != u32::MAX),
            detail: u64::read(one, offset_of!(CpuStatus, detail)),
        };
        Ok(all.chunks_exact(bytes).map(decode).collect())
    }

    /// The structured log's bytes.
    pub(crate) fn structured_log(&self) -> anyhow::Result<RingContents> {
        self.ring(self.root + offset_of!(Shared, defmt) as u64)
    }

    /// What each CPU's ring of events still holds, oldest first.
    pub(crate) fn events(&self) -> anyhow::Result<Vec<Vec<Event>>> {
        let head = self.read(self.root, offset_of!(Shared, message))?;
        let (cpus, at) = (u32::read(&head, offset_of!(Shared, cpus)), u64::read(&head, offset_of!(Shared, rings_at)));
        if at == 0 {
            return Ok(Vec::new());
        }
        let one = |cpu: u64| {
            let ring = self.ring(at + cpu * size_of::<RingHeader>() as u64)?;
            Ok(ring.bytes.chunks_exact(EVENT_BYTES).map(|bytes| Event::read(bytes, 0)).collect())
        };
        (0..u64::from(cpus.min(4096))).map(one).collect()
    }

    fn ring(&self, header: u64) -> anyhow::Result<RingContents> {
        let header = self.read(header, size_of::<RingHeader>())?;
        let at = u64::read(&header, offset_of!(RingHeader, at));
        let capacity = u64::read(&header, offset_of!(RingHeader, capacity));
        let written = u64::read(&header, offset_of!(RingHeader, written));
        if at == 0 || written == 0 {
            return Ok(RingContents { bytes: Vec::new(), lost: 0 });
        }
        if !capacity.is_power_of_two() || capacity > RING_LIMIT {
            bail!("the guest describes a ring of {capacity} bytes, which cannot be");
        }
        let whole = self.read(at, capacity as usize)?;
        let lost = written.saturating_sub(capacity);
        let bytes = (lost..written).map(|n| whole[(n % capacity) as usize]).collect();
        Ok(RingContents { bytes, lost })
    }
}

/// A type whose bytes are defined: little endian, at the offsets of its Rust definition.
trait Record {
    /// Reads it at `at`.
    fn read(bytes: &[u8], at: usize) -> Self;
}

macro_rules! record {
    ($number:ident) => {
        impl Record for $number {
            fn read(bytes: &[u8], at: usize) -> Self {
                $number::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
            }
        }
    };
    ($type:ident { $($field:ident)* }) => {
        impl Record for $type {
            fn read(bytes: &[u8], at: usize) -> Self {
                $type { $($field: Record::read(bytes, at + offset_of!($type, $field)),)* }
            }
        }
    };
}

record!(u8);
record!(u16);
record!(u32);
record!(u64);
record!(CellRow {
    strategy workload mode transport hook expected verdict miscounted cpus walker ops flush_ipis sync_ipis syncs_elided
    redundant_sync_ipis missing_syncs tlbi vectors instructions walks pages violations_ghost violations_value
    predicted_flush predicted_sync predicted_elided predicted_tlbi bystander_flush bystander_sync bystander_nmi bystander_gap
    predicted_bystander program_status steps first
});
record!(Event { time kind cpu mm a b });
record!(Violation { kind walker updater level mm pfn address walk op times });

impl<const N: usize> Record for [u64; N] {
    fn read(bytes: &[u8], at: usize) -> Self {
        std::array::from_fn(|i| u64::read(bytes, at + 8 * i))
    }
}

#[cfg(test)]
pub(crate) mod forged {
    //! A guest's memory as a test writes it.

    use super::*;

    /// Memory to write into, RAM starting at `BASE`, the root at `ROOT`.
    pub(crate) struct Forged(pub(crate) File);

    pub(crate) const BASE: u64 = 0x4000_0000;
    pub(crate) const ROOT: u64 = BASE + 0x1000;

    impl Forged {
        pub(crate) fn new() -> Forged {
            let file = crate::child::anonymous_file("forged").unwrap();
            file.set_len(1 << 20).unwrap();
            Forged(file)
        }

        pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
            self.0.write_all_at(bytes, at - BASE).unwrap();
        }

        pub(crate) fn memory(&self) -> GuestMemory {
            GuestMemory::new(self.0.try_clone().unwrap(), BASE, ROOT)
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(memory.memory().events().unwrap(), [vec![], vec![event]]);
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
        assert_eq!(states[0], CpuState { doing: Some(Doing::WaitSync), waits_for: Some(1), detail: 0 });
        assert_eq!(states[1], CpuState { doing: Some(Doing::Walk), waits_for: None, detail: 0 });
    }
}
