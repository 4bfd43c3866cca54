//! Interrupts against the number of CPUs, with the closed form drawn through the counts.

use plotters::prelude::*;

use super::super::figure::{Area, Figure, GRID, INK, SERIES, draw, font};
use super::super::source::{Source, distinct, is_native, is_plain, mean, richest};
use super::{ceiling, command};
use crate::records::{Record, number, text};

/// A number of CPUs, what was counted, and what the closed form says.
type Point = (f64, f64, f64);

/// Strategies with the same points.
struct Curve {
    strategies: Vec<String>,
    points: Vec<Point>,
}

/// The figure, of the workload that was run on most numbers of CPUs, and of those under most strategies.
pub(crate) fn figure(sources: &[Source]) -> anyhow::Result<Option<Figure>> {
    let wanted = |row: &Record| {
        let predicted = ["flush", "sync"].iter().all(|w| number(row, &format!("predicted_{w}_ipis_per_op")).is_some());
        text(row, "engine") == "icount"
            && is_plain(row)
            && is_native(row)
            && predicted
            && text(row, "mode") != "isolated"
    };
    let Some((source, rows)) = richest(sources, &["workload"], "cpus", wanted) else { return Ok(None) };
    if distinct(&rows, "cpus").len() < 2 {
        return Ok(None);
    }
    let (archs, modes) = (distinct(&rows, "arch"), distinct(&rows, "mode"));
    let mut charts = Vec::new();
    for arch in &archs {
        for mode in &modes {
            let of: Vec<&Record> =
                rows.iter().copied().filter(|r| text(r, "arch") == *arch && text(r, "mode") == *mode).collect();
            let others = match mode.as_str() {
                "same" => "others walk the same mm".to_owned(),
                "other" => "others walk another mm".to_owned(),
                mode => format!("mode {mode}"),
            };
            charts.push((format!("{arch} ({}), {others}", distinct(&of, "transport").concat()), curves(&of)));
        }
    }
    let all = || charts.iter().flat_map(|(_, curves)| curves).flat_map(|c| &c.points);
    let (right, top) = all().fold((2.0f64, 1.0f64), |(x, y), p| (x.max(p.0), y.max(p.1.max(p.2))));
    let columns = modes.len().min(2);
    let lines = charts.len().div_ceil(columns);
    let svg = draw(330 * lines as u32, |area| {
        for (area, (title, curves)) in area.split_evenly((lines, columns)).iter().zip(&charts) {
            chart(area, title, (right, ceiling(top * 1.05)), curves)?;
        }
        Ok(())
    })?;
    let workload = distinct(&rows, "workload").concat();
    Ok(Some(Figure {
        name: "scaling",
        title: "Interrupts against the number of CPUs",
        shows: format!(
            "Flush and sync interrupts of one {workload}, together, against the number of CPUs: dots are counts, lines the closed form, which the \
             kernel computes without a look at what it did."
        ),
        engine: "QEMU, icount".into(),
        command: command(source),
        svg,
    }))
}

/// One curve for all strategies that have the same points.
fn curves(rows: &[&Record]) -> Vec<Curve> {
    let mut curves: Vec<Curve> = Vec::new();
    for strategy in distinct(rows, "strategy") {
        let of: Vec<&Record> = rows.iter().copied().filter(|r| text(r, "strategy") == strategy).collect();
        let mut points: Vec<Point> = distinct(&of, "cpus")
            .into_iter()
            .filter_map(|cpus| {
                let cell: Vec<&Record> = of.iter().copied().filter(|r| text(r, "cpus") == cpus).collect();
                let sum = |prefix: &str| {
                    let part = |what: &str| mean(&cell, &format!("{prefix}{what}_ipis_per_op"));
                    Some(part("flush")? + part("sync")?)
                };
                Some((cpus.parse().ok()?, sum("")?, sum("predicted_")?))
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        match curves.iter_mut().find(|c| c.points == points) {
            Some(curve) => curve.strategies.push(strategy),
            None => curves.push(Curve { strategies: vec![strategy], points }),
        }
    }
    curves.sort_by(|a, b| {
        b.points.last().map(|p| p.1).unwrap_or(0.0).total_cmp(&a.points.last().map(|p| p.1).unwrap_or(0.0))
    });
    curves
}

fn chart(area: &Area<'_>, title: &str, (right, top): (f64, f64), curves: &[Curve]) -> anyhow::Result<()> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(16)
        .caption(title, font(15))
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(0f64..right * 1.04, 0f64..top)?;
    chart
        .configure_mesh()
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|n| format!("{n:.0}"))
        .y_label_formatter(&|n| format!("{n:.0}"))
        .x_desc("CPUs")
        .y_desc("CPUs interrupted per operation")
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(font(12))
        .axis_desc_style(font(12))
        .draw()?;
    for (i, curve) in curves.iter().enumerate() {
        let colour = SERIES[i % SERIES.len()];
        let line = LineSeries::new(curve.points.iter().map(|p| (p.0, p.2)), colour.stroke_width(2));
        chart.draw_series(line)?;
        chart.draw_series(curve.points.iter().map(|p| Circle::new((p.0, p.1), 4, colour.filled())))?;
    }
    // The legend stands in the upper left corner, where the curves are low.
    let mut y = 32;
    for (i, curve) in curves.iter().enumerate() {
        let colour = SERIES[i % SERIES.len()];
        for (n, line) in broken(&curve.strategies, 44).into_iter().enumerate() {
            if n == 0 {
                area.draw(&Circle::new((66, y + 7), 4, colour.filled()))?;
            }
            area.draw(&Text::new(line, (76, y), font(12).color(&INK)))?;
            y += 15;
        }
    }
    Ok(())
}

/// Names with commas, in lines of at most `width` characters.
pub(super) fn broken(names: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (i, name) in names.iter().enumerate() {
        let word = if i + 1 < names.len() { format!("{name},") } else { name.clone() };
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => *line += &format!(" {word}"),
            _ => lines.push(word),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(strategy: &str, cpus: u32, flush: f64, sync: f64) -> Record {
        let text = format!(
            r#"{{"strategy":"{strategy}","cpus":{cpus},"flush_ipis_per_op":{flush},"sync_ipis_per_op":{sync},
                 "predicted_flush_ipis_per_op":{flush},"predicted_sync_ipis_per_op":3.0}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn strategies_with_the_same_counts_are_one_curve() {
        let rows = [
            row("a", 4, 3.0, 3.0),
            row("a", 2, 1.0, 1.0),
            row("b", 2, 1.0, 1.0),
            row("b", 4, 3.0, 3.0),
            row("c", 2, 0.0, 0.0),
        ];
        let curves = curves(&rows.iter().collect::<Vec<_>>());
        assert_eq!(curves.len(), 2);
        assert_eq!(
            (curves[0].strategies.concat(), &curves[0].points[..]),
            ("ab".into(), &[(2.0, 2.0, 4.0), (4.0, 6.0, 6.0)][..])
        );
    }

    #[test]
    fn names_are_broken_between_words() {
        let names: Vec<String> = ["none", "static-hook", "coverage"].map(String::from).into();
        assert_eq!(broken(&names, 20), ["none, static-hook,", "coverage"]);
    }
}
