//! Linux beside our kernel: what its operations cost, as recorded once ([`Reference`]) and as measured now
//! (`cargo xtask linux`).
//!
//! A stock distribution kernel is fetched and unpacked ([`package`]), given an init of ours ([`initramfs`]) and booted
//! in the same QEMU ([`machine`]). What that init says is defined in `linux-init`; here it becomes rows ([`rows`]).

mod command;
mod initramfs;
mod live;
mod machine;
mod measure;
mod package;
mod reference;
mod rows;
mod speech;

pub(crate) use command::Linux;
pub(crate) use live::{Live, Now};
pub(crate) use reference::{KERNEL, Reference, Rounds};
