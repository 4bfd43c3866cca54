//! Figures: what one consists of, the colours of all of them, and the charts that they share.
//!
//! A figure is drawn once, as an SVG file with fixed colours. On the page the same SVG takes its colours from the page,
//! which is light or dark.

use anyhow::anyhow;
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Text and axes.
pub(crate) const INK: RGBColor = RGBColor(0x1b, 0x1f, 0x24);
/// Lines behind the data.
pub(crate) const GRID: RGBColor = RGBColor(0xd9, 0xde, 0xe3);
/// Colours that people with any colour vision tell apart (Okabe and Ito, 2008), dark enough for white paper.
pub(crate) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
pub(crate) const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
pub(crate) const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
pub(crate) const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
pub(crate) const PURPLE: RGBColor = RGBColor(0xb0, 0x5a, 0x8f);
pub(crate) const SKY: RGBColor = RGBColor(0x3a, 0x9b, 0xd6);

/// For each colour, the variable of the page's style that replaces it there.
const VARIABLES: [(RGBColor, &str); 8] = [
    (INK, "--ink"),
    (GRID, "--grid"),
    (BLUE, "--blue"),
    (VERMILION, "--vermilion"),
    (ORANGE, "--orange"),
    (GREEN, "--green"),
    (PURPLE, "--purple"),
    (SKY, "--sky"),
];

/// The colours of curves, in order.
pub(crate) const SERIES: [RGBColor; 6] = [BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY];

/// The width of every figure.
pub(crate) const WIDTH: u32 = 960;

/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A figure of the report.
pub(crate) struct Figure {
    /// The name of its file, without the ending.
    pub(crate) name: &'static str,
    /// A few words.
    pub(crate) title: &'static str,
    /// What it shows, in a sentence.
    pub(crate) shows: String,
    /// The engine that it was counted on.
    pub(crate) engine: String,
    /// The command that makes its rows again.
    pub(crate) command: String,
    /// The drawing.
    pub(crate) svg: String,
}

impl Figure {
    /// The drawing as it stands in the page: as wide as there is room, in the page's colours, and named for those who
    /// cannot see it.
    pub(crate) fn inline(&self) -> String {
        let mut svg = self.svg.clone();
        for (RGBColor(r, g, b), variable) in VARIABLES {
            svg = svg.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"var({variable})\""));
        }
        let label = self.title.replace('"', "&quot;");
        match (svg.find("<svg width="), svg.find(" viewBox=")) {
            (Some(start), Some(end)) if start < end => {
                svg.replace_range(..end, &format!("<svg role=\"img\" aria-label=\"{label}\""));
                svg
            }
            _ => svg,
        }
    }
}

/// Draws an SVG of this height.
pub(crate) fn draw(height: u32, drawing: impl FnOnce(&Area<'_>) -> anyhow::Result<()>) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        drawing(&area)?;
        area.present().map_err(|error| anyhow!("a figure cannot be drawn: {error}"))?;
    }
    Ok(svg)
}

/// Text of this size.
pub(crate) fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// One bar: its label, its parts from the left, and what stands behind it.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) parts: Vec<(f64, RGBColor)>,
    /// What is drawn to the left of zero.
    pub(crate) left: Option<(f64, RGBColor)>,
    pub(crate) note: String,
}

/// The height of a chart of so many bars.
pub(crate) fn height_of_bars(bars: usize) -> u32 {
    74 + 19 * bars as u32
}

/// Horizontal bars from top to bottom. `span` is the ends of the axis: charts beside each other have the same.
pub(crate) fn bars(area: &Area<'_>, title: &str, axis: &str, span: (f64, f64), bars: &[Bar]) -> anyhow::Result<()> {
    let count = bars.len();
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(20)
        .caption(title, font(15))
        .x_label_area_size(34)
        .y_label_area_size(122)
        .build_cartesian_2d(span.0..span.1, 0f64..count as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(6)
        .x_label_formatter(&|n| crate::table::count((n.abs() * 1000.0).round() / 1000.0))
        .x_desc(axis)
        .axis_style(GRID)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(font(12))
        .axis_desc_style(font(12))
        .draw()?;
    for (i, bar) in bars.iter().enumerate() {
        let (top, bottom) = ((count - i) as f64 - 0.16, (count - i) as f64 - 0.84);
        let mut at = 0.0;
        let left = bar.left.map(|(length, colour)| (-length, 0.0, colour));
        let right = bar.parts.iter().map(|(length, colour)| {
            at += length;
            (at - length, at, *colour)
        });
        let rectangles: Vec<_> = left.into_iter().chain(right).collect();
        chart.draw_series(
            rectangles
                .iter()
                .filter(|(from, to, _)| to > from)
                .map(|&(from, to, colour)| Rectangle::new([(from, top), (to, bottom)], colour.filled())),
        )?;
        let plain = chart.plotting_area();
        let middle = (top + bottom) / 2.0;
        let note = Text::new(bar.note.clone(), (5, 0), font(12).pos(Pos::new(HPos::Left, VPos::Center)));
        plain.draw(&(EmptyElement::at((at, middle)) + note))?;
        let start = EmptyElement::at((span.0, middle));
        let style = font(13).pos(Pos::new(HPos::Right, VPos::Center));
        plain.draw(&(start + Text::new(bar.label.clone(), (-7, 0), style)))?;
    }
    Ok(())
}

/// Coloured squares with words, in one line at the top of a figure.
pub(crate) fn legend(area: &Area<'_>, entries: &[(&str, RGBColor)]) -> anyhow::Result<()> {
    let mut x = 12;
    for (words, colour) in entries {
        area.draw(&Rectangle::new([(x, 9), (x + 12, 21)], colour.filled()))?;
        area.draw(&Text::new((*words).to_owned(), (x + 18, 9), font(13)))?;
        x += 44 + 7 * words.chars().count() as i32;
    }
    Ok(())
}
