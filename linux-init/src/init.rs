//! Process 1: its arguments, the settings of Linux that the operations need, and a process for each cell.

use core::ffi::{CStr, c_char};

use linux_init::options::Options;
use linux_init::record::Record;

use crate::board::MOST_CPUS;
use crate::cell;
use crate::console::say;
use crate::sys::process::{self, Ending};
use crate::sys::{Failure, failure, file};

/// The most arguments that are read.
const MOST_ARGUMENTS: usize = 16;

/// Called by the entry code with the address of the argument count, behind which the arguments are.
///
/// # Safety
///
/// `stack` must be what Linux leaves for a new program.
pub(crate) unsafe extern "C" fn main_on_stack(stack: *const usize) -> ! {
    let mut words = [""; MOST_ARGUMENTS];
    // SAFETY: Linux puts the count first.
    let count = unsafe { *stack }.min(MOST_ARGUMENTS);
    for (i, word) in words[..count].iter_mut().enumerate() {
        // SAFETY: so many pointers to strings that end with a zero follow it, and stay.
        let text = unsafe { CStr::from_ptr((*stack.add(1 + i)) as *const c_char) };
        *word = text.to_str().unwrap_or("?");
    }
    match Options::parse(words[1..count.max(1)].iter().copied()) {
        Ok(options) => {
            if let Err(Failure { step, errno }) = run(&options) {
                say(&Record::Refused { what: step, errno });
            }
        }
        Err(word) => say(&Record::Refused { what: word, errno: 0 }),
    }
    process::power_off()
}

fn run(options: &Options) -> Result<(), Failure> {
    set_up()?;
    let cpus = process::cpus()?;
    if cpus as usize > MOST_CPUS {
        return Err(failure("seat so many CPUs"));
    }
    let mut buffer = [0; 65];
    say(&Record::Start { release: process::release(&mut buffer)?, cpus });
    let mut cells = 0;
    for mode in options.modes() {
        for workload in options.workloads() {
            let ending = process::fork(|| cell::run(workload, mode, options.ops, cpus))?.wait()?;
            let (workload, mode) = (workload.name(), mode.name());
            match ending {
                Ending::Status(0) => {}
                Ending::Status(n) => say(&Record::Failed { workload, mode, step: "panicked", errno: n.into() }),
                Ending::Signal(n) => say(&Record::Failed { workload, mode, step: "was ended by a signal", errno: n }),
            }
            cells += 1;
        }
    }
    say(&Record::End { cells });
    Ok(())
}

/// The kernel's own file systems; huge pages in reserve for hugetlb; small pages elsewhere, unless somebody collapses
/// them.
fn set_up() -> Result<(), Failure> {
    file::mount(c"proc", c"/proc")?;
    file::mount(c"sysfs", c"/sys")?;
    file::write(c"/proc/sys/vm/nr_hugepages", b"24")?;
    file::write(c"/sys/kernel/mm/transparent_hugepage/enabled", b"madvise")
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo) -> ! {
    process::exit(101)
}
