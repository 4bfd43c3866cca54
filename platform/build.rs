//! Has the image linked by its linker script, and again when that changed, which cargo does not see by itself.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=linker");
    if var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let (here, arch) = (var("CARGO_MANIFEST_DIR").unwrap(), var("CARGO_CFG_TARGET_ARCH").unwrap());
        println!("cargo::rustc-link-arg-bins=-T{here}/linker/{arch}.ld");
    }
}
