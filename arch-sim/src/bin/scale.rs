//! The event model on the command line: curves over the number of CPUs, and what others have published beside it.
//! `cargo xtask scale` builds and calls this.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use arch_sim::model::strategies::{Listed, everyone};
use arch_sim::scale::costs::{Grade, Preset};
use arch_sim::scale::curve::{self, Point, Range};
use arch_sim::scale::picture::{self, Quantity};
use arch_sim::scale::published::{self, Comparison};
use arch_sim::scale::sensitivity::Need;
use clap::Parser;
use kernel::tlb::transport::TransportId;
use serde::Serialize;

/// Draws what each strategy does on 2 to 4,096 CPUs, by a discrete-event MODEL of interrupts and their costs
#[derive(Parser)]
#[command(name = "cargo xtask scale", version, after_help = AFTER)]
struct Scale {
    /// Sizes: powers of two from A to B, and both ends
    #[arg(long, value_name = "A..B", default_value = "2..4096", value_parser = sizes)]
    cpus: Sizes,
    /// Costs: x86-2s, x86-384, arm-128
    #[arg(long, value_name = "NAME", default_value = "x86-2s")]
    preset: String,
    /// A file of presets instead of those that come with the model (arch-sim/src/scale/presets.toml)
    #[arg(long, value_name = "FILE")]
    presets: Option<PathBuf>,
    /// Strategies, or all
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "all")]
    strategy: Vec<String>,
    /// How flushes travel: ipi or broadcast; the preset's own if not given
    #[arg(long, value_name = "NAME")]
    transport: Option<String>,
    /// Operations of each CPU that works, in each point
    #[arg(long, value_name = "K", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    ops: u64,
    /// Seed of where walkers are in their walks
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Where scale.json, scale.csv and the pictures go
    #[arg(long, value_name = "FOLDER", default_value = "target/scale")]
    out: PathBuf,
}

const AFTER: &str = "Counts of interrupts are made by the kernel's own decisions. Times are the model's: sums of costs that the presets name the sources of.\n\
                     Exit status: 0, or 2 for bad input, 3 when a file cannot be written.";

#[derive(Clone, Debug)]
struct Sizes(Vec<u32>);

fn sizes(given: &str) -> Result<Sizes, String> {
    let (from, to) = given.split_once("..").unwrap_or((given, given));
    let number = |word: &str| word.parse::<u32>().map_err(|_| format!("\"{word}\" is no number of CPUs"));
    let (from, to) = (number(from)?, number(to)?);
    if !(1..=4096).contains(&from) || !(from..=4096).contains(&to) {
        return Err(format!("{from}..{to} is no range of 1 to 4096 CPUs"));
    }
    Ok(Sizes(curve::sizes(from, to)))
}

/// What stands in scale.json.
#[derive(Serialize)]
struct Document<'a> {
    /// Nobody shall take it for a measurement.
    model: bool,
    preset: &'a str,
    about: &'a str,
    costs: Vec<CostLine<'a>>,
    points: &'a [Point],
    published: &'a [Comparison],
}

#[derive(Serialize)]
struct CostLine<'a> {
    name: &'static str,
    ns: u64,
    assumed: bool,
    source: &'a str,
}

/// What a person gave and cannot be.
#[derive(Debug)]
struct BadInput(String);

fn main() -> ExitCode {
    let scale = Scale::parse();
    let prepared = prepare(&scale);
    let (range, strategies, text) = match prepared {
        Ok(prepared) => prepared,
        Err(BadInput(sentence)) => {
            eprintln!("error: {sentence}");
            return ExitCode::from(2);
        }
    };
    match draw(&scale, &range, &strategies, text.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn prepare(scale: &Scale) -> Result<(Range, Vec<Listed>, Option<String>), BadInput> {
    let bad = |error: &dyn std::fmt::Display| BadInput(error.to_string());
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|e| BadInput(format!("cannot read {}: {e}", path.display())))
    };
    let text = scale.presets.as_ref().map(read).transpose()?;
    let costs = Preset::named(text.as_deref(), &scale.preset).map_err(|e| bad(&e))?;
    let transport = match &scale.transport {
        None => costs.transport(),
        Some(name) => [TransportId::Ipi, TransportId::Broadcast].into_iter().find(|t| t.name() == name),
    };
    let transport = transport.ok_or_else(|| BadInput("--transport is ipi or broadcast here".into()))?;
    let mut strategies = Vec::new();
    for name in &scale.strategy {
        let found: Vec<Listed> = everyone().into_iter().filter(|s| name == "all" || s.name == name).collect();
        if found.is_empty() {
            let names: Vec<&str> = everyone().iter().map(|s| s.name).collect();
            return Err(BadInput(format!("there is no strategy \"{name}\"; there are: {}", names.join(", "))));
        }
        for one in found {
            if strategies.iter().all(|s: &Listed| s.name != one.name) {
                strategies.push(one);
            }
        }
    }
    let Sizes(cpus) = scale.cpus.clone();
    Ok((Range { costs, transport, cpus, ops: scale.ops, seed: scale.seed }, strategies, text))
}

