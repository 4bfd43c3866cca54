//! `cargo xtask barriers`: takes full barriers away where a store buffer shows it, on CPUs that run freely.
//!
//! Under `-icount` nothing is reordered. With a host thread for each CPU QEMU passes the host's store buffers on, so
//! that a full barrier that is missing between a store and a load is *seen*, in one of many tries. How many depends on
//! the host and on what else it does: it says nothing else than that it was seen.

use std::fmt::Write;

use clap::Args;
use kernel::guard::{Guard, ShownBy};
use kernel::oracle;
use kernel::record::cell::Verdict;
use kernel::workload::walker::WalkerClass;

use crate::arch::{self, Arch, ArchChoice};
use crate::build::Kind;
use crate::error::{Outcome, bad_input};
use crate::output;
use crate::probe::{Bench, Probe};
use crate::progress::Cells;
use crate::suite::{Engine, Hook, Suite};
use crate::table::{grouped, paragraph};

/// A strategy that looks at what walks publish, and the barrier that it is to do without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Variant {
    strategy: &'static str,
    without: Option<&'static str>,
    /// That both sides miss each other must be seen; else it must never be.
    wrong: bool,
}

/// What is tried: the repaired strategies as they are; one barrier of `targeted` replaced by one that orders loads
/// only, on either side; and the strategy that was posted so.
const VARIANTS: [Variant; 5] = [
    Variant { strategy: "targeted", without: None, wrong: false },
    Variant { strategy: "targeted-xchg", without: None, wrong: false },
    Variant { strategy: "targeted", without: Some("PublishFence"), wrong: true },
    Variant { strategy: "targeted", without: Some("DecideFence"), wrong: true },
    Variant { strategy: "targeted-v4", without: None, wrong: true },
];

/// Looks for full barriers that are missing, on 2 CPUs that run freely (MTTCG)
///
/// Walker and updater alone, with a plain store for the clear and no flush, which would be a barrier too. What must be
/// seen is, within so many tries; what must not be seen is not.
#[derive(Args)]
pub(crate) struct Barriers {
    /// x86_64, aarch64 or all
    #[arg(long, value_name = "ARCH", default_value = "all")]
    arch: String,
    /// The most tries of what must be seen
    #[arg(long, value_name = "K", default_value_t = 1_000_000)]
    tries: u64,
    /// Tries of what must not be seen
    #[arg(long, value_name = "K", default_value_t = 20_000)]
    safe_tries: u64,
}

/// What came out of one variant on one architecture.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    arch: Arch,
    variant: Variant,
    tries: u64,
    seen: bool,
    fault: Option<String>,
}

impl Found {
    fn is_unexpected(&self) -> bool {
        self.fault.is_some() || self.seen != self.variant.wrong
    }

    fn text(&self) -> String {
        let tries = grouped(self.tries);
        match (&self.fault, self.seen, self.variant.wrong) {
            (Some(fault), ..) => fault.clone(),
            (None, true, true) => format!("seen in try {tries}"),
            (None, true, false) => format!("SEEN in try {tries}"),
            (None, false, true) => format!("NOT seen in {tries} tries"),
            (None, false, false) => format!("not seen in {tries} tries"),
        }
    }
}

impl Barriers {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let ArchChoice(archs) = arch::choose(&self.arch)?;
        if self.tries == 0 || self.safe_tries == 0 {
            return Err(bad_input("no tries show nothing; give at least 1"));
        }
        let bench = Bench::ready(&archs, Kind::Checking)?;
        let bar = Cells::of((archs.len() * VARIANTS.len()) as u64, "variants");
        let mut found = Vec::new();
        // One at a time: each wants two of the host's CPUs at once.
        for variant in VARIANTS {
            for &arch in &archs {
                found.push(self.one(&bench, arch, variant)?);
                bar.one_more(format!("{} {}", arch.name(), variant.strategy));
            }
        }
        bar.end();
        let qemu = crate::setup::installed_qemu(archs[0]).map_or("-".into(), |q| q.version.to_string());
        output::print(&text(&found, &archs, &qemu))?;
        Ok(if found.iter().any(Found::is_unexpected) { Outcome::Unexpected } else { Outcome::Expected })
    }

    fn one(&self, bench: &Bench, arch: Arch, variant: Variant) -> anyhow::Result<Found> {
        let suite = Suite {
            strategies: vec![variant.strategy],
            transport: Some("broadcast"),
            workloads: vec![kernel::workload::NAMES[0].0],
            modes: vec![kernel::suite::Mode::NAMES[0].0],
            walker: WalkerClass::NAMES[0].0,
            ops: if variant.wrong { self.tries } else { self.safe_tries },
            seed: 1,
            hook: Hook::Auto,
            profile: false,
            engine: Engine::Mttcg,
            inject: Vec::new(),
            without: variant.without.into_iter().collect(),
            user: false,
            log: Some("error".into()),
        };
        let probe = Probe { arch, cpus: 2, kind: Kind::Checking, suite, more: Some("bench=barriers") };
        let ran = bench.run(&probe, &|| false)?;
        let row = ran.rows.first();
        Ok(Found {
            arch,
            variant,
            tries: row.map_or(0, |r| r.cell.ops),
            seen: row.is_some_and(|r| r.verdict == Verdict::Unsafe),
            fault: if row.is_some() { None } else { Some(ran.fault.unwrap_or("no result".into())) },
        })
    }
}

