//! A short message and its answer, over and over, between two processes on one CPU.
#![cfg_attr(target_os = "none", no_std, no_main)]

use runtime::{exit, pingpong, program};

program!(start);

fn start(argument: u64) -> u64 {
    pingpong::apart(argument).map_or_else(|line| exit::CHECK | u64::from(line), |()| exit::DONE)
}
