//! Files, pipes and mounts.

use core::ffi::CStr;

use linux_raw_sys::general::*;

use super::{Failure, call};

const HERE: usize = AT_FDCWD as usize;

/// An open file. It is not closed when it goes out of scope: processes here end soon.
#[derive(Clone, Copy)]
pub(crate) struct File(pub(super) usize);

/// The console that the kernel opened for the first program.
pub(crate) const CONSOLE: File = File(1);

impl File {
    /// Opens it for reading.
    pub(crate) fn open(path: &CStr) -> Result<File, Failure> {
        File::open_with(path, O_RDONLY)
    }

    fn open_with(path: &CStr, flags: u32) -> Result<File, Failure> {
        // SAFETY: the path ends with a zero.
        unsafe { call("open a file", __NR_openat, &[HERE, path.as_ptr() as usize, flags as usize, 0]).map(File) }
    }

    /// Reads from the file's beginning as much as there is room for.
    pub(crate) fn read_all<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Failure> {
        let mut length = 0;
        loop {
            let rest = &mut buffer[length..];
            if rest.is_empty() {
                return Err(super::failure("read a file that is longer than it can be"));
            }
            let arguments = [self.0, rest.as_mut_ptr() as usize, rest.len(), length];
            // SAFETY: the kernel writes at most as many bytes as the rest of the buffer has.
            match unsafe { call("read a file", __NR_pread64, &arguments)? } {
                0 => return Ok(&buffer[..length]),
                more => length += more,
            }
        }
    }

    /// Writes all of it.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            // SAFETY: the kernel reads the bytes.
            let done = unsafe { call("write", __NR_write, &[self.0, bytes.as_ptr() as usize, bytes.len()])? };
            bytes = &bytes[done..];
        }
        Ok(())
    }

    /// Closes it.
    pub(crate) fn close(self) {
        // SAFETY: nobody else has the number.
        let _ = unsafe { call("close", __NR_close, &[self.0]) };
    }
}

/// Writes to an existing file, such as a setting of the kernel.
pub(crate) fn write(path: &CStr, bytes: &[u8]) -> Result<(), Failure> {
    let file = File::open_with(path, O_WRONLY)?;
    let done = file.write_all(bytes);
    file.close();
    done
}

/// Mounts a file system of the kernel's own.
pub(crate) fn mount(kind: &CStr, at: &CStr) -> Result<(), Failure> {
    let (kind, at) = (kind.as_ptr() as usize, at.as_ptr() as usize);
    // SAFETY: both strings end with a zero; there are no data.
    unsafe { call("mount", __NR_mount, &[kind, at, kind, 0, 0]).map(drop) }
}

/// A file without a name: of huge pages, or in ordinary shared memory.
pub(crate) fn memory_file(huge: bool, length: usize) -> Result<File, Failure> {
    let flags = if huge { MFD_HUGETLB | MFD_HUGE_2MB } else { 0 };
    // SAFETY: the name ends with a zero.
    let file = unsafe { call("make a file in memory", __NR_memfd_create, &[c"w".as_ptr() as usize, flags as usize])? };
    // SAFETY: only numbers.
    unsafe { call("set a file's length", __NR_ftruncate, &[file, length])? };
    Ok(File(file))
}

/// A pipe that pages go into by reference, and out of which they are thrown away.
pub(crate) struct Drain {
    into: File,
    out: File,
    null: File,
}

impl Drain {
    /// Makes one.
    pub(crate) fn new() -> Result<Drain, Failure> {
        let mut ends = [0u32; 2];
        // SAFETY: the kernel writes two numbers.
        unsafe { call("make a pipe", __NR_pipe2, &[ends.as_mut_ptr() as usize, 0])? };
        let null = File::open_with(c"/dev/null", O_WRONLY)?;
        Ok(Drain { into: File(ends[1] as usize), out: File(ends[0] as usize), null })
    }

    /// Has the kernel look up the pages of `bytes` with one `get_user_pages_fast`, and drops the references.
    pub(crate) fn walk(&self, bytes: &[u8]) -> Result<(), Failure> {
        let vector = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() as _ };
        // SAFETY: the kernel reads one vector, and refers to pages that stay mapped.
        let taken = unsafe { call("vmsplice", __NR_vmsplice, &[self.into.0, &raw const vector as usize, 1, 0])? };
        let mut left = taken;
        while left > 0 {
            // SAFETY: only numbers.
            left -= unsafe { call("splice", __NR_splice, &[self.out.0, 0, self.null.0, 0, left, 0])? };
        }
        if taken == bytes.len() { Ok(()) } else { Err(super::failure("vmsplice all pages at once")) }
    }
}
