//! Makes system calls that do nothing. What one costs is the difference between runs of different length, divided by the difference.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::first::Told;
use runtime::{check, exit, kernel, program};

program!(start);

fn start(argument: u64) -> u64 {
    for _ in 0..Told::by(argument).ops {
        check!(kernel::null().is_ok());
    }
    exit::DONE
}
