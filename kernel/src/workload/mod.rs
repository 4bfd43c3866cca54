//! The workloads: the operations of the suite, set up, run and counted.

use crate::suite::Named;

/// All workloads, in the order of their numbers.
pub const NAMES: &[Named] = &[
    ("munmap_2m", "munmap of a populated 2 MiB range of 4 KiB pages; tables are freed"),
    ("munmap_4k", "munmap of one populated page that is alone in its PTE table"),
    ("dontneed_2m", "MADV_DONTNEED of 512 populated pages; the empty PTE table is reclaimed"),
    ("dontneed_4k", "MADV_DONTNEED of one page"),
    ("mprotect_2m", "mprotect of 512 populated pages"),
    ("mprotect_4k", "mprotect of one page"),
    ("collapse_anon", "collapse of 512 anonymous pages into one 2 MiB page; the PTE table is deposited"),
    ("collapse_shmem_ptemapped", "collapse where the huge page is in the page cache and only mapped by PTEs"),
    ("unshare_munmap_last", "munmap of 1 GiB whose PMD table has two sharers: it becomes exclusive"),
    ("unshare_munmap_3way", "the same with three sharers: the table stays shared"),
    ("unshare_mprotect_last", "mprotect that unshares a PMD table with two sharers"),
    ("unshare_exit", "exit of a process that shares a PMD table with one other"),
    ("retract_truncate", "a file's PTE table is retracted, then its pages are truncated and used again"),
];
