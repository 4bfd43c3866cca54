//! The page: one HTML file that needs no other.

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figure::Figure;
use super::matrix::{Field, Found, Matrix};
use super::source::Source;
use crate::records::{Record, number, text};
use crate::table::count;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The columns of the table of rows: the key, the heading, and whether rows are chosen by it.
const COLUMNS: [(&str, &str, bool); 19] = [
    ("arch", "arch", true),
    ("cpus", "CPUs", true),
    ("transport", "transport", true),
    ("strategy", "strategy", true),
    ("workload", "workload", true),
    ("mode", "mode", true),
    ("walker", "walker", true),
    ("by", "by", true),
    ("engine", "engine", true),
    ("without", "without", false),
    ("seed", "seed", false),
    ("flush_ipis_per_op", "flush", false),
    ("sync_ipis_per_op", "sync", false),
    ("redundant_sync_ipis_per_op", "redundant", false),
    ("missing_syncs_per_op", "missing", false),
    ("syncs_elided_per_op", "elided", false),
    ("tlbi_per_op", "TLBI", false),
    ("instructions_per_op", "instr.", false),
    ("verdict", "verdict", true),
];

/// The page's text. It depends on the folders and the repository only.
pub(crate) fn page(sources: &[Source], unfinished: &[String], matrices: &[Matrix], figures: &[Figure]) -> String {
    let rows: usize = sources.iter().map(|s| s.rows.len()).sum();
    let unexpected: usize = sources.iter().map(Source::unexpected).sum();
    let title = match sources {
        [one] => one.manifest.experiment.clone(),
        _ => "When does changing a page table need an interrupt?".to_owned(),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Without it a browser asks the network for an icon.
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    p.lead {
                        (rows) " cells in " (sources.len()) (if sources.len() == 1 { " experiment" } else { " experiments" }) ". "
                        @if unexpected == 0 {
                            span.chip.safe { "all as expected" }
                        } @else {
                            span.chip.wrong { (unexpected) " not as expected" }
                        }
                        " All counts are events and instructions, in QEMU, and never times."
                    }
                    @if !unfinished.is_empty() {
                        p { "Not finished, and left out: " (unfinished.join(", ")) "." }
                    }
                    nav {
                        a href="#claims" { "Claims" }
                        @if !matrices.is_empty() { a href="#verdicts" { "Verdicts" } }
                        @for figure in figures { a href=(format!("#{}", figure.name)) { (figure.title) } }
                        a href="#rows" { "All rows" }
                        a href="#origin" { "Made with" }
                    }
                }
                main {
                    (claims(sources))
                    @if !matrices.is_empty() {
                        section id="verdicts" { @for m in matrices { (matrix(m)) } }
                    }
                    @for figure in figures { (drawing(figure)) }
                    (table(sources))
                    (origin(sources))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
    .into_string()
}

fn claims(sources: &[Source]) -> Markup {
    html! {
        section id="claims" {
            h2 { "Claims" }
            div.scroll {
                table.sortable.claims {
                    thead { tr {
                        th data-sort="text" { "experiment" }
                        th data-sort="text" { "what it shows" }
                        th.number data-sort="number" { "cells" }
                        th data-sort="text" { "as expected" }
                    } }
                    tbody {
                        @for source in sources {
                            tr {
                                td { code { (source.manifest.experiment) } }
                                td.wide { (source.manifest.claim) }
                                td.number { (source.rows.len()) }
                                td {
                                    @match source.unexpected() {
                                        0 => span.chip.safe { "yes" },
                                        n => span.chip.wrong { "no, " (n) " rows" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn made_again(engine: &str, command: &str) -> Markup {
    html! { p.again { (engine) ". To make it again: " code { (command) } } }
}

fn matrix(m: &Matrix) -> Markup {
    // The heading has a line for each word; neighbours with the same beginning share a cell.
    let levels = m.columns.first().map_or(0, Vec::len);
    let spans = |level: usize| {
        let mut spans: Vec<(&str, usize)> = Vec::new();
        for (i, column) in m.columns.iter().enumerate() {
            match spans.last_mut() {
                Some((_, n)) if i > 0 && m.columns[i - 1][..=level] == column[..=level] => *n += 1,
                _ => spans.push((&column[level], 1)),
            }
        }
        spans
    };
    html! {
        figure.matrix {
            h2 { (m.title) }
            p { (m.shows) }
            div.scroll {
                table {
                    thead {
                        @for level in 0..levels {
                            tr {
                                @if level == 0 { th rowspan=(levels) { (m.of) } }
                                @for (word, span) in spans(level) { th.place colspan=(span) { (word) } }
                            }
                        }
                    }
                    tbody {
                        @for (name, found) in &m.lines {
                            tr {
                                th scope="row" { (name) }
                                @for cell in found {
                                    @match cell {
                                        Some(Field { found, note }) => td class=(format!("verdict {}", found.class())) title=[(!note.is_empty()).then_some(note)] { (found.words()) },
                                        None => td.verdict.none { "–" },
                                    }
                                }
                            }
                        }
                    }
                }
            }
            (made_again("The engine is in the heading", &m.command))
        }
    }
}

fn drawing(figure: &Figure) -> Markup {
    html! {
        figure id=(figure.name) {
            h2 { (figure.title) }
            p { (figure.shows) }
            div.scroll { (PreEscaped(figure.inline())) }
            (made_again(&figure.engine, &figure.command))
        }
    }
}

fn table(sources: &[Source]) -> Markup {
    let rows: Vec<&Record> = sources.iter().flat_map(|s| &s.rows).collect();
    let choices = |key: &str| rows.iter().map(|row| words(row, key)).collect::<BTreeSet<String>>();
    html! {
        section id="rows" {
            h2 { "All rows" }
            p { "Counts are per operation. A click on a heading sorts; the fields above choose." }
            div.filters {
                label { "search " input type="search" id="search" placeholder="words of a row"; }
                @for (column, (key, heading, chosen)) in COLUMNS.iter().enumerate() {
                    @if *chosen && choices(key).len() > 1 {
                        label {
                            (heading) " "
                            select data-column=(column) {
                                option value="" { "all" }
                                @for choice in choices(key) { option value=(choice) { (choice) } }
                            }
                        }
                    }
                }
                output id="shown" { (rows.len()) " of " (rows.len()) " rows" }
            }
            div.scroll {
                table.sortable id="all" {
                    thead { tr {
                        @for (key, heading, _) in COLUMNS {
                            @if is_number(key) { th.number data-sort="number" { (heading) } }
                            @else { th data-sort="text" { (heading) } }
                        }
                    } }
                    tbody {
                        @for row in &rows {
                            tr {
                                @for (key, ..) in COLUMNS { (field(row, key)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn is_number(key: &str) -> bool {
    key.ends_with("_per_op") || key == "cpus" || key == "seed"
}

/// What is shown of a row under a heading, and chosen by.
fn words(row: &Record, key: &str) -> String {
    match text(row, key) {
        verdict if key == "verdict" && verdict == "na" => Found::NotApplicable.words().to_owned(),
        words => words,
    }
}

fn field(row: &Record, key: &str) -> Markup {
    if key == "verdict" {
        return match row.get("problem") {
            Some(_) => html! { td.verdict.wrong title=(text(row, "problem")) { (words(row, key)) } },
            None => html! { td class=(format!("verdict {}", text(row, key))) { (words(row, key)) } },
        };
    }
    match number(row, key) {
        Some(n) if is_number(key) => html! { td.number { (count(n)) } },
        _ => html! { td { (text(row, key)) } },
    }
}

fn origin(sources: &[Source]) -> Markup {
    html! {
        section id="origin" {
            h2 { "Made with" }
            div.scroll {
                table.claims {
                    thead { tr { th { "experiment" } th { "revision" } th { "tools" } th { "images (SHA-256)" } } }
                    tbody {
                        @for source in sources {
                            @let m = &source.manifest;
                            tr {
                                td { code { (m.experiment) } }
                                td { code { (short(&m.revision)) } }
                                td { @for (tool, version) in &m.tools { (tool) " " (plain(version)) br; } }
                                td { @for (image, hash) in &m.images { (image) " " code { (short(&plain(hash))) } br; } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The first digits of a hash, and the sign that says that something was changed since.
fn short(hash: &str) -> String {
    let digits: String = hash.chars().take(12).collect();
    if hash.ends_with('+') { digits + "+" } else { digits }
}
