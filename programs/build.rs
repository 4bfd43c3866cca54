//! Has programs linked by their linker script, and again when that changed, which cargo does not see by itself.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=linker");
    if var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo::rustc-link-arg-bins=-T{}/linker/program.ld", var("CARGO_MANIFEST_DIR").unwrap());
        // The module holds every program whole, and the kernel reads no debug information.
        println!("cargo::rustc-link-arg-bins=--strip-debug");
    }
}
