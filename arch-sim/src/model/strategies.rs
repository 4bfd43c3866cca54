//! The kernel's strategies, as the model needs them: their code, and how their walks show themselves.

use kernel::arch::Arch;
use kernel::record::cell::Verdict;
use kernel::sync::{self, Ask, Decision, Entry, Publication, Setting, Strategy, View};

use super::nowhere::Nowhere;

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

impl Listed {
    fn from_entry<A: Arch>(entry: &Entry<A>) -> Listed {
        Listed {
            name: entry.name,
            decide: entry.decide,
            promises: entry.promises,
            publication: entry.publishes,
            nested_restores: entry.restores,
        }
    }

    /// A strategy that is in no list.
    pub fn of<S: Strategy>() -> Listed {
        Listed::from_entry(&Entry::<Nowhere>::of::<S>())
    }
}

/// All strategies whose walks hold tables, in the kernel's order.
pub fn listed() -> Vec<Listed> {
    sync::all::<Nowhere>()
        .iter()
        // Its walks hold translations, not tables: they are not the walks of this model. Theirs is in
        // `tests/tests/self_map_model.rs`.
        .filter(|entry| !entry.self_map)
        .map(Listed::from_entry)
        .collect()
}

/// All strategies, in the kernel's order.
pub fn everyone() -> Vec<Listed> {
    sync::all::<Nowhere>().iter().map(Listed::from_entry).collect()
}
