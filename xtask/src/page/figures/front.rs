//! What a strategy costs the walk, against how many CPUs it interrupts.

use std::collections::BTreeMap;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::figure::{Area, BLUE, Figure, GRID, VERMILION, draw, font};
use super::super::source::{Source, distinct, is_native, is_plain, mean, richest};
use super::ceiling;
use crate::bench::Kept;
use crate::build::repository;
use crate::records::{Record, text};

/// Strategies that cost the same.
#[derive(Clone, Debug, Default)]
struct Point {
    /// Instructions of a walk.
    walk: f64,
    /// Sync interrupts of an operation.
    syncs: f64,
    strategies: Vec<String>,
    /// Those of them that are unsafe here.
    wrong: Vec<String>,
}

/// The figure: instructions of a walk of one page from `bench/results.json`, interrupts from the rows.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let walks = Kept::load(&repository().join("bench/results.json"))?;
    let wanted = |row: &Record| {
        text(row, "mode") == "same"
            && text(row, "engine") == "icount"
            && is_plain(row)
            && is_native(row)
            && text(row, "cpus") == "4"
    };
    let Some((source, rows)) = richest(sources, &["workload", "cpus"], "strategy", wanted) else { return Ok(None) };
    let mut charts = Vec::new();
    let mut unknown: Vec<String> = Vec::new();
    for arch in distinct(&rows, "arch") {
        let of_arch: Vec<&Record> = rows.iter().copied().filter(|r| text(r, "arch") == arch).collect();
        let mut points: BTreeMap<(u64, u64), Point> = BTreeMap::new();
        for strategy in distinct(&of_arch, "strategy") {
            let cell: Vec<&Record> = of_arch.iter().copied().filter(|r| text(r, "strategy") == strategy).collect();
            let Some(walk) = walks.get(&format!("walk {arch} {strategy} 1")) else {
                unknown.extend(Some(strategy).filter(|s| !unknown.contains(s)));
                continue;
            };
            let Some(syncs) = mean(&cell, "sync_ipis_per_op") else { continue };
            let point = points.entry((walk.to_bits(), syncs.to_bits())).or_default();
            (point.walk, point.syncs) = (walk, syncs);
            if is_unsafe(sources, &arch, &strategy) {
                point.wrong.push(strategy);
            } else {
                point.strategies.push(strategy);
            }
        }
        let points: Vec<Point> = points.into_values().collect();
        if !points.is_empty() {
            charts.push((format!("{arch} ({})", distinct(&of_arch, "transport").concat()), points));
        }
    }
    if charts.is_empty() {
        return Ok(None);
    }
    let most = charts.iter().flat_map(|(_, points)| points).map(|p| p.syncs).fold(1.0, f64::max);
    let svg = draw(400, |area| {
        for (area, (title, points)) in area.split_evenly((1, charts.len())).iter().zip(&charts) {
            chart(area, title, ceiling(most * 1.15), points)?;
        }
        Ok(())
    })?;
    let workload = distinct(&rows, "workload").concat();
    Ok(Some(Figure {
        name: "front",
        title: "The front: walk against interrupts",
        shows: format!(
            "What one walk of a page costs under each strategy, against the sync interrupts of one {workload} while three other CPUs walk the same \
             mm; below and to the left is better, and what no safe strategy beats in both is red.{}",
            if unknown.is_empty() {
                String::new()
            } else {
                format!(" Nothing is known of the walk of {}.", unknown.join(", "))
            }
        ),
        engine: "QEMU, icount; walks in the plain image, as kept in bench/results.json".into(),
        command: format!("cargo xtask bench walk --save && {}", super::command(source)),
        svg,
    }))
}

/// Whether any row of `sources` shows it to be unsafe on the architecture's own transport.
fn is_unsafe(sources: &[Source], arch: &str, strategy: &str) -> bool {
    let shows = |row: &Record| {
        let about = text(row, "arch") == arch && text(row, "strategy") == strategy && is_native(row) && is_plain(row);
        about && text(row, "verdict") == "unsafe"
    };
    sources.iter().flat_map(|s| &s.rows).any(shows)
}

/// Whether the point has a safe strategy, and no other that has one is at least as good in both and better in one.
fn is_best(point: &Point, all: &[Point]) -> bool {
    let beats =
        |o: &Point| o.walk <= point.walk && o.syncs <= point.syncs && (o.walk < point.walk || o.syncs < point.syncs);
    !point.strategies.is_empty() && !all.iter().any(|o| !o.strategies.is_empty() && beats(o))
}

fn chart(area: &Area<'_>, title: &str, top: f64, points: &[Point]) -> anyhow::Result<()> {
    let (least, most) = points.iter().fold((f64::MAX, 0.0f64), |(l, m), p| (l.min(p.walk), m.max(p.walk)));
    let room = (most - least).max(8.0);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .caption(title, font(15))
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(least - 0.12 * room..most + 0.35 * room, -0.1 * top..top)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|n| format!("{n:.0}"))
        .y_label_formatter(&|n| format!("{n:.0}"))
        .x_desc("instructions of a walk of one page")
        .y_desc("sync interrupts per operation")
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(font(12))
        .axis_desc_style(font(12))
        .draw()?;
    let plain = chart.plotting_area();
    // Where the names over the point before begin, and how high they stand; in pixels.
    let mut before: Option<(i32, i32, i32)> = None;
    for point in points {
        let colour = if is_best(point, points) { VERMILION } else { BLUE };
        plain.draw(&Circle::new((point.walk, point.syncs), 5, colour.filled()))?;
        let names: Vec<String> =
            point.strategies.iter().cloned().chain(point.wrong.iter().map(|name| format!("{name} (unsafe)"))).collect();
        // A column of names, upwards from a point that is low and downwards from one that is high.
        let low = point.syncs < 0.5 * top;
        let (x, y) = plain.map_coordinate(&(point.walk, point.syncs));
        let longest = names.iter().map(|name| 7 * name.len() as i32).max().unwrap_or(0);
        let raised = match before {
            Some((end, at, height)) if low && at == y && x < end => height,
            _ => 0,
        };
        for (i, name) in names.iter().enumerate() {
            let y = if low { -12 - raised - 13 * (names.len() - 1 - i) as i32 } else { 14 + 13 * i as i32 };
            let style = font(12).pos(Pos::new(HPos::Left, VPos::Center));
            plain.draw(&(EmptyElement::at((point.walk, point.syncs)) + Text::new(name.clone(), (4, y), style)))?;
        }
        if low {
            before = Some((x + longest, y, raised + 13 * names.len() as i32));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_is_what_nothing_safe_beats() {
        let point = |(walk, syncs, name, safe): (f64, f64, &str, bool)| {
            let name = vec![name.to_owned()];
            let (strategies, wrong) = if safe { (name, vec![]) } else { (vec![], name) };
            Point { walk, syncs, strategies, wrong }
        };
        let all = [
            (175.0, 3.0, "sync-all", true),
            (190.0, 0.0, "targeted", true),
            (175.0, 0.0, "none", false),
            (166.0, 1.0, "x", true),
            (200.0, 0.0, "y", true),
        ]
        .map(point);
        let best: Vec<bool> = all.iter().map(|p| is_best(p, &all)).collect();
        assert_eq!(best, [false, true, false, true, false]);
    }
}
