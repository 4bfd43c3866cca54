//! An interleaving in writing: which process takes how many steps, one after the other:
//! `cpu0*120 cpu1*3 cpu1.interrupt cpu0*7`.

use std::fmt;
use std::str::FromStr;

use super::Process;
use super::hub::{KINDS, Kind};

/// The processes in the order of their steps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Schedule(pub Vec<Process>);

/// A text that is no schedule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "\"{0}\" is no part of a schedule: cpuN, cpuN.interrupt, cpuN.nmi, cpuN.buffer, cpuN.freeze, each with *COUNT if it is more than one step"
)]
pub struct BadSchedule(String);

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, run) in self.0.chunk_by(|a, b| a == b).enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{}", name(run[0]))?;
            if run.len() > 1 {
                write!(f, "*{}", run.len())?;
            }
        }
        Ok(())
    }
}

impl FromStr for Schedule {
    type Err = BadSchedule;

    fn from_str(text: &str) -> Result<Schedule, BadSchedule> {
        let mut processes = Vec::new();
        for word in text.split_whitespace() {
            let (who, count) = match word.split_once('*') {
                Some((who, count)) => (who, count.parse().ok().filter(|n| *n <= 10_000_000)),
                None => (word, Some(1)),
            };
            match (process(who), count) {
                (Some(process), Some(count)) => processes.extend(std::iter::repeat_n(process, count)),
                _ => return Err(BadSchedule(word.into())),
            }
        }
        Ok(Schedule(processes))
    }
}

impl Schedule {
    /// How often another CPU goes on than the one before.
    pub fn switches(&self) -> usize {
        self.0.windows(2).filter(|pair| pair[0] / KINDS != pair[1] / KINDS).count()
    }
}

/// The name of a process.
pub fn name(process: Process) -> String {
    let (cpu, kind) = Kind::of(process);
    format!("cpu{cpu}{}", kind.suffix())
}

fn process(name: &str) -> Option<Process> {
    let rest = name.strip_prefix("cpu")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let cpu: usize = rest[..digits].parse().ok()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.suffix() == &rest[digits..])?;
    (cpu < super::MOST_PROCESSES / KINDS).then(|| kind.process(cpu))
}
