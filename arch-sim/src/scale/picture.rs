//! The curves as SVG, always labelled as a model's.

use anyhow::anyhow;
use plotters::prelude::*;

use super::curve::Point;

/// What is drawn over the number of CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantity {
    /// Interrupts of an operation, for flush and sync.
    Interrupts,
    /// Time of an operation, by the model.
    Time,
}

impl Quantity {
    fn of(self, point: &Point) -> f64 {
        match self {
            Quantity::Interrupts => point.flush_ipis + point.sync_ipis,
            Quantity::Time => point.model_ns / 1000.0,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Quantity::Interrupts => "interrupts of one operation",
            Quantity::Time => "microseconds of one operation",
        }
    }
}

/// Nothing is drawn at its place on a logarithmic axis; it is drawn here.
const LEAST: f64 = 0.1;

/// The picture of one kind of work. `title` says of what.
pub fn svg(points: &[Point], work: &str, quantity: Quantity, title: &str) -> anyhow::Result<String> {
    let points: Vec<&Point> = points.iter().filter(|p| p.work == work).collect();
    let mut strategies: Vec<&str> = points.iter().map(|p| p.strategy).collect();
    strategies.dedup();
    let sizes = || points.iter().map(|p| p.cpus);
    let (Some(from), Some(to)) = (sizes().min(), sizes().max()) else {
        return Err(anyhow!("there are no points to draw"));
    };
    let most = points.iter().map(|p| quantity.of(p)).fold(1.0, f64::max);
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, (900, 520)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| anyhow!("{e}"))?;
        let mut chart = ChartBuilder::on(&root)
            .caption(format!("MODEL: {title}"), ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(
                (f64::from(from)..f64::from(to.max(from + 1))).log_scale(),
                (LEAST..most * 2.0).log_scale(),
            )
            .map_err(|e| anyhow!("{e}"))?;
        chart
            .configure_mesh()
            .x_desc("CPUs")
            .y_desc(format!("{} (0 is drawn at {LEAST})", quantity.words()))
            .draw()
            .map_err(|e| anyhow!("{e}"))?;
        for (i, name) in strategies.iter().enumerate() {
            let colour = Palette99::pick(i).to_rgba();
            let line = points.iter().filter(|p| p.strategy == *name);
            let line: Vec<(f64, f64)> = line.map(|p| (f64::from(p.cpus), quantity.of(p).max(LEAST))).collect();
            chart
                .draw_series(LineSeries::new(line, colour.stroke_width(2)))
                .map_err(|e| anyhow!("{e}"))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(|e| anyhow!("{e}"))?;
        root.present().map_err(|e| anyhow!("{e}"))?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use kernel::tlb::transport::TransportId;

    use super::*;
    use crate::model::strategies::everyone;
    use crate::scale::costs::Preset;
    use crate::scale::curve::{Range, points};

    #[test]
    fn every_strategy_is_drawn_and_the_picture_says_that_it_is_a_model() {
        let costs = Preset::named(None, "x86-2s").unwrap();
        let range = Range { costs, transport: TransportId::Ipi, cpus: vec![2, 8, 64], ops: 1, seed: 1 };
        let all: Vec<Point> = everyone().iter().flat_map(|s| points(&range, s, || {})).collect();
        for quantity in [Quantity::Interrupts, Quantity::Time] {
            let picture = svg(&all, "collapse", quantity, "x86-2s").unwrap();
            assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
            assert!(picture.contains("MODEL: x86-2s"));
            assert!(everyone().iter().all(|s| picture.contains(s.name)), "all are in the legend");
        }
        assert!(svg(&[], "collapse", Quantity::Time, "").is_err());
    }
}