fn draw(scale: &Scale, range: &Range, strategies: &[Listed], text: Option<&str>) -> anyhow::Result<()> {
    let total = strategies.len() * range.cpus.len() * 2;
    let mut done = 0;
    let mut points = Vec::new();
    for strategy in strategies {
        points.extend(curve::points(range, strategy, || done += 1));
        eprintln!("scale: {done} of {total} points, {}", strategy.name);
    }
    // The published numbers are of a preset that a file of one's own may leave out.
    let published = published::all(text).or_else(|_| published::all(None))?;
    print!("{}", report(scale, range, &points, &published));
    write(scale, range, &points, &published)
}

fn write(scale: &Scale, range: &Range, points: &[Point], published: &[Comparison]) -> anyhow::Result<()> {
    let out = &scale.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let put = |name: String, content: &[u8]| {
        let path = out.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    let costs = range.costs.costs().map(|(name, cost)| CostLine {
        name,
        ns: cost.ns,
        assumed: cost.grade == Grade::Assumed,
        source: &cost.source,
    });
    let document = Document {
        model: true,
        preset: &scale.preset,
        about: &range.costs.about,
        costs: costs.into(),
        points,
        published,
    };
    put("scale.json".into(), (serde_json::to_string_pretty(&document)? + "\n").as_bytes())?;
    let mut table = csv::Writer::from_writer(Vec::new());
    points.iter().try_for_each(|p| table.serialize(p))?;
    put("scale.csv".into(), &table.into_inner().map_err(|e| anyhow::anyhow!("{e}"))?)?;
    for work in ["collapse", "unshare"] {
        for (quantity, name) in [(Quantity::Interrupts, "interrupts"), (Quantity::Time, "time")] {
            let title = format!("{work}, {}, {}", scale.preset, range.transport.name());
            put(format!("{work}-{name}.svg"), picture::svg(points, work, quantity, &title)?.as_bytes())?;
        }
    }
    eprintln!("scale: scale.json, scale.csv and four pictures are in {}", shown(out));
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What is printed: depends on the options only.
fn report(scale: &Scale, range: &Range, points: &[Point], published: &[Comparison]) -> String {
    let costs = &range.costs;
    let assumed = costs.costs().iter().filter(|(_, cost)| cost.grade == Grade::Assumed).count();
    let mut out = format!(
        "MODEL, not a measurement: {} ({}), flushes by {}.\n{assumed} of its {} costs are assumed; scale.json names the sources.\n",
        scale.preset,
        costs.about,
        range.transport.name(),
        costs.costs().len()
    );
    let columns = shown_sizes(&range.cpus);
    for (work, words) in [
        ("collapse", format!("collapse, {} CPUs with the mm, {} of them walking", curve::MASK, curve::WALKERS)),
        ("unshare", format!("unshare, {} CPUs leave at once", curve::LEAVERS)),
    ] {
        let _ = writeln!(
            out,
            "\n{words}\n  interrupts of an operation, flush and sync / microseconds (model), on so many CPUs:"
        );
        let _ = writeln!(out, "  {:16}{}", "", columns.iter().map(|n| format!("{n:>16}")).collect::<String>());
        let mut names: Vec<&str> = points.iter().map(|p| p.strategy).collect();
        names.dedup();
        for name in names {
            let cell = |cpus: &u32| {
                let point = points.iter().find(|p| p.work == work && p.strategy == name && p.cpus == *cpus);
                let text = |p: &Point| format!("{:.0} / {:.1}", p.flush_ipis + p.sync_ipis, p.model_ns / 1e3);
                format!("{:>16}", point.map_or_else(String::new, text))
            };
            let _ = writeln!(out, "  {name:16}{}", columns.iter().map(cell).collect::<String>());
        }
    }
    out += "\nPublished numbers, and the model's:\n";
    for one in published {
        let _ = writeln!(out, "  {}:", one.what);
        let (published, model) = (number(one.published), number(one.model));
        let compared =
            format!("published {published}, model {model} {} ({:+.1} %): {}.", one.unit, one.difference(), one.why);
        fill(&mut out, &compared);
        if !one.needs.is_empty() {
            let needs: Vec<String> = one.needs.iter().map(Need::in_words).collect();
            fill(&mut out, &format!("With nothing else changed it would agree {}.", needs.join("; ")));
        }
    }
    out
}

/// Adds `text` in lines of at most [`WIDTH`] columns, four of them empty.
fn fill(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > WIDTH {
            out.push('\n');
            column = 0;
        }
        let before = if column == 0 { "    " } else { " " };
        *out += before;
        *out += word;
        column += before.len() + width;
    }
    out.push('\n');
}

/// Columns of a line of text.
const WIDTH: usize = 110;

/// As many sizes as fit a line.
fn shown_sizes(sizes: &[u32]) -> Vec<u32> {
    let step = sizes.len().div_ceil(5).max(1);
    sizes.iter().rev().step_by(step).rev().copied().collect()
}

fn number(n: f64) -> String {
    if n.fract() == 0.0 { format!("{n:.0}") } else { format!("{n:.2}") }
}
