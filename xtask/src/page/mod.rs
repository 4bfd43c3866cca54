//! `cargo xtask report`: the rows of experiments as one page that needs no network, and as figures.

mod bugs;
mod figure;
mod figures;
mod html;
mod matrix;
mod source;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use crate::error::Outcome;
use crate::output;
use crate::records::Record;

/// Makes one HTML file of finished experiments, and an SVG file of each figure
///
/// The page is one file: it needs no network and no other file, is light or dark as the reader's system is, and can be
/// printed.
#[derive(Args)]
pub(crate) struct Report {
    /// An experiment's folder, or a folder with such folders
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Where to write: the page as PATH/report.html, the figures beside it; FOLDER if not given
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

impl Report {
    /// Does it.
    pub(crate) fn run(self) -> anyhow::Result<Outcome> {
        let (sources, unfinished) = source::read(&self.folder)?;
        for name in &unfinished {
            eprintln!("report: {name} is not finished, and left out");
        }
        let (mut matrices, figures) = (matrix::all(&sources), figures::all(&sources, &self.folder)?);
        matrices.extend(bugs::matrix(&self.folder)?);
        let page = html::page(&sources, &unfinished, &matrices, &figures);
        let out = self.out.as_ref().unwrap_or(&self.folder);
        let drawings = out.join("figures");
        std::fs::create_dir_all(&drawings).with_context(|| format!("cannot make {}", drawings.display()))?;
        let mut written = vec![write(&out.join("report.html"), &page)?];
        for figure in &figures {
            written.push(write(&drawings.join(format!("{}.svg", figure.name)), &figure.svg)?);
        }
        output::print(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>())?;
        Ok(Outcome::Expected)
    }
}

/// The rows of all finished experiments in `folder`, each with the name of its experiment.
pub(crate) fn rows(folder: &Path) -> anyhow::Result<Vec<Record>> {
    let mut all = Vec::new();
    for source in source::read(folder)?.0 {
        let name = serde_json::Value::from(source.manifest.experiment);
        all.extend(source.rows.into_iter().map(|mut row| {
            row.insert("experiment".to_owned(), name.clone());
            row
        }));
    }
    Ok(all)
}

fn write(path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_owned())
}
