//! How much memory waits for a grace period, over time.

use plotters::prelude::*;

use super::super::figure::{Area, Figure, GRID, SERIES, draw, font, legend};
use super::super::source::{Source, distinct, is_native, is_plain, profile, richest};
use super::command;
use super::durations::short;
use crate::profile::Profile;
use crate::records::{Record, text};

/// A strategy's profile, and its colour.
type Curve = (Profile, RGBColor);

/// The figure, of the workload for which most strategies were run with `profile = true` in mode `contend`.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let wanted = |row: &Record| {
        let contends = text(row, "mode") == "contend" && text(row, "engine") == "icount";
        contends && is_plain(row) && is_native(row) && profile(row).is_some()
    };
    let Some((source, rows)) = richest(sources, &["workload", "cpus", "seed"], "strategy", wanted) else {
        return Ok(None);
    };
    let strategies: Vec<String> = distinct(&rows, "strategy").into_iter().take(SERIES.len()).collect();
    let mut charts: Vec<(String, Vec<Curve>)> = Vec::new();
    for arch in distinct(&rows, "arch") {
        let of = |strategy: &String| {
            let row = rows.iter().find(|row| text(row, "arch") == arch && text(row, "strategy") == *strategy)?;
            profile(row)
        };
        let curves = strategies.iter().zip(SERIES).filter_map(|(s, colour)| Some((of(s)?, colour)));
        charts.push((arch.clone(), curves.collect()));
    }
    let most = charts.iter().flat_map(|(_, curves)| curves).flat_map(|(profile, _)| &profile.waiting).max();
    let most = most.copied().unwrap_or(0).max(1);
    let svg = draw(30 + 260, |area| {
        let (top, rest) = area.split_vertically(30);
        let names: Vec<(&str, RGBColor)> = strategies.iter().map(String::as_str).zip(SERIES).collect();
        legend(&top, &names)?;
        for (area, (title, curves)) in rest.split_evenly((1, charts.len())).iter().zip(&charts) {
            chart(area, title, most, curves)?;
        }
        Ok(())
    })?;
    let (workload, cpus) = (distinct(&rows, "workload").concat(), distinct(&rows, "cpus").concat());
    Ok(Some(Figure {
        name: "waiting",
        title: "Memory that waits for a grace period",
        shows: format!(
            "How many frames of tables waited to be freed at the end of each {workload} with {cpus} CPUs that walk the very range (mode contend), the \
             most of each part, against instructions of the whole machine since the first operation began; strategies that lie on each other are drawn \
             a little apart."
        ),
        engine: "QEMU, icount; in the checking image".into(),
        command: command(source),
        svg,
    }))
}

fn chart(area: &Area<'_>, title: &str, most: u32, curves: &[Curve]) -> anyhow::Result<()> {
    let right = curves.iter().filter_map(|(profile, _)| profile.ends.last()).max().copied().unwrap_or(1) as f64;
    let top = f64::from(most) * 1.1 + 0.2;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(18)
        .caption(title, font(15))
        .x_label_area_size(36)
        .y_label_area_size(40)
        .build_cartesian_2d(0f64..right, 0f64..top)?;
    chart
        .configure_mesh()
        .x_labels(5)
        .y_labels(most.min(6) as usize + 1)
        .x_label_formatter(&|n| short(*n))
        .y_label_formatter(&|n| format!("{n:.0}"))
        .x_desc("instructions")
        .y_desc("frames waiting")
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(font(12))
        .axis_desc_style(font(12))
        .draw()?;
    for (number, (profile, colour)) in curves.iter().enumerate() {
        let apart = 0.012 * top * number as f64;
        chart.draw_series(LineSeries::new(steps(profile, apart), colour.stroke_width(2)))?;
    }
    Ok(())
}

/// A step for each part of the cell, `apart` above its number.
fn steps(profile: &Profile, apart: f64) -> Vec<(f64, f64)> {
    let begins = std::iter::once(&0).chain(&profile.ends);
    let parts = begins.zip(&profile.ends).zip(&profile.waiting);
    parts.flat_map(|((begin, end), frames)| [*begin, *end].map(|at| (at as f64, f64::from(*frames) + apart))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_step() {
        let profile = Profile { waiting: vec![0, 2], ends: vec![10, 30], ..Profile::default() };
        assert_eq!(steps(&profile, 0.5), [(0.0, 0.5), (10.0, 0.5), (10.0, 2.5), (30.0, 2.5)]);
    }
}
