//! Syncs that were needed, redundant, and missing, where walkers contend.

use super::super::figure::{Bar, Figure, GREEN, ORANGE, PURPLE, bars, draw, height_of_bars, legend};
use super::super::source::{Source, distinct, is_plain, mean, richest};
use super::{ceiling, command};
use crate::records::{Record, text};
use crate::table::count;

/// The figure, of the workload for which most strategies were run on interrupts and on broadcasts.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let wanted = |row: &Record| {
        let judged = text(row, "mode") == "contend" && text(row, "engine") == "icount";
        judged && is_plain(row) && ["ipi", "broadcast"].contains(&text(row, "transport").as_str())
    };
    let Some((source, rows)) = richest(sources, &["workload", "cpus"], "strategy", wanted) else { return Ok(None) };
    let (archs, strategies, transports) =
        (distinct(&rows, "arch"), distinct(&rows, "strategy"), distinct(&rows, "transport"));
    let (mut least, mut most): (f64, f64) = (0.5, 1.0);
    let mut charts = Vec::new();
    for arch in &archs {
        for transport in &transports {
            let of_chart: Vec<&Record> = rows
                .iter()
                .copied()
                .filter(|r| text(r, "arch") == *arch && text(r, "transport") == *transport)
                .collect();
            if of_chart.is_empty() {
                continue;
            }
            let mut all = Vec::new();
            for strategy in &strategies {
                let cell: Vec<&Record> =
                    of_chart.iter().copied().filter(|r| text(r, "strategy") == *strategy).collect();
                let n = |key| mean(&cell, key).unwrap_or(0.0);
                let (sync, redundant) = (n("sync_ipis_per_op"), n("redundant_sync_ipis_per_op"));
                let missing = n("missing_syncs_per_op");
                (least, most) = (least.max(missing), most.max(sync));
                let verdicts = distinct(&cell, "verdict");
                let note = if missing > 0.0 {
                    format!("missing {}", count(missing))
                } else if verdicts.iter().any(|v| v == "refused") {
                    "refused".into()
                } else {
                    count((sync * 100.0).round() / 100.0)
                };
                let parts = vec![(sync - redundant, GREEN), (redundant, ORANGE)];
                all.push(Bar { label: strategy.clone(), parts, left: Some((missing, PURPLE)), note });
            }
            charts.push((format!("{arch}, {transport}"), all));
        }
    }
    let columns = if charts.len() > 1 { 2 } else { 1 };
    let lines = charts.len().div_ceil(columns);
    let span = (-ceiling(least * 1.05), ceiling(most * 1.4));
    let svg = draw(30 + height_of_bars(strategies.len()) * lines as u32, |area| {
        let (top, rest) = area.split_vertically(30);
        legend(&top, &[("missing", PURPLE), ("needed", GREEN), ("redundant", ORANGE)])?;
        for (area, (title, chart)) in rest.split_evenly((lines, columns)).iter().zip(&charts) {
            bars(area, title, "per operation: missing to the left, interrupts to the right", span, chart)?;
        }
        Ok(())
    })?;
    let (workload, cpus) = (distinct(&rows, "workload").concat(), distinct(&rows, "cpus").concat());
    Ok(Some(Figure {
        name: "syncs",
        title: "Syncs: needed, redundant, missing",
        shows: format!(
            "Of {workload} with {cpus} CPUs that walk the very range that is changed: how many sync interrupts found their target in a walk that \
             could hold the table, how many did not, and how often a table was used again although a walk held it."
        ),
        engine: "QEMU, icount".into(),
        command: command(source),
        svg,
    }))
}
