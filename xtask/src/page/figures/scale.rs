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
    model_ns: f64,
}

/// A published number beside the model's.
#[derive(Deserialize)]
struct Published {
    what: String,
    unit: String,
    published: f64,
    model: f64,
}

/// Strategies with the same curve.
struct Curve {
    strategies: Vec<String>,
    points: Vec<(f64, f64)>,
}

/// The figure.
pub(crate) fn figure(folder: &Path) -> anyhow::Result<Option<Figure>> {
    let path = folder.join("scale.json");
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let scale: Scale = serde_json::from_str(&text).with_context(|| format!("{} is no scale.json", path.display()))?;
    let mut works: Vec<&str> = scale.points.iter().map(|p| p.work.as_str()).collect();
    works.dedup();
    works.sort_unstable();
    works.dedup();
    if works.is_empty() {
        return Ok(None);
    }
    let transport = scale.points.first().map_or("", |p| p.transport.as_str());
    let svg = draw(470, |area| {
        for (area, work) in area.split_evenly((1, works.len())).iter().zip(&works) {
            let of: Vec<&Point> = scale.points.iter().filter(|p| p.work == **work).collect();
            chart(area, &format!("MODEL: {work} ({transport})"), &curves(&of))?;
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
        name: "scale",
        title: "The simulated machine with many CPUs: a model",
        shows: format!(
            "Time of one operation against the number of CPUs, by a cost model ({}: {}), not by a measurement. Published numbers beside it: {}.",
            scale.preset,
            scale.about,
            published.join("; ")
        ),
        engine: "Discrete-event model; interrupts are the kernel's own decisions, times are sums of assumed costs"
            .into(),
        command: format!("cargo xtask scale --preset {} --out {}", scale.preset, folder.display()),
        svg,
    }))
}

fn curves(points: &[&Point]) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&point.strategy.as_str()) {
            names.push(&point.strategy);
        }
    }
    for name in names {
        let of = points.iter().filter(|p| p.strategy == name);
        let points: Vec<(f64, f64)> = of.map(|p| (f64::from(p.cpus), p.model_ns / 1000.0)).collect();
        match curves.iter_mut().find(|c| c.points == points) {
            Some(curve) => curve.strategies.push(name.to_owned()),
            None => curves.push(Curve { strategies: vec![name.to_owned()], points }),
        }
    }
    let last = |c: &Curve| c.points.last().map_or(0.0, |p| p.1);
    curves.sort_by(|a, b| last(b).total_cmp(&last(a)));
    curves
}

fn chart(area: &Area<'_>, title: &str, curves: &[Curve]) -> anyhow::Result<()> {
    let all = || curves.iter().flat_map(|c| &c.points);
    let right = all().map(|p| p.0).fold(4.0, f64::max);
    let (low, high) = all().fold((f64::MAX, 1.0f64), |(l, h), p| (l.min(p.1), h.max(p.1)));
    // The legend stands below: curves may be anywhere.
    let lines: usize = curves.iter().map(|c| super::scaling::broken(&c.strategies, 58).len()).sum();
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
        .y_label_formatter(&|n| crate::table::count((n * 10.0).round() / 10.0))
        .x_desc("CPUs")
        .y_desc("µs per operation, by the model")
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
    Ok(())
}
