//! Mappings, at addresses of our choice where an operation is counted, and at the kernel's choice elsewhere.

use linux_raw_sys::general::*;

use super::file::File;
use super::{Failure, call, failure};

/// A small page.
pub(crate) const PAGE: usize = 4096;
/// What one PTE table maps, and the size of a huge page.
pub(crate) const PMD: usize = 2 << 20;
/// What one PMD table maps.
pub(crate) const PUD: usize = 1 << 30;

/// What is mapped.
#[derive(Clone, Copy)]
pub(crate) enum What {
    /// Private anonymous memory, in small pages.
    Anonymous,
    /// Private anonymous memory, in huge pages of the reserve.
    AnonymousHuge,
    /// A file from this offset, shared. Nothing is set aside of a file of huge pages.
    Shared(File, usize),
}

/// Memory at a fixed place where nothing else is. It is not unmapped when it goes out of scope.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    start: usize,
    length: usize,
}

impl Range {
    /// Maps it.
    pub(crate) fn map(start: usize, length: usize, what: What) -> Result<Range, Failure> {
        let (flags, file, offset) = match what {
            What::Anonymous => (MAP_PRIVATE | MAP_ANONYMOUS, usize::MAX, 0),
            What::AnonymousHuge => (MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB, usize::MAX, 0),
            What::Shared(file, offset) => (MAP_SHARED | MAP_NORESERVE, file.0, offset),
        };
        let arguments = [
            start,
            length,
            (PROT_READ | PROT_WRITE) as usize,
            (flags | MAP_FIXED_NOREPLACE) as usize,
            file,
            offset,
        ];
        // SAFETY: nothing that Rust knows of is at that place; if anything is, the call fails.
        let at = unsafe { call("map memory", __NR_mmap, &arguments)? };
        if at == start { Ok(Range { start, length }) } else { Err(failure("map memory where it was wanted")) }
    }

    /// Writes to the first byte of every page of `step` bytes.
    pub(crate) fn touch(&self, step: usize) {
        for at in (self.start..self.start + self.length).step_by(step) {
            // SAFETY: the range is mapped for reading and writing, and no reference into it exists.
            unsafe { (at as *mut u8).write_volatile(1) };
        }
    }

    /// Reads the first byte of every small page.
    pub(crate) fn look(&self) {
        for at in (self.start..self.start + self.length).step_by(PAGE) {
            // SAFETY: the range is mapped for reading.
            unsafe { (at as *const u8).read_volatile() };
        }
    }

    /// No memory.
    pub(crate) const fn nothing() -> Range {
        Range { start: 0, length: 0 }
    }

    /// Writes to the first byte.
    pub(crate) fn touch_first(&self) {
        Range { length: 1, ..*self }.touch(PAGE);
    }

    /// A part of it.
    pub(crate) fn part(&self, offset: usize, length: usize) -> Range {
        Range { start: self.start + offset, length }
    }

    /// Unmaps it.
    pub(crate) fn unmap(&self) -> Result<(), Failure> {
        // SAFETY: no reference into the range exists.
        unsafe { call("munmap", __NR_munmap, &[self.start, self.length]).map(drop) }
    }

    /// Changes its protection to reading, or to reading and writing.
    pub(crate) fn protect(&self, writable: bool) -> Result<(), Failure> {
        let protection = if writable { PROT_READ | PROT_WRITE } else { PROT_READ };
        // SAFETY: no reference into the range exists.
        unsafe { call("mprotect", __NR_mprotect, &[self.start, self.length, protection as usize]).map(drop) }
    }

    /// Drops its pages.
    pub(crate) fn drop_pages(&self) -> Result<(), Failure> {
        self.advise("madvise (MADV_DONTNEED)", MADV_DONTNEED)
    }

    /// Makes huge pages of its small ones.
    pub(crate) fn collapse(&self) -> Result<(), Failure> {
        self.advise("madvise (MADV_COLLAPSE)", MADV_COLLAPSE)
    }

    fn advise(&self, step: &'static str, advice: u32) -> Result<(), Failure> {
        // SAFETY: no reference into the range exists.
        unsafe { call(step, __NR_madvise, &[self.start, self.length, advice as usize]).map(drop) }
    }
}

/// Memory at a place of the kernel's choice, filled with zeros: for this process only, or shared with those that it
/// starts.
pub(crate) fn anywhere(length: usize, shared: bool) -> Result<&'static mut [u8], Failure> {
    let flags = MAP_ANONYMOUS | MAP_POPULATE | if shared { MAP_SHARED } else { MAP_PRIVATE };
    let arguments = [0, length, (PROT_READ | PROT_WRITE) as usize, flags as usize, usize::MAX, 0];
    // SAFETY: the kernel finds a place where nothing is.
    let at = unsafe { call("map memory", __NR_mmap, &arguments)? };
    // SAFETY: the memory is ours, zeroed, never unmapped, and this is the only reference to it.
    Ok(unsafe { core::slice::from_raw_parts_mut(at as *mut u8, length) })
}
