//! Looks at a quiet machine's tables and frames, all of them, and says what does not fit.

use std::collections::BTreeMap;

use kernel::addr::{ENTRIES, Level, Pfn};
use kernel::arch::Arch;
use kernel::mm::address_space::Mm;
use kernel::mm::entry::{Entry, EntryCodec};
use kernel::mm::frame::FrameState;
use kernel::mm::table::Table;

/// What the tables of some mms refer to.
#[derive(Default)]
pub struct Audit {
    /// Tables by frame, with how many entries point at each.
    pub tables: BTreeMap<u32, u32>,
    /// Heads of pages, with how many entries refer to each: those of 2 MiB pages too.
    pub pages: BTreeMap<u32, u32>,
}

impl Audit {
    /// Looks at everything that `mms` map.
    ///
    /// # Panics
    /// If a table's population is not what a scan of it says, or an entry points at a frame that is not what it should
    /// be.
    pub fn of<'a, A: Arch>(mms: impl IntoIterator<Item = &'a Mm<A>>) -> Audit {
        let mut audit = Audit::default();
        for mm in mms {
            audit.table::<A>(mm.root(), Level::Pgd);
        }
        audit
    }

    fn table<A: Arch>(&mut self, table: Table<A>, level: Level) {
        let seen = self.tables.entry(table.pfn().0).or_default();
        *seen += 1;
        if *seen > 1 {
            return;
        }
        let frame = table.frame();
        assert_eq!(frame.state(), FrameState::Table, "frame {} is linked as a table", table.pfn());
        assert_eq!(frame.level(), level, "the level of table {}", table.pfn());
        let mut used = 0;
        for index in 0..ENTRIES {
            let raw = table.slot(index).load(std::sync::atomic::Ordering::Relaxed);
            used += u16::from(raw != 0);
            match (A::Codec::decode(level, raw), level.below()) {
                (Entry::Absent, _) => assert_eq!(raw, 0, "entry {index} of table {}", table.pfn()),
                (Entry::Table(child), Some(below)) => self.table::<A>(Table::at(child.pfn()), below),
                (Entry::Table(_), None) => panic!("a PTE table points at a table"),
                (Entry::Leaf { page, .. }, _) => self.page::<A>(page.pfn(), level),
            }
        }
        assert_eq!(frame.population(), used, "the population of table {} of {level:?}", table.pfn());
    }

    fn page<A: Arch>(&mut self, pfn: Pfn, level: Level) {
        let frames = &A::machine().frames;
        let inside = frames.get(pfn).state() == FrameState::Tail;
        let head = if inside { Pfn(pfn.0 & !511) } else { pfn };
        let frame = frames.get(head);
        assert!(matches!(frame.state(), FrameState::Anon | FrameState::File), "frame {head} is mapped as a page");
        if level == Level::Pmd || inside {
            assert_eq!(frame.order(), 9, "frame {head} heads a 2 MiB page");
        }
        *self.pages.entry(head.0).or_default() += 1;
    }

    /// Every page has as many references as entries, and `extra` for those of files; nothing else is referred to.
    ///
    /// # Panics
    /// If not.
    pub fn references<A: Arch>(&self) {
        for (pfn, frame) in A::machine().frames.iter() {
            let entries = self.pages.get(&pfn.0).copied().unwrap_or(0);
            match frame.state() {
                FrameState::Anon => assert_eq!(frame.refs(), entries, "references of the page in frame {pfn}"),
                FrameState::File => assert_eq!(frame.refs(), entries + 1, "references of the file's page in {pfn}"),
                _ => assert_eq!(frame.refs(), 0, "references of frame {pfn}, which is {:?}", frame.state()),
            }
        }
    }
}
