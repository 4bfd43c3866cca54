//! Processes, threads, the CPUs that they run on, and how they wait for each other.

use core::sync::atomic::AtomicU32;

use linux_raw_sys::general::*;

use super::memory::anywhere;
use super::{Failure, call, failure};

const STACK: usize = 64 << 10;
/// The most CPUs that a mask names.
const MASK_CPUS: usize = 1024;

unsafe extern "C" {
    fn start_thread(flags: usize, stack: *mut u8, run: extern "C" fn(usize) -> !, argument: usize) -> isize;
}

/// Starts a process that is a copy of this one, without other threads; it does `run` and ends.
pub(crate) fn fork(run: impl FnOnce() -> u8) -> Result<Process, Failure> {
    // SAFETY: the copy has its own stack at the same addresses; what other threads held is not used in it.
    let child = unsafe { call("start a process", __NR_clone, &[SIGCHLD as usize, 0, 0, 0, 0])? };
    if child == 0 {
        exit(run());
    }
    Ok(Process(child))
}

/// Starts a thread with a stack of its own. It is never joined: it ends with its process.
pub(crate) fn thread(run: extern "C" fn(usize) -> !, argument: usize) -> Result<(), Failure> {
    let stack = anywhere(STACK, false)?;
    let flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    // SAFETY: the stack is for the new thread alone and lives as long as the process; it is aligned, as its length is a
    // multiple of pages.
    let result = unsafe { start_thread(flags as usize, stack.as_mut_ptr().add(STACK), run, argument) };
    if result < 0 { Err(Failure { step: "start a thread", errno: result.unsigned_abs() as u32 }) } else { Ok(()) }
}

/// Ends this process, with all its threads.
pub(crate) fn exit(status: u8) -> ! {
    loop {
        // SAFETY: nothing comes after it.
        let _ = unsafe { call("exit", __NR_exit_group, &[status.into()]) };
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this status.
    Status(u8),
    /// By this signal.
    Signal(u32),
}

/// A process that this one started.
#[derive(Clone, Copy)]
pub(crate) struct Process(usize);

impl Process {
    /// Waits for its end.
    pub(crate) fn wait(self) -> Result<Ending, Failure> {
        let mut status = 0u32;
        // SAFETY: the kernel writes one number.
        unsafe { call("wait for a process", __NR_wait4, &[self.0, &raw mut status as usize, 0, 0])? };
        Ok(if status & 0x7f == 0 { Ending::Status((status >> 8) as u8) } else { Ending::Signal(status & 0x7f) })
    }

    /// Ends it.
    pub(crate) fn kill(self) {
        // SAFETY: only numbers.
        let _ = unsafe { call("end a process", __NR_kill, &[self.0, SIGKILL as usize]) };
    }
}

/// Has this thread run on one CPU only.
pub(crate) fn pin(cpu: u32) -> Result<(), Failure> {
    let mut mask = [0u64; MASK_CPUS / 64];
    mask[cpu as usize / 64] = 1 << (cpu % 64);
    // SAFETY: the kernel reads the mask.
    unsafe { call("choose a CPU", __NR_sched_setaffinity, &[0, size_of_val(&mask), mask.as_ptr() as usize]).map(drop) }
}

/// How many CPUs this thread may run on. They are numbered from 0.
pub(crate) fn cpus() -> Result<u32, Failure> {
    let mut mask = [0u64; MASK_CPUS / 64];
    let arguments = [0, size_of_val(&mask), mask.as_mut_ptr() as usize];
    // SAFETY: the kernel writes at most as many bytes as the mask has.
    unsafe { call("count CPUs", __NR_sched_getaffinity, &arguments)? };
    Ok(mask.iter().map(|word| word.count_ones()).sum())
}

/// Lets another thread of this CPU run.
pub(crate) fn give_way() {
    // SAFETY: no arguments.
    let _ = unsafe { call("give way", __NR_sched_yield, &[]) };
}

/// Waits while `word` is `value`, or less long.
pub(crate) fn sleep_while(word: &AtomicU32, value: u32) {
    let arguments = [word.as_ptr() as usize, FUTEX_WAIT as usize, value as usize, 0];
    // SAFETY: the kernel reads the word.
    let _ = unsafe { call("wait", __NR_futex, &arguments) };
}

/// Wakes all that wait on `word`, which may be in memory that is shared with other processes. For a shared futex the
/// kernel looks the page up with one `get_user_pages_fast`.
pub(crate) fn wake(word: &AtomicU32) -> Result<(), Failure> {
    let arguments = [word.as_ptr() as usize, FUTEX_WAKE as usize, i32::MAX as usize];
    // SAFETY: the kernel looks up the page of the word.
    unsafe { call("futex", __NR_futex, &arguments).map(drop) }
}

/// Puts the release of the kernel into `buffer`.
pub(crate) fn release(buffer: &mut [u8; 65]) -> Result<&str, Failure> {
    let mut name = linux_raw_sys::system::new_utsname {
        sysname: [0; 65],
        nodename: [0; 65],
        release: [0; 65],
        version: [0; 65],
        machine: [0; 65],
        domainname: [0; 65],
    };
    // SAFETY: the kernel writes one structure of that kind.
    unsafe { call("ask for the kernel's release", __NR_uname, &[&raw mut name as usize])? };
    for (to, from) in buffer.iter_mut().zip(name.release) {
        *to = from as u8;
    }
    let text = core::ffi::CStr::from_bytes_until_nul(buffer).ok().and_then(|text| text.to_str().ok());
    text.ok_or(failure("read the kernel's release"))
}

/// Switches the machine off, or restarts it where that does not work; the emulator ends at either.
pub(crate) fn power_off() -> ! {
    loop {
        for command in [LINUX_REBOOT_CMD_POWER_OFF, LINUX_REBOOT_CMD_RESTART] {
            let arguments = [LINUX_REBOOT_MAGIC1 as usize, LINUX_REBOOT_MAGIC2 as usize, command as usize, 0];
            // SAFETY: only numbers.
            let _ = unsafe { call("power off", __NR_reboot, &arguments) };
        }
    }
}