fn name(variant: Variant) -> String {
    match variant.without {
        Some(guard) => format!("{} without {guard}", variant.strategy),
        None if variant.wrong => format!("{} as posted", variant.strategy),
        None => variant.strategy.into(),
    }
}

fn text(found: &[Found], archs: &[Arch], qemu: &str) -> String {
    let width = VARIANTS.iter().map(|v| name(*v).len()).max().unwrap_or(0);
    let mut out = format!(
        "MTTCG, 2 CPUs, QEMU {qemu}, oracle {}: a plain store clears the entry, nothing is flushed.\n\
         Seen: the walker read the entry, and the updater saw no walker.\n\n{:width$}",
        oracle::VERSION,
        ""
    );
    archs.iter().for_each(|arch| write!(out, "  {:28}", arch.name()).unwrap_or_default());
    out = out.trim_end().to_owned() + "\n";
    for variant in VARIANTS {
        let mut line = format!("{:width$}", name(variant));
        for found in found.iter().filter(|f| f.variant == variant) {
            line += &format!("  {:28}", found.text());
        }
        out += &format!("{}\n", line.trim_end());
    }
    let unexpected = found.iter().filter(|f| f.is_unexpected()).count();
    let wanted = VARIANTS.iter().filter(|v| v.wrong).count();
    out += "\n";
    out += &match unexpected {
        0 => format!("As expected: {wanted} missing barriers are seen, and none is where both are there.\n"),
        n => paragraph(
            0,
            &format!(
                "NOT as expected: {n}. What must be seen needs two host CPUs at once; on a busy host give more --tries."
            ),
        ),
    };
    let guards = Guard::NAMES.iter().zip(Guard::SHOWN_BY).filter(|(_, by)| **by == ShownBy::Barriers);
    guards.for_each(|((name, what), _)| writeln!(out, "  {name}: {what}").unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_guard_that_barriers_show_is_tried() {
        for ((name, _), by) in Guard::NAMES.iter().zip(Guard::SHOWN_BY) {
            let tried = VARIANTS.iter().any(|v| v.without == Some(name) && v.wrong);
            assert_eq!(*by == ShownBy::Barriers, tried, "{name}");
        }
        for variant in VARIANTS {
            assert!(kernel::sync::NAMES.iter().any(|(name, _)| *name == variant.strategy), "{}", variant.strategy);
        }
    }

    #[test]
    fn what_must_be_seen_and_is_not_is_unexpected() {
        let found = |variant, seen| Found { arch: Arch::Aarch64, variant, tries: 4_000_000, seen, fault: None };
        let [right, .., wrong] = VARIANTS;
        let cases = [(right, false, false), (right, true, true), (wrong, true, false), (wrong, false, true)];
        for (variant, seen, unexpected) in cases {
            assert_eq!(found(variant, seen).is_unexpected(), unexpected);
        }
        let shown = text(&[found(wrong, false)], &[Arch::Aarch64], "7.2.22");
        assert!(shown.contains("targeted-v4 as posted") && shown.contains("NOT seen in 4,000,000 tries"), "{shown}");
        assert!(shown.contains("NOT as expected: 1"), "{shown}");
        assert!(Found { fault: Some("it hung".into()), ..found(right, false) }.is_unexpected());
    }
}
