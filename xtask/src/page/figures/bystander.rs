//! How often a CPU outside every mm is interrupted.

use super::super::figure::{BLUE, Bar, Figure, PURPLE, VERMILION, bars, draw, height_of_bars, legend};
use super::super::source::{Source, distinct, is_native, is_plain, mean, richest};
use super::{ceiling, command};
use crate::records::{Record, number, text};
use crate::table::{count, grouped};

/// The figure, of the workload for which most strategies were run in mode `isolated`.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let wanted = |row: &Record| is_plain(row) && is_native(row) && number(row, "bystander_sync_ipis_per_op").is_some();
    let Some((source, rows)) = richest(sources, &["workload", "cpus"], "strategy", wanted) else { return Ok(None) };
    let strategies = distinct(&rows, "strategy");
    let mut most: f64 = 1.0;
    let mut charts = Vec::new();
    for arch in distinct(&rows, "arch") {
        let of_arch: Vec<&Record> = rows.iter().copied().filter(|r| text(r, "arch") == arch).collect();
        let mut all = Vec::new();
        for strategy in &strategies {
            let cell: Vec<&Record> = of_arch.iter().copied().filter(|r| text(r, "strategy") == *strategy).collect();
            let n = |what: &str| mean(&cell, &format!("bystander_{what}_per_op")).unwrap_or(0.0);
            let parts = vec![(n("flush_ipis"), BLUE), (n("sync_ipis"), VERMILION), (n("nmis"), PURPLE)];
            let sum: f64 = parts.iter().map(|(n, _)| n).sum();
            most = most.max(sum);
            let gap = mean(&cell, "bystander_longest_gap")
                .map(|gap| format!(", longest gap {}", grouped(gap.round() as u64)));
            all.push(Bar { label: strategy.clone(), parts, left: None, note: count(sum) + &gap.unwrap_or_default() });
        }
        charts.push((format!("{arch} ({})", distinct(&of_arch, "transport").concat()), all));
    }
    let svg = draw(30 + height_of_bars(strategies.len()), |area| {
        let (top, rest) = area.split_vertically(30);
        legend(&top, &[("flush", BLUE), ("sync", VERMILION), ("NMI", PURPLE)])?;
        for (area, (title, chart)) in rest.split_evenly((1, charts.len())).iter().zip(&charts) {
            bars(area, title, "interrupts of the bystander per operation", (0.0, ceiling(most * 1.6)), chart)?;
        }
        Ok(())
    })?;
    let workload = distinct(&rows, "workload").concat();
    Ok(Some(Figure {
        name: "bystander",
        title: "A bystander",
        shows: format!(
            "How often one {workload} interrupts a CPU that has nothing to do with any mm, and the longest that it was kept from its own work, in \
             instructions."
        ),
        engine: "QEMU, icount; gaps in the plain image".into(),
        command: command(source),
        svg,
    }))
}
