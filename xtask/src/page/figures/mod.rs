//! The figures, one file each; one that the rows say nothing of is left out.

mod bystander;
mod durations;
mod front;
mod interrupts;
mod map;
mod scale;
mod scaling;
mod syncs;
mod waiting;

use std::path::Path;

use super::figure::Figure;
use super::source::Source;

/// All figures that `sources` have rows for, and those of the simulated machine if its numbers are in `folder`.
pub(crate) fn all(sources: &[Source], folder: &Path) -> anyhow::Result<Vec<Figure>> {
    let made = [
        interrupts::figure(sources)?,
        syncs::figure(sources)?,
        scaling::figure(sources)?,
        front::figure(sources)?,
        bystander::figure(sources)?,
        map::figure(sources)?,
        durations::figure(sources)?,
        waiting::figure(sources)?,
    ];
    Ok(made.into_iter().chain(scale::all(folder)?).flatten().collect())
}

/// The command that makes the rows of `source` again.
fn command(source: &Source) -> String {
    format!("cargo xtask experiment {}", source.word())
}

/// A round number that is at least `most`.
fn ceiling(most: f64) -> f64 {
    let scale = 10f64.powf(most.max(1e-3).log10().floor());
    let steps = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * scale).find(|step| *step >= most * 0.999).unwrap_or(10.0 * scale)
}
