//! The curves of the simulated machine with many CPUs, if `cargo xtask scale` left them in the folder.

use std::path::Path;

use anyhow::Context;
use plotters::prelude::*;
use serde::Deserialize;

use super::super::figure::{Area, Figure, GRID, INK, SERIES, draw, font};

/// What is read of `scale.json`.
#[derive(Deserialize)]
struct Scale {
    preset: String,
    about: String,
    points: Vec<Point>,
    published: Vec<Published>,
}

#[derive(Clone, Deserialize)]
struct Point {
    cpus: u32,
    work: String,
    strategy: String,
    transport: String,
    sync_ipis: f64,
    model_ns: f64,
}

/// A published number beside the model's.
#[derive(Deserialize)]
struct Published {
    what: String,
    unit: String,
    published: f64,
    model: f64,
    mark: Option<Mark>,
}

/// A published number as a point of a curve.
#[derive(Clone, Deserialize)]
struct Mark {
    work: String,
    quantity: String,
    cpus: u32,
    value: f64,
    words: String,
}

/// Strategies with the same curve.
struct Curve {
    strategies: Vec<String>,
    points: Vec<(f64, f64)>,
}

/// The figures: times, and what others have published beside the model's curves.
pub(crate) fn all(folder: &Path) -> anyhow::Result<[Option<Figure>; 2]> {
    let path = folder.join("scale.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok([None, None]) };
    let scale: Scale = serde_json::from_str(&text).with_context(|| format!("{} is no scale.json", path.display()))?;
    Ok([times(&scale, folder)?, published(&scale, folder)?])
}

fn command(scale: &Scale, folder: &Path) -> String {
    format!("cargo xtask scale --preset {} --out {}", scale.preset, folder.display())
}

const ENGINE: &str = "Discrete-event model; interrupts are the kernel's own decisions, times are sums of assumed costs";

fn times(scale: &Scale, folder: &Path) -> anyhow::Result<Option<Figure>> {
    let mut works: Vec<&str> = scale.points.iter().map(|p| p.work.as_str()).collect();
    works.sort_unstable();
    works.dedup();
    if works.is_empty() {
        return Ok(None);
    }
    let transport = scale.points.first().map_or("", |p| p.transport.as_str());
    let svg = draw(470, |area| {
        for (area, work) in area.split_evenly((1, works.len())).iter().zip(&works) {
            let of: Vec<&Point> = scale.points.iter().filter(|p| p.work == **work).collect();
            let curves = curves(&of, |p| p.model_ns / 1000.0);
            let title = format!("MODEL: {work} ({transport})");
            chart(area, &title, "µs per operation, by the model", &curves, &[])?;
        }
        Ok(())
    })?;
    Ok(Some(Figure {
        name: "scale",
        title: "The simulated machine with many CPUs: a model",
        shows: format!(
            "Time of one operation against the number of CPUs, by a cost model ({}: {}), not by a measurement.",
            scale.preset, scale.about
        ),
        engine: ENGINE.into(),
        command: command(scale, folder),
        svg,
    }))
}

/// What the charts beside published numbers are of: the work, the quantity, what the chart and its axis are called.
const BESIDE: [(&str, &str, &str, &str); 2] = [
    ("collapse", "sync_ipis", "sync interrupts of a collapse", "interrupts (0.05 stands for none)"),
    ("unshare", "slowdown", "leaving a shared table", "times as long as without a sync"),
];
/// What a logarithmic axis shows of zero.
const NONE: f64 = 0.05;

fn published(scale: &Scale, folder: &Path) -> anyhow::Result<Option<Figure>> {
    let marks: Vec<Mark> = scale.published.iter().filter_map(|p| p.mark.clone()).collect();
    if marks.is_empty() || scale.points.is_empty() {
        return Ok(None);
    }
    let svg = draw(470, |area| {
        for (area, (work, quantity, title, axis)) in area.split_evenly((1, BESIDE.len())).iter().zip(BESIDE) {
            let of: Vec<&Point> = scale.points.iter().filter(|p| p.work == work).collect();
            let alone = |cpus: u32| of.iter().find(|p| p.cpus == cpus && p.strategy == "none").map(|p| p.model_ns);
            let curves = curves(&of, |p| match quantity {
                "sync_ipis" => p.sync_ipis.max(NONE),
                _ => alone(p.cpus).map_or(1.0, |alone| p.model_ns / alone),
            });
            let marks: Vec<&Mark> = marks.iter().filter(|m| m.work == work && m.quantity == quantity).collect();
            chart(area, &format!("MODEL: {title}"), axis, &curves, &marks)?;
        }
        Ok(())
    })?;
    let number = |n: f64| crate::table::count((n * 100.0).round() / 100.0);
    let published: Vec<String> = scale
        .published
        .iter()
        .map(|p| format!("{}: {} {}, the model has {}", p.what, number(p.published), p.unit, number(p.model)))
        .collect();
    Ok(Some(Figure {
        name: "scale-published",
        title: "Beside what others have published",
        shows: format!(
            "The model's curves ({}), and what was measured on real machines as crosses. {}.",
            scale.about,
            published.join("; ")
        ),
        engine: ENGINE.into(),
        command: command(scale, folder),
        svg,
    }))
}

fn curves(points: &[&Point], value: impl Fn(&Point) -> f64) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&point.strategy.as_str()) {
            names.push(&point.strategy);
        }
    }
    for name in names {
        let of = points.iter().filter(|p| p.strategy == name);
        let points: Vec<(f64, f64)> = of.map(|p| (f64::from(p.cpus), value(p))).collect();
        match curves.iter_mut().find(|c| c.points == points) {
            Some(curve) => curve.strategies.push(name.to_owned()),
            None => curves.push(Curve { strategies: vec![name.to_owned()], points }),
        }
    }
    let last = |c: &Curve| c.points.last().map_or(0.0, |p| p.1);
    curves.sort_by(|a, b| last(b).total_cmp(&last(a)));
    curves
}

