//! The initial module: an archive (cpio) of the programs, which the runner builds and the firmware leaves in memory.
//!
//! What is in it is not trusted to be an archive: whatever its bytes are, there is a file of that name in it or there
//! is not.

use alloc::string::{String, ToString};

/// Why a program cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ModuleError {
    /// There is no module.
    #[error("the firmware left no module, so there is no program \"{0}\" (start QEMU with -initrd)")]
    Missing(String),
    /// The module has no such file; those that it has come first.
    #[error("the module has no program \"{name}\", only: {found}")]
    NoProgram {
        /// What was asked for.
        name: String,
        /// Names of the files that could be read.
        found: String,
    },
}

/// The file `name` of the archive `module`, if it has one.
pub fn file<'m>(module: &'m [u8], name: &str) -> Option<&'m [u8]> {
    cpio_reader::iter_files(module).find(|entry| entry.name() == name).map(|entry| entry.file())
}

/// The file `name` of the archive `module`, or why it cannot be had.
pub fn find<'m>(module: &'m [u8], name: &str) -> Result<&'m [u8], ModuleError> {
    if module.is_empty() {
        return Err(ModuleError::Missing(name.to_string()));
    }
    if let Some(file) = file(module, name) {
        return Ok(file);
    }
    let mut found = String::new();
    for entry in cpio_reader::iter_files(module) {
        if !found.is_empty() {
            found.push_str(", ");
        }
        found.push_str(entry.name());
    }
    Err(ModuleError::NoProgram { name: name.to_string(), found })
}
