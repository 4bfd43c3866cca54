//! Interrupts of an operation by cause, for each strategy.

use super::super::figure::{BLUE, Bar, Figure, ORANGE, VERMILION, bars, draw, height_of_bars, legend};
use super::super::source::{Source, distinct, is_native, is_plain, mean, richest};
use super::{ceiling, command};
use crate::records::{Record, text};
use crate::table::count;

const MODES: [&str; 2] = ["same", "other"];

/// The figure, of the workload and machine for which most strategies were run.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let wanted = |row: &Record| {
        let counted = MODES.contains(&text(row, "mode").as_str()) && text(row, "engine") == "icount";
        // Four CPUs are what every other example has.
        counted && is_plain(row) && is_native(row) && text(row, "cpus") == "4"
    };
    let Some((source, rows)) = richest(sources, &["workload", "cpus"], "strategy", wanted) else { return Ok(None) };
    let (archs, strategies) = (distinct(&rows, "arch"), distinct(&rows, "strategy"));
    let modes: Vec<String> = distinct(&rows, "mode");
    let parts = |arch: &str, mode: &str, strategy: &str| {
        let of = |row: &&&Record| {
            text(row, "arch") == arch && text(row, "mode") == mode && text(row, "strategy") == strategy
        };
        let cell: Vec<&Record> = rows.iter().filter(of).copied().collect();
        let n = |key| mean(&cell, key).unwrap_or(0.0);
        let (sync, redundant) = (n("sync_ipis_per_op"), n("redundant_sync_ipis_per_op"));
        [(n("flush_ipis_per_op"), BLUE), (sync - redundant, VERMILION), (redundant, ORANGE)]
    };
    let mut most: f64 = 1.0;
    let mut charts = Vec::new();
    for arch in &archs {
        for mode in &modes {
            let mut all = Vec::new();
            for strategy in &strategies {
                let parts = parts(arch, mode, strategy);
                let sum: f64 = parts.iter().map(|(n, _)| n).sum();
                most = most.max(sum);
                all.push(Bar { label: strategy.clone(), parts: parts.into(), left: None, note: count(sum) });
            }
            let transport =
                rows.iter().find(|row| text(row, "arch") == *arch).map_or(String::new(), |r| text(r, "transport"));
            let others = if mode == "same" { "others walk the same mm" } else { "others walk another mm" };
            charts.push((format!("{arch} ({transport}), {others}"), all));
        }
    }
    let row_height = height_of_bars(strategies.len());
    let svg = draw(30 + row_height * archs.len() as u32, |area| {
        let (top, rest) = area.split_vertically(30);
        legend(&top, &[("flush", BLUE), ("sync, needed", VERMILION), ("sync, redundant", ORANGE)])?;
        for (area, (title, chart)) in rest.split_evenly((archs.len(), modes.len())).iter().zip(&charts) {
            bars(area, title, "CPUs interrupted per operation", (0.0, ceiling(most * 1.12)), chart)?;
        }
        Ok(())
    })?;
    let workload = distinct(&rows, "workload").concat();
    Ok(Some(Figure {
        name: "interrupts",
        title: "Interrupts per operation, by cause",
        shows: format!(
            "How many CPUs one {workload} interrupts under each strategy, with four CPUs: by its flush, and by the sync after it, which is \
             redundant where its target held nothing that the sync was for."
        ),
        engine: "QEMU, icount".into(),
        command: command(source),
        svg,
    }))
}
