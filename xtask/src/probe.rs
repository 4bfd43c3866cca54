//! Probes: short runs of the checking image whose failure is an answer, not an error. The commands that search
//! (`mutate`, `hunt`, `soak`) are made of them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::arch::Arch;
use crate::build::{self, Kind, image_path};
use crate::error::Interrupted;
use crate::guest::{Guest, KernelFault};
use crate::programs;
use crate::qemu::{self, Launch};
use crate::rows::Row;
use crate::setup;
use crate::shared_memory::CpuEvents;
use crate::suite::Suite;

/// A probe's guest is small; without progress for so long it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where probes run: emulators that are there, images that are built.
pub(crate) struct Bench {
    qemus: Vec<(Arch, PathBuf)>,
}

/// One short run.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// On which machine.
    pub(crate) arch: Arch,
    /// With so many CPUs.
    pub(crate) cpus: u32,
    /// Which image.
    pub(crate) kind: Kind,
    /// What it runs.
    pub(crate) suite: Suite,
    /// A word more on the guest's command line.
    pub(crate) more: Option<&'static str>,
}

/// What came out of one probe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Rows of the cells that were finished.
    pub(crate) rows: Vec<Row>,
    /// How the kernel failed, in one sentence, if it did: a panic, a hang, a reset.
    pub(crate) fault: Option<String>,
    /// The last events of each CPU.
    pub(crate) events: Vec<CpuEvents>,
    /// Pause points that were crossed, one bit each.
    pub(crate) points: u64,
}

impl Bench {
    /// Sets up and builds what is missing for `images`.
    pub(crate) fn ready(archs: &[Arch], kind: Kind) -> anyhow::Result<Bench> {
        let wanted: Vec<(Arch, Kind)> = archs.iter().map(|&a| (a, kind)).collect();
        let stale = build::stale(&wanted);
        setup::ensure_ready(archs, !stale.is_empty())?;
        if !stale.is_empty() {
            build::build(&stale, false)?;
        }
        let found = archs.iter().map(|&arch| {
            let qemu = setup::installed_qemu(arch);
            qemu.map(|q| (arch, q.path)).ok_or_else(|| anyhow::anyhow!("{} went away during set-up", arch.qemu()))
        });
        Ok(Bench { qemus: found.collect::<anyhow::Result<_>>()? })
    }

    /// Runs `probe` to its end, or until `stop` says so, which is an error.
    pub(crate) fn run(&self, probe: &Probe, stop: &dyn Fn() -> bool) -> anyhow::Result<Outcome> {
        let Some((_, qemu)) = self.qemus.iter().find(|(arch, _)| *arch == probe.arch) else {
            anyhow::bail!("nothing was made ready for {}", probe.arch.name());
        };
        let words = probe.suite.command_line(probe.arch.native_transport());
        let launch = Launch {
            arch: probe.arch,
            qemu: qemu.clone(),
            cpus: probe.cpus,
            memory_mib: qemu::default_memory_mib(probe.cpus),
            image: image_path(probe.arch, probe.kind),
            ram: PathBuf::new(),
            serial: PathBuf::new(),
            module: probe.suite.runs_programs().then(|| programs::path(probe.arch)),
            command_line: [Some(words.as_str()), probe.more].into_iter().flatten().collect::<Vec<_>>().join(" "),
            engine: probe.suite.engine,
            gdb: false,
        };
        let mut cells = Vec::new();
        let (mut events, mut points) = (Vec::new(), 0);
        let guest = Guest::start(launch)?;
        let result = guest.supervise_and(Some(PATIENCE), stop, &mut |cell, _| cells.push(cell), &mut |memory| {
            events = memory.events().unwrap_or_default();
            points = memory.points().unwrap_or_default();
        });
        let fault = match result {
            Ok(_) => None,
            Err(error) => Some(error.downcast::<KernelFault>()?.sentence()),
        };
        let rows = cells.into_iter().map(|cell| Row::resolve(probe.arch, cell)).collect::<anyhow::Result<_>>()?;
        Ok(Outcome { rows, fault, events, points })
    }
}

/// How many probes run side by side: each needs one host thread.
pub(crate) fn at_once() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Runs `work` on every item, some side by side, and returns the results in the order of the items. Once `enough` holds
/// for a result, items after it are not begun (and their results are left out), but all before it are finished: so what
/// is returned depends on the items alone.
pub(crate) fn in_order<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T, &dyn Fn() -> bool) -> anyhow::Result<R> + Sync,
    enough: impl Fn(&R) -> bool + Sync,
) -> anyhow::Result<Vec<R>> {
    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..items.len()).collect());
    let last = AtomicUsize::new(items.len());
    let failed = AtomicBool::new(false);
    let done: Mutex<Vec<(usize, anyhow::Result<R>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                while let Some(index) = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                    let needless = || failed.load(Ordering::SeqCst) || index > last.load(Ordering::SeqCst);
                    if needless() {
                        return;
                    }
                    let result = work(&items[index], &needless);
                    if needless() && result.as_ref().is_err_and(|e| e.is::<Interrupted>()) {
                        continue;
                    }
                    match &result {
                        Ok(found) if enough(found) => drop(last.fetch_min(index, Ordering::SeqCst)),
                        Ok(_) => {}
                        Err(_) => failed.store(true, Ordering::SeqCst),
                    }
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    crate::child::check_interrupted()?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    let last = last.into_inner();
    done.into_iter().filter(|(index, result)| *index <= last || result.is_err()).map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::bad_input;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u64> = (0..32).collect();
        let slow_first = |n: &u64, _: &dyn Fn() -> bool| {
            std::thread::sleep(Duration::from_micros(500 - n * 10));
            Ok(n * 2)
        };
        let results = in_order(&items, 4, slow_first, |_| false).unwrap();
        assert_eq!(results, items.iter().map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_that_is_enough_ends_it_and_nothing_before_it_is_missing() {
        let items: Vec<u64> = (0..64).collect();
        for _ in 0..20 {
            let results = in_order(&items, 4, |n, _| Ok(*n), |n| *n % 8 == 5).unwrap();
            assert_eq!(results, [0, 1, 2, 3, 4, 5]);
        }
    }

    #[test]
    fn a_failure_is_returned() {
        let items = [1, 2, 3];
        let result = in_order(&items, 2, |n, _| if *n == 2 { Err(bad_input("no")) } else { Ok(*n) }, |_| false);
        assert_eq!(result.unwrap_err().to_string(), "no");
    }
}
