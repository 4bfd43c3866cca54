//! A process with the same program in it: code and constants are shared, everything else is its own and begins with
//! zero.
//!
//! The linker script sees to it that a program has no variable that begins otherwise, and names the borders of its
//! parts.

use crate::abi::{Rights, Status};
use crate::kernel::{self, Begin, Limits};

const PAGE: u64 = 4096;
/// Where [`Image::new`] maps the frames that it fills, for a while.
const WINDOW: u64 = 0x60_0000_0000;
/// The end of a child's stack.
const STACK: u64 = 0x7000_0000_0000;
const STACK_BYTES: u64 = 8 * PAGE;

#[cfg(target_os = "none")]
unsafe extern "C" {
    static __text_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __data_end: u8;
}

/// The borders of the program: code, constants, variables, end.
fn borders() -> [u64; 4] {
    #[cfg(target_os = "none")]
    let all = [&raw const __text_start, &raw const __rodata_start, &raw const __data_start, &raw const __data_end];
    #[cfg(not(target_os = "none"))]
    let all = [core::ptr::null::<u8>(); 4];
    let [text, rodata, data, end] = all.map(|at| at as usize as u64);
    [text, rodata, data, end.next_multiple_of(PAGE)]
}

/// The program that calls, as memory from which processes are made.
pub struct Image {
    frames: u64,
}

impl Image {
    /// Copies code and constants into frames, whose capability goes into `slot`. `process` is the caller's own.
    pub fn new(process: u64, slot: u64) -> Result<Image, Status> {
        let [text, _, data, _] = borders();
        kernel::make_frames(slot, (data - text) / PAGE)?;
        kernel::map(process, slot, WINDOW, 0, data - text, Rights::READ | Rights::WRITE)?;
        for offset in (0..data - text).step_by(8) {
            // SAFETY: the source is this program, from its first page to its variables; the target was just mapped, is
            // as long, and is nobody else's.
            unsafe { ((WINDOW + offset) as *mut u64).write_volatile(*((text + offset) as *const u64)) };
        }
        kernel::unmap(process, WINDOW)?;
        Ok(Image { frames: slot })
    }

    /// Makes a process in `slot` and maps the program and a stack into it.
    pub fn process(&self, slot: u64, limits: Limits, highest_priority: u8) -> Result<(), Status> {
        let [_, _, data, end] = borders();
        kernel::make_process(slot, limits, highest_priority)?;
        self.map_code(slot)?;
        if end > data {
            kernel::map_anonymous(slot, data, end - data, Rights::READ | Rights::WRITE)?;
        }
        kernel::map_anonymous(slot, STACK - STACK_BYTES, STACK_BYTES, Rights::READ | Rights::WRITE)
    }

    /// Makes a process in `slot` that is a fork of `process`, which [`Image::process`] made: variables and stack are a
    /// copy, code and constants are the same.
    pub fn fork(&self, process: u64, slot: u64, limits: Limits, highest_priority: u8) -> Result<(), Status> {
        kernel::fork(process, slot, limits, highest_priority)?;
        self.map_code(slot)
    }

    fn map_code(&self, process: u64) -> Result<(), Status> {
        let [text, rodata, data, _] = borders();
        kernel::map(process, self.frames, text, 0, rodata - text, Rights::READ | Rights::EXECUTE)?;
        kernel::map(process, self.frames, rodata, rodata - text, data - rodata, Rights::READ)
    }

    /// The first thread of a process that [`Image::process`] or [`Image::fork`] made, in `thread`.
    pub fn start(
        &self,
        process: u64,
        thread: u64,
        entry: extern "C" fn(u64) -> !,
        argument: u64,
        priority: u8,
        cpu: u64,
    ) -> Result<(), Status> {
        let begin = Begin { entry: entry as usize as u64, stack: STACK, argument, priority, cpu };
        kernel::make_thread(process, thread, begin)
    }
}
