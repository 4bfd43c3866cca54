//! What the tests in `tests/` share: a machine on the host that runs the unchanged core, the same under loom, and the
//! models that results are compared with.

pub mod arm;
pub mod audit;
pub mod capability_model;
pub mod host;
pub mod kernel_of;
pub mod litmus;
pub mod litmus_format;
pub mod orderings;
pub mod space_model;
pub mod store_buffer;
pub mod talk;
#[cfg(loom)]
pub mod woven;
