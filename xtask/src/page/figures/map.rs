//! Which CPU was interrupted when: a map of CPUs and time, for each strategy.

use kernel::record::profile::LINES;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::super::figure::{Area, BLUE, Figure, GRID, PURPLE, VERMILION, draw, font, legend};
use super::super::source::{Source, distinct, is_native, is_plain, profile, richest};
use super::command;
use super::durations::short;
use crate::profile::Profile;
use crate::records::{Record, number, text};

/// Strategies side by side.
const COLUMNS: usize = 3;

/// The figure, of the workload for which most strategies were run with `profile = true` in a mode with CPUs that have
/// nothing to do with the mm.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let wanted = |row: &Record| {
        let stands_by = ["isolated", "other"].contains(&text(row, "mode").as_str()) && text(row, "engine") == "icount";
        stands_by && is_plain(row) && is_native(row) && profile(row).is_some()
    };
    let Some((source, rows)) = richest(sources, &["workload", "cpus", "mode", "seed"], "strategy", wanted) else {
        return Ok(None);
    };
    let (mode, cpus) = (distinct(&rows, "mode").concat(), distinct(&rows, "cpus").concat());
    let count = cpus.parse::<usize>().ok();
    let ops = rows.first().and_then(|row| number(row, "ops")).unwrap_or(1.0);
    let mut charts = Vec::new();
    for arch in distinct(&rows, "arch") {
        let of_arch: Vec<&Record> = rows.iter().copied().filter(|row| text(row, "arch") == arch).collect();
        for strategy in distinct(&of_arch, "strategy") {
            let row = of_arch.iter().find(|row| text(row, "strategy") == strategy);
            if let Some(profile) = row.and_then(|row| profile(row)) {
                charts.push((format!("{arch}: {strategy}"), profile));
            }
        }
    }
    let lines = charts.len().div_ceil(COLUMNS);
    let height = 84 + 17 * charts.first().map_or(1, |(_, profile)| profile.interrupted.len()) as u32;
    let svg = draw(30 + height * lines as u32, |area| {
        let (top, rest) = area.split_vertically(30);
        legend(&top, &[("flush", BLUE), ("sync", VERMILION), ("NMI that plays a broadcast", PURPLE)])?;
        for (area, (title, profile)) in rest.split_evenly((lines, COLUMNS)).iter().zip(&charts) {
            chart(area, title, profile, count.unwrap_or(profile.interrupted.len()), ops)?;
        }
        Ok(())
    })?;
    let workload = distinct(&rows, "workload").concat();
    let who = match mode.as_str() {
        "isolated" => "the last CPU stands by outside every mm, the others walk the mm of CPU 0, which operates",
        _ => "all CPUs but CPU 0, which operates, walk another mm and have nothing to do with it",
    };
    let shared = match count {
        Some(n) if n > LINES => " Neighbouring CPUs share a line.",
        _ => "",
    };
    Ok(Some(Figure {
        name: "map",
        title: "Who is interrupted when",
        shows: format!(
            "When each of {cpus} CPUs served a flush, a sync or a broadcast of {workload} in mode {mode} ({who}): the darker, the more in an operation; \
             from left to right instructions of the whole machine since the first operation began.{shared}"
        ),
        engine: "QEMU, icount; in the checking image".into(),
        command: command(source),
        svg,
    }))
}

fn chart(area: &Area<'_>, title: &str, profile: &Profile, cpus: usize, ops: f64) -> anyhow::Result<()> {
    let (lines, parts) = (profile.interrupted.len(), profile.ends.len());
    let right = profile.ends.last().copied().unwrap_or(1).max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(18)
        .caption(title, font(14))
        .x_label_area_size(34)
        .y_label_area_size(36)
        .build_cartesian_2d(0f64..right, 0f64..lines as f64)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_labels(4)
        .y_labels(0)
        .x_label_formatter(&|n| short(*n))
        .x_desc("instructions")
        .y_desc("CPU")
        .axis_style(GRID)
        .label_style(font(12))
        .axis_desc_style(font(12))
        .draw()?;
    let per_part = (ops / parts.max(1) as f64).max(1.0);
    for (line, interrupted) in profile.interrupted.iter().enumerate() {
        // The first CPU is on top; each reason has its own stripe of the line.
        let top = (lines - line) as f64 - 0.08;
        let stripes = [(&interrupted.flush, BLUE), (&interrupted.sync, VERMILION), (&interrupted.nmi, PURPLE)];
        let stripe = 0.84 / stripes.len() as f64;
        for (number, (counts, colour)) in stripes.into_iter().enumerate() {
            let upper = top - stripe * number as f64;
            let cells = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(part, count)| {
                let from = if part == 0 { 0.0 } else { profile.ends[part - 1] as f64 };
                let shade = 0.25 + 0.75 * (f64::from(*count) / per_part).min(1.0);
                Rectangle::new([(from, upper), (profile.ends[part] as f64, upper - stripe)], colour.mix(shade).filled())
            });
            chart.draw_series(cells)?;
        }
    }
    // A line under each CPU, and its number.
    let plain = chart.plotting_area();
    for line in 0..=lines {
        plain.draw(&PathElement::new([(0.0, line as f64), (right, line as f64)], GRID.stroke_width(1)))?;
    }
    let style = font(12).pos(Pos::new(HPos::Right, VPos::Center));
    for line in 0..lines {
        let place = EmptyElement::at((0.0, (lines - line) as f64 - 0.5));
        plain.draw(&(place + Text::new((line * cpus / lines).to_string(), (-6, 0), style.clone())))?;
    }
    Ok(())
}
