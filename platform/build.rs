//! Has the image linked again when a linker script changed, which cargo does not see by itself.

fn main() {
    println!("cargo::rerun-if-changed=linker");
}
