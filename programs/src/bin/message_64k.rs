//! A message of 64 KiB and a short answer, over and over, between two threads on one CPU.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::{exit, pingpong, program};

program!(start);

fn start(argument: u64) -> u64 {
    pingpong::long(argument, 64 << 10).map_or_else(|line| exit::CHECK | u64::from(line), |()| exit::DONE)
}
