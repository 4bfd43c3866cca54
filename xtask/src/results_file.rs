//! The results file: one JSON object a line, a summary last, and never at the price of results that were there.
//!
//! Rows go to `PATH.partial`, each as soon as it is known, and that file takes the place of PATH when the run has
//! finished. A run that fails leaves PATH alone, unless there was no such file; its own rows stay readable either way,
//! without a summary.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use crate::error::bad_input;
use crate::rows::{Row, Setting};

/// A results file that is being written.
pub(crate) struct ResultsFile {
    path: PathBuf,
    /// Where the rows go until the run has finished; `None` for a pipe or a device, which is written to directly.
    partial: Option<PathBuf>,
    file: File,
    rows: usize,
    /// Bytes of complete lines.
    complete: u64,
    /// Why a row could not be written; then no more are tried.
    error: Option<std::io::Error>,
}

impl ResultsFile {
    /// Begins the file for `path`.
    pub(crate) fn create(path: &Path) -> anyhow::Result<ResultsFile> {
        let device = path.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir());
        let refuse = |error| bad_input(format!("results cannot be written to {}: {error}", path.display()));
        if path.is_dir() {
            return Err(refuse("it is a directory".to_owned()));
        }
        let partial = (!device).then(|| {
            let mut name = path.as_os_str().to_owned();
            name.push(".partial");
            PathBuf::from(name)
        });
        let file = match &partial {
            Some(partial) => File::create(partial),
            None => OpenOptions::new().write(true).open(path),
        };
        let file = file.map_err(|error| refuse(error.to_string()))?;
        Ok(ResultsFile { path: path.to_owned(), partial, file, rows: 0, complete: 0, error: None })
    }

    /// Adds a row. A failure is remembered and told at the end, so that the run still prints its table.
    pub(crate) fn add(&mut self, row: &Row, setting: &Setting) -> anyhow::Result<()> {
        let line = row.json(setting)?;
        if self.error.is_none() {
            match self.write_line(line) {
                Ok(()) => self.rows += 1,
                Err(error) => self.error = Some(error),
            }
        }
        Ok(())
    }

    /// Adds an object of another kind.
    pub(crate) fn add_object(&mut self, object: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(object).context("a result cannot be written as JSON")?;
        if self.error.is_none() {
            match self.write_line(line) {
                Ok(()) => self.rows += 1,
                Err(error) => self.error = Some(error),
            }
        }
        Ok(())
    }

    fn write_line(&mut self, mut line: String) -> std::io::Result<()> {
        line.push('\n');
        let written = self.file.write_all(line.as_bytes());
        match written {
            Ok(()) => self.complete += line.len() as u64,
            // Half a line would spoil the lines before it for whoever reads them.
            Err(_) if self.partial.is_some() => self.file.set_len(self.complete)?,
            Err(_) => {}
        }
        written
    }

    /// Ends the file with its summary, and puts it in its place.
    pub(crate) fn finish(mut self, summary: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(summary).context("the summary cannot be written as JSON")?;
        if self.error.is_none() {
            self.error = self.write_line(line).and_then(|()| self.sync()).err();
        }
        let error = self.error.take();
        let Some(error) = error else {
            if let Some(partial) = &self.partial {
                std::fs::rename(partial, &self.path)
                    .with_context(|| format!("the results are in {} and cannot be moved", partial.display()))?;
            }
            return Ok(());
        };
        let rest = self.abandon().map_or(String::new(), |kept| format!("; {kept}"));
        Err(error).with_context(|| format!("the results could not be written{rest}"))
    }

    fn sync(&self) -> std::io::Result<()> {
        if self.partial.is_some() { self.file.sync_all() } else { Ok(()) }
    }

    /// Leaves the file without a summary: the run did not finish. Says where the rows are, if there are any.
    pub(crate) fn abandon(self) -> Option<String> {
        let partial = self.partial.as_ref()?;
        if self.rows == 0 {
            let _ = std::fs::remove_file(partial);
            return None;
        }
        let free = !self.path.exists();
        let place = if free && std::fs::rename(partial, &self.path).is_ok() { &self.path } else { partial };
        Some(format!("the rows of finished cells ({}) are in {}, without a summary", self.rows, place.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::rows::Summary;
    use crate::rows::tests::{cell, setting};
    use kernel::suite::Mode;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("xtask-results-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn row() -> Row {
        Row::resolve(Arch::X86_64, cell(0, 0, Mode::Same)).unwrap()
    }

    fn summary() -> Summary<'static> {
        let (archs, engine) = (vec!["x86_64"], "icount");
        Summary { schema: 1, summary: true, rows: 1, unexpected: 0, archs, cpus: 4, ops: 64, seed: 1, engine }
    }

    #[test]
    fn a_finished_file_ends_with_the_summary() {
        let directory = directory("finished");
        let path = directory.join("r.json");
        std::fs::write(&path, "old\n").unwrap();
        let mut file = ResultsFile::create(&path).unwrap();
        file.add(&row(), &setting()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\n");
        file.finish(&summary()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("{\"schema\":1,\"summary\":true,\"rows\":1,\"unexpected\":0,"));
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_run_without_a_row_leaves_the_old_file_and_nothing_else() {
        let directory = directory("empty");
        let path = directory.join("r.json");
        std::fs::write(&path, "old\n").unwrap();
        assert_eq!(ResultsFile::create(&path).unwrap().abandon(), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\n");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_run_that_dies_keeps_old_and_new_rows() {
        let directory = directory("dies");
        let path = directory.join("r.json");
        for (old, place) in [(None, "r.json"), (Some("old\n"), "r.json.partial")] {
            let _ = std::fs::remove_file(&path);
            if let Some(old) = old {
                std::fs::write(&path, old).unwrap();
            }
            let mut file = ResultsFile::create(&path).unwrap();
            file.add(&row(), &setting()).unwrap();
            let said = file.abandon().unwrap();
            assert!(said.contains("cells (1)") && said.contains(place), "{said}");
            assert_eq!(std::fs::read_to_string(directory.join(place)).unwrap().lines().count(), 1);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_full_disk_is_told_at_the_end() {
        let mut file = ResultsFile::create(Path::new("/dev/full")).unwrap();
        file.add(&row(), &setting()).unwrap();
        file.add(&row(), &setting()).unwrap();
        let error = format!("{:#}", file.finish(&summary()).unwrap_err());
        assert!(error.contains("could not be written") && error.contains("No space left"), "{error}");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_refused_at_once() {
        assert!(ResultsFile::create(Path::new("/no/such/directory/r.json")).is_err());
        assert!(ResultsFile::create(&std::env::temp_dir()).is_err());
    }
}
