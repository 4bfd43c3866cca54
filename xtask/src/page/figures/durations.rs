//! How long operations, handlers and walks took, as cumulative distributions.

use kernel::record::profile::{ROLE_NAMES, Role};
use plotters::prelude::*;

use super::super::figure::{Area, Figure, GRID, SERIES, draw, font, legend};
use super::super::source::{Source, distinct, is_native, is_plain, profile, richest};
use super::command;
use crate::profile::Profile;
use crate::records::{Record, text};

const ROLES: [Role; 3] = [Role::Initiator, Role::Responder, Role::Walker];

/// A strategy's profile, and its colour.
type Curve = (Profile, RGBColor);

/// The figure, of the workload for which most strategies were run with `profile = true`.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let wanted = |row: &Record| {
        let told = ["same", "contend"].contains(&text(row, "mode").as_str()) && text(row, "engine") == "icount";
        told && is_plain(row) && is_native(row) && profile(row).is_some()
    };
    let Some((source, rows)) = richest(sources, &["workload", "cpus", "seed"], "strategy", wanted) else {
        return Ok(None);
    };
    let strategies: Vec<String> = distinct(&rows, "strategy").into_iter().take(SERIES.len()).collect();
    let mut lines: Vec<(String, Vec<Curve>)> = Vec::new();
    for arch in distinct(&rows, "arch") {
        for mode in distinct(&rows, "mode") {
            let of = |strategy: &String| {
                let row = rows.iter().find(|row| {
                    text(row, "arch") == arch && text(row, "mode") == mode && text(row, "strategy") == *strategy
                })?;
                profile(row)
            };
            let curves = strategies.iter().zip(SERIES).filter_map(|(s, colour)| Some((of(s)?, colour)));
            lines.push((format!("{arch}, {mode}"), curves.collect()));
        }
    }
    let svg = draw(30 + 235 * lines.len() as u32, |area| {
        let (top, rest) = area.split_vertically(30);
        let names: Vec<(&str, RGBColor)> = strategies.iter().map(String::as_str).zip(SERIES).collect();
        legend(&top, &names)?;
        let areas = rest.split_evenly((lines.len(), ROLES.len()));
        for (areas, (title, curves)) in areas.chunks(ROLES.len()).zip(&lines) {
            for (area, role) in areas.iter().zip(ROLES) {
                chart(area, &format!("{title}: {}", ROLE_NAMES[role as usize]), role, curves)?;
            }
        }
        Ok(())
    })?;
    let (workload, cpus) = (distinct(&rows, "workload").concat(), distinct(&rows, "cpus").concat());
    Ok(Some(Figure {
        name: "durations",
        title: "How long operations, handlers and walks take",
        shows: format!(
            "Which part of all operations (initiator), interrupt handlers (responder) and walks (walker) of {workload} with {cpus} CPUs took at most \
             so many instructions, under each strategy; those of all CPUs are counted, one of which runs at a time, so in mode contend what ran in \
             between is among them, and in mode same only in what an operation waited for. Where curves lie on each other the last is seen."
        ),
        engine: "QEMU, icount; in the checking image, its oracles among the instructions".into(),
        command: command(source),
        svg,
    }))
}

/// How instructions lie on the axis.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scale {
    Linear,
    /// Where the longest is many times the shortest.
    Logarithmic,
}

impl Scale {
    fn for_span(least: f64, most: f64) -> Scale {
        if most > 8.0 * least { Scale::Logarithmic } else { Scale::Linear }
    }

    /// From instructions to the place on the axis.
    fn place(self, ticks: f64) -> f64 {
        if self == Scale::Linear { ticks } else { ticks.log10() }
    }

    /// And back.
    fn ticks(self, place: f64) -> f64 {
        if self == Scale::Linear { place } else { 10f64.powf(place) }
    }
}

/// The points of the cumulative distribution: a step at each bucket, up to 1.
fn steps(durations: &[(u64, u32)], right: f64) -> Vec<(f64, f64)> {
    let all: f64 = durations.iter().map(|(_, count)| f64::from(*count)).sum();
    let (mut below, mut points) = (0.0, Vec::new());
    for (ticks, count) in durations {
        let ticks = (*ticks).max(1) as f64;
        points.push((ticks, below / all));
        below += f64::from(*count);
        points.push((ticks, below / all));
    }
    points.push((right, 1.0));
    points
}

fn chart(area: &Area<'_>, title: &str, role: Role, curves: &[Curve]) -> anyhow::Result<()> {
    let drawn: Vec<&Curve> = curves.iter().filter(|(profile, _)| !profile.durations(role).is_empty()).collect();
    let all = || drawn.iter().flat_map(|(profile, _)| profile.durations(role)).map(|(ticks, _)| *ticks);
    let (least, most) = (all().min().unwrap_or(10).max(1), all().max().unwrap_or(1000));
    let scale = Scale::for_span(least as f64, most as f64);
    let (left, right) = (least as f64 / 1.04, most as f64 * 1.04);
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(16)
        .caption(title, font(14))
        .x_label_area_size(34)
        .y_label_area_size(36)
        .build_cartesian_2d(scale.place(left)..scale.place(right), 0f64..1.03)?;
    chart
        .configure_mesh()
        .x_labels(4)
        .y_labels(5)
        .x_label_formatter(&|place| short(scale.ticks(*place)))
        .y_label_formatter(&|n| format!("{n:.2}"))
        .x_desc(if drawn.is_empty() { "there was none" } else { "instructions" })
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(font(12))
        .axis_desc_style(font(12))
        .draw()?;
    for (profile, colour) in drawn {
        let points = steps(profile.durations(role), right).into_iter().map(|(ticks, part)| (scale.place(ticks), part));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
    }
    Ok(())
}

/// A large number with a letter for its thousands.
pub(super) fn short(n: f64) -> String {
    match n {
        _ if n >= 1e6 => format!("{}M", crate::table::count((n / 1e4).round() / 100.0)),
        _ if n >= 1e3 => format!("{}k", crate::table::count((n / 10.0).round() / 100.0)),
        _ => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_climbs_to_one() {
        let points = steps(&[(10, 1), (20, 3)], 40.0);
        assert_eq!(points, [(10.0, 0.0), (10.0, 0.25), (20.0, 0.25), (20.0, 1.0), (40.0, 1.0)]);
        let log = Scale::for_span(10.0, 1000.0);
        assert_eq!((log, log.place(1000.0), log.ticks(2.0)), (Scale::Logarithmic, 3.0, 100.0));
        assert_eq!((Scale::for_span(500.0, 600.0), Scale::Linear.place(550.0)), (Scale::Linear, 550.0));
        assert_eq!((short(950.0), short(1500.0), short(2_000_000.0)), ("950".into(), "1.5k".into(), "2M".into()));
    }
}
