//! The cells of a scenario: every combination of architecture, transport, strategy and guards that something is
//! expected of, and which of them share a guest.

use kernel::record::cell::Verdict;

use super::parse::{Chosen, Expectation, Scenario};
use super::text::Mistake;
use crate::arch::Arch;
use crate::suite::{Hook, guard_mask};

/// One combination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    /// The architecture.
    pub(crate) arch: Arch,
    /// A name from [`kernel::tlb::transport::NAMES`].
    pub(crate) transport: &'static str,
    /// Strategy and hook.
    pub(crate) chosen: Chosen,
    /// All guards are kept.
    pub(crate) kept: bool,
    /// What must come out; `None` if the scenario does not say.
    pub(crate) expected: Option<Verdict>,
    /// Counts that must come out.
    pub(crate) counts: Vec<(&'static str, u64)>,
}

impl Cell {
    /// The strategy as in a scenario.
    pub(crate) fn strategy(&self) -> String {
        match self.chosen.hook {
            Hook::Auto => self.chosen.strategy.into(),
            Hook::True => format!("{}(hook=true)", self.chosen.strategy),
            Hook::False => format!("{}(hook=false)", self.chosen.strategy),
        }
    }
}

/// What a person asks for; `None` for what the scenario names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// Architectures.
    pub(crate) archs: Vec<Arch>,
    /// Transports.
    pub(crate) transports: Option<Vec<&'static str>>,
    /// Strategies.
    pub(crate) strategies: Option<Vec<&'static str>>,
}

fn all_transports() -> Vec<&'static str> {
    kernel::tlb::transport::NAMES.iter().map(|(name, _)| *name).collect()
}

fn all_strategies() -> Vec<Chosen> {
    kernel::sync::NAMES.iter().map(|(name, _)| Chosen { strategy: name, hook: Hook::Auto }).collect()
}

/// The cells that `expectation` is about, without what it expects.
fn selected(expectation: &Expectation) -> Vec<Cell> {
    let selector = &expectation.selector;
    let mut cells = Vec::new();
    for arch in selector.archs.clone().unwrap_or(Arch::ALL.to_vec()) {
        for transport in selector.transports.clone().unwrap_or(all_transports()) {
            for chosen in selector.strategies.clone().unwrap_or(all_strategies()) {
                cells.push(Cell {
                    arch,
                    transport,
                    chosen,
                    kept: selector.kept,
                    expected: Some(expectation.verdict),
                    counts: expectation.counts.clone(),
                });
            }
        }
    }
    cells
}

fn same_place(a: &Cell, b: &Cell) -> bool {
    let place = |c: &Cell| (c.arch, c.transport, c.chosen, c.kept);
    place(a) == place(b)
}

/// All cells that the scenario expects something of, in a fixed order. Two lines that expect different things of one
/// cell are a mistake.
pub(crate) fn of(scenario: &Scenario) -> Result<Vec<Cell>, Mistake> {
    let mut cells: Vec<Cell> = Vec::new();
    let (rest, named): (Vec<_>, Vec<_>) = scenario.expectations.iter().partition(|e| e.selector.otherwise);
    for (expectation, is_rest) in named.into_iter().map(|e| (e, false)).chain(rest.into_iter().map(|e| (e, true))) {
        for cell in selected(expectation) {
            match cells.iter().find(|c| same_place(c, &cell)) {
                None => cells.push(cell),
                Some(earlier) if !is_rest && earlier.expected != cell.expected => {
                    let sentence = format!(
                        "of {} {} {} an earlier line expects something else",
                        cell.arch.name(),
                        cell.transport,
                        cell.strategy()
                    );
                    return Err(Mistake { line: expectation.line, column: 1, sentence });
                }
                Some(_) => {}
            }
        }
    }
    cells.sort_by_key(order);
    Ok(cells)
}

fn order(cell: &Cell) -> (bool, Option<usize>, Option<usize>, Option<usize>, &'static str) {
    let position = |names: &[kernel::suite::Named], name| names.iter().position(|(n, _)| *n == name);
    (
        cell.kept,
        Arch::ALL.iter().position(|a| *a == cell.arch),
        position(kernel::tlb::transport::NAMES, cell.transport),
        position(kernel::sync::NAMES, cell.chosen.strategy),
        cell.chosen.hook.word(),
    )
}

/// The cells that a person wants: those of the scenario, narrowed; and where a strategy or transport is named that the
/// scenario says nothing of, that cell without an expectation.
pub(crate) fn wanted(scenario: &Scenario, wish: &Wish) -> Result<Vec<Cell>, Mistake> {
    let mut cells = of(scenario)?;
    cells.retain(|c| {
        wish.archs.contains(&c.arch)
            && wish.transports.as_ref().is_none_or(|t| t.contains(&c.transport))
            && wish.strategies.as_ref().is_none_or(|s| s.contains(&c.chosen.strategy))
    });
    if wish.transports.is_none() && wish.strategies.is_none() {
        return Ok(cells);
    }
    for &arch in &wish.archs {
        for transport in wish.transports.clone().unwrap_or(all_transports()) {
            for strategy in wish.strategies.iter().flatten() {
                let chosen = Chosen { strategy, hook: Hook::Auto };
                let cell = Cell { arch, transport, chosen, kept: false, expected: None, counts: Vec::new() };
                if !cells.iter().any(|c| same_place(c, &cell)) {
                    cells.push(cell);
                }
            }
        }
    }
    cells.sort_by_key(order);
    Ok(cells)
}

/// Cells that one guest runs: they differ in the strategy only. What must be found unsafe is kept apart, so that it can
/// spoil nothing.
pub(crate) fn by_guest(cells: Vec<Cell>) -> Vec<Vec<Cell>> {
    let mut guests: Vec<Vec<Cell>> = Vec::new();
    for cell in cells {
        let fits = |guest: &&mut Vec<Cell>| {
            let first = &guest[0];
            cell.expected == Some(Verdict::Safe)
                && Cell { chosen: cell.chosen, ..first.clone() } == cell
                && first.chosen.hook == cell.chosen.hook
        };
        match guests.iter_mut().find(fits) {
            Some(guest) => guest.push(cell),
            None => guests.push(vec![cell]),
        }
    }
    guests
}

/// The kernel's command line for cells of one guest.
pub(crate) fn command_line(scenario: &Scenario, guest: &[Cell]) -> String {
    let strategies: Vec<&str> = guest.iter().map(|c| c.chosen.strategy).collect();
    let mut inject = scenario.inject.clone();
    if !inject.iter().any(|fault| fault.starts_with("trylock:")) {
        inject.push("trylock:0".into());
    }
    let mut line = format!(
        "strategies={} transport={} workloads={} scenario={} hook={} engine=icount inject={}",
        strategies.join(","),
        guest[0].transport,
        scenario.workload,
        scenario.script,
        guest[0].chosen.hook.word(),
        inject.join(",")
    );
    if !guest[0].kept && !scenario.without.is_empty() {
        line += &format!(" guards={:x}", guard_mask(&scenario.without));
    }
    line
}
