//! The kernel's strategies, as the model needs them: their code, and how their walks show themselves.

use kernel::record::cell::Verdict;
use kernel::sync::{self, Ask, Decision, Setting, View};

use super::nowhere::Nowhere;
use super::scenario::Publication;

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
    /// A walk from an NMI shows both walks, and when it ends the one below again.
    pub nested_restores: bool,
}

/// How the walks of the strategy of this name show themselves.
fn publication(name: &str) -> Publication {
    match name {
        "targeted" | "targeted-v4" => Publication::StoreFence,
        "targeted-xchg" => Publication::Exchange,
        _ => Publication::None,
    }
}

/// Whether its walks keep what the walk below them shows.
fn restores(name: &str) -> bool {
    matches!(name, "targeted" | "targeted-xchg")
}

/// All strategies whose walks hold tables, in the kernel's order.
pub fn listed() -> Vec<Listed> {
    let entries = sync::all::<Nowhere>();
    // Its walks hold translations, not tables: they are not the walks of this model. Theirs is in `tests/tests/self_map_model.rs`.
    let holds_translations = |name| entries.iter().any(|entry| entry.name == name && entry.self_map);
    everyone().into_iter().filter(|listed| !holds_translations(listed.name)).collect()
}

/// All strategies, in the kernel's order.
pub fn everyone() -> Vec<Listed> {
    let one = |entry: &sync::Entry<Nowhere>| Listed {
        name: entry.name,
        decide: entry.decide,
        promises: entry.promises,
        publication: publication(entry.name),
        nested_restores: restores(entry.name),
    };
    sync::all::<Nowhere>().iter().map(one).collect()
}