fn chart(area: &Area<'_>, title: &str, axis: &str, curves: &[Curve], marks: &[&Mark]) -> anyhow::Result<()> {
    let all = || curves.iter().flat_map(|c| &c.points);
    let right = all().map(|p| p.0).fold(4.0, f64::max);
    let values = all().map(|p| p.1).chain(marks.iter().map(|m| m.value));
    let (low, high) = values.fold((f64::MAX, 1.0f64), |(l, h), value| (l.min(value), h.max(value)));
    // The legend stands below: curves may be anywhere.
    let lines: usize =
        curves.iter().map(|c| super::scaling::broken(&c.strategies, 58).len()).sum::<usize>() + marks.len();
    let (upper, legend) = area.split_vertically(area.dim_in_pixel().1 as i32 - 15 * lines as i32 - 8);
    let mut chart = ChartBuilder::on(&upper)
        .margin(8)
        .margin_right(16)
        .caption(title, font(15))
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d((2f64..right).log_scale().base(2.0), (low.max(0.001) * 0.8..high * 1.25).log_scale())?;
    chart
        .configure_mesh()
        .x_label_formatter(&|n| format!("{n:.0}"))
        .y_label_formatter(&|n| crate::table::count((n * 100.0).round() / 100.0))
        .x_desc("CPUs")
        .y_desc(axis)
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(font(12))
        .axis_desc_style(font(12))
        .draw()?;
    let mut y = 4;
    for (i, curve) in curves.iter().enumerate() {
        let colour = SERIES[i % SERIES.len()];
        chart.draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)))?;
        chart.draw_series(curve.points.iter().map(|p| Circle::new(*p, 3, colour.filled())))?;
        for (n, line) in super::scaling::broken(&curve.strategies, 58).into_iter().enumerate() {
            if n == 0 {
                legend.draw(&Circle::new((20, y + 7), 4, colour.filled()))?;
            }
            legend.draw(&Text::new(line, (30, y), font(12).color(&INK)))?;
            y += 15;
        }
    }
    for mark in marks {
        chart.draw_series([Cross::new((f64::from(mark.cpus), mark.value), 6, INK.stroke_width(2))])?;
        legend.draw(&Cross::new((20, y + 7), 4, INK.stroke_width(2)))?;
        legend.draw(&Text::new(format!("published: {}", mark.words), (30, y), font(12).color(&INK)))?;
        y += 15;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(mark: &str) -> Scale {
        let point = |strategy: &str, cpus: u32, syncs: u32| {
            format!(
                r#"{{"cpus":{cpus},"work":"collapse","strategy":"{strategy}","transport":"ipi","sync_ipis":{syncs},"model_ns":{}}}"#,
                1000 * (syncs + 1)
            )
        };
        let points = [point("none", 2, 0), point("none", 64, 0), point("sync-all", 2, 1), point("sync-all", 64, 63)];
        let text = format!(
            r#"{{"preset":"p","about":"a","points":[{}],"published":[{{"what":"w","unit":"u","published":4,"model":39,"mark":{mark}}}]}}"#,
            points.join(",")
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_published_number_is_marked_where_it_belongs() {
        let mark = |value: f64| {
            let words = format!(
                r#"{{"work":"collapse","quantity":"sync_ipis","strategy":"sync-all","cpus":64,"value":{value},"words":"so many"}}"#
            );
            published(&scale(&words), Path::new("f")).unwrap().expect("there is one").svg
        };
        let (low, high) = (mark(1.0), mark(63.0));
        for svg in [&low, &high] {
            assert!(svg.contains("published: so many"), "{svg}");
        }
        // A cross is two lines; that of a larger number stands elsewhere.
        assert_ne!(low, high);
        assert!(published(&scale("null"), Path::new("f")).unwrap().is_none());
        assert!(!times(&scale("null"), Path::new("f")).unwrap().expect("there are points").svg.contains("published"));
    }
}
