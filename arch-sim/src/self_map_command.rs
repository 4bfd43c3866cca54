//! The rows of `self-map` below the model's matrix. Its walks hold translations and no table, so the model, whose walks
//! hold tables, cannot judge it: the core itself does, in every interleaving of one operation with one walk, on the
//! transport that each profile usually has. The other transports take longer:
//! `cargo xtask sim --core --strategy self-map --transport NAME`.

use std::time::Instant;

use arch_sim::agreement::{self, Cell};
use arch_sim::machine::prove::{Limits, Search};
use arch_sim::machine::scope::Profile;
use arch_sim::matrix::Bounds;
use kernel::workload::walker::WalkerClass;

use crate::Cells;

/// Its name.
pub(crate) const NAME: &str = "self-map";

/// Whether it is among the strategies that were asked for.
pub(crate) fn is_asked_for(cells: &Cells) -> bool {
    cells.strategy.is_empty() || cells.strategy.iter().any(|name| name == NAME)
}

/// Explores and prints its cells within `bounds`; whether each is safe, as it promises.
pub(crate) fn explore(bounds: &Bounds, deadline: Option<Instant>) -> bool {
    if !bounds.walkers.contains(&WalkerClass::Gup) {
        println!("{NAME} refuses every class of walkers but gup.");
        return true;
    }
    println!(
        "{NAME}: the model, whose walks hold tables, has none of its walks. The core itself has, two CPUs, one operation, one walk:"
    );
    println!("{}", agreement::heading());
    let mut kept = true;
    for (_, profile) in Profile::NAMES {
        for operation in &bounds.operations {
            let transport = profile.transport();
            let cell = Cell::new(profile, NAME, transport, *operation, WalkerClass::Gup, 1);
            let Some(cell) = cell.filter(|_| bounds.transports.contains(&transport)) else { continue };
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let time = left.map_or(bounds.limits.time, |left| left.min(bounds.limits.time));
            let limits = Limits { executions: u64::MAX, time };
            let agreed = cell.decide(Search::Exhaustive, limits, &mut |_| {});
            println!("{}", agreed.line());
            kept &= agreed.core == agreed.promised;
        }
    }
    println!(
        "{}",
        if kept { "All are as promised." } else { "Not all are as promised, or were explored to their end." }
    );
    kept
}
