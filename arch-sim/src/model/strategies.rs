//! The kernel's strategies, as the model needs them: their code, and how their walks show themselves.

use kernel::record::cell::Verdict;
use kernel::sync::{self, Ask, Decision, Setting, View};

use super::nowhere::Nowhere;
use super::scenario::{MAX_MMS, Publication};

/// One strategy of the kernel's list.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// As on the command line.
    pub name: &'static str,
    /// Its decision.
    pub decide: fn(&dyn View, &Ask<'_>) -> Decision,
    /// What it promises.
    pub promises: fn(Setting) -> Verdict,
    /// How its walks show themselves.
    pub publication: Publication,
    /// What a walk of mm 1, 2, 3 shows.
    pub published: [u64; MAX_MMS],
}

/// How the walks of the strategy of this name show themselves.
fn publication(name: &str) -> Publication {
    match name {
        "targeted" | "targeted-v4" => Publication::StoreFence,
        "targeted-xchg" => Publication::Exchange,
        _ => Publication::None,
    }
}

/// All strategies, in the kernel's order.
pub fn listed() -> Vec<Listed> {
    sync::all::<Nowhere>()
        .iter()
        .map(|entry| Listed {
            name: entry.name,
            decide: entry.decide,
            promises: entry.promises,
            publication: publication(entry.name),
            published: [1, 2, 3],
        })
        .collect()
}
