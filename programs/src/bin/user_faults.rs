//! Writes, unmaps, protects and drops memory of an address space in which every other CPU does the same.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::abi::{Number, Rights, Status};
use runtime::{call, check, exit, program};

program!(start);

const PAGE: u64 = 4096;

fn start(argument: u64) -> u64 {
    let (ops, cpu) = (argument & 0xffff_ffff, argument >> 32);
    let base = 0x20_0000_0000 + cpu * 16 * PAGE;
    for op in 0..ops {
        let all = u64::from((Rights::READ | Rights::WRITE).bits());
        let answer = call::raw(Number::MapAnonymous as u64, [0, base, 4 * PAGE, all, 0, 0, 0]);
        check!(call::status(&answer) == Status::Done);
        for page in 0..4 {
            let word = (base + page * PAGE) as *mut u64;
            // SAFETY: mapped above, and nobody else's.
            unsafe {
                check!(word.read_volatile() == 0);
                word.write_volatile(op + page);
                check!(word.read_volatile() == op + page);
            }
        }
        let answer = call::raw(Number::Discard as u64, [0, base, 4 * PAGE, 0, 0, 0, 0]);
        check!(call::status(&answer) == Status::Done);
        for page in 0..4 {
            // SAFETY: as above.
            check!(unsafe { ((base + page * PAGE) as *mut u64).read_volatile() } == 0);
            let answer = call::raw(Number::Unmap as u64, [0, base + page * PAGE, 0, 0, 0, 0, 0]);
            check!(call::status(&answer) == Status::Done);
        }
    }
    exit::DONE
}
