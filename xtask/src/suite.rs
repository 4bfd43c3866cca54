//! What a run is asked to do, and the guest's command line that says it.

use kernel::guard::Guard;
use kernel::suite::Mode;

/// The value of the static hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Hook {
    /// As the transport says.
    #[default]
    Auto,
    /// As if every flush interrupted.
    True,
    /// As if no flush interrupted.
    False,
}

impl Hook {
    /// As on the guest's command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Hook::Auto => "auto",
            Hook::True => "true",
            Hook::False => "false",
        }
    }
}

/// How QEMU runs the CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    /// One after the other, by instruction count: deterministic.
    Icount,
    /// One host thread each.
    Mttcg,
}

impl Engine {
    /// As on the guest's command line and in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Icount => "icount",
            Engine::Mttcg => "mttcg",
        }
    }
}

/// Everything that the guest is told.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    /// Names from [`kernel::sync::NAMES`].
    pub(crate) strategies: Vec<&'static str>,
    /// A name from [`kernel::tlb::transport::NAMES`]; `None` for the architecture's own.
    pub(crate) transport: Option<&'static str>,
    /// Names from [`kernel::workload::NAMES`].
    pub(crate) workloads: Vec<&'static str>,
    /// Names from [`Mode::NAMES`].
    pub(crate) modes: Vec<&'static str>,
    /// A name from [`kernel::workload::walker::WalkerClass::NAMES`].
    pub(crate) walker: &'static str,
    /// Operations per cell.
    pub(crate) ops: u64,
    /// Seed of the schedule.
    pub(crate) seed: u64,
    /// The static hook.
    pub(crate) hook: Hook,
    /// The engine.
    pub(crate) engine: Engine,
    /// Faults to inject, `name:n` for one in n.
    pub(crate) inject: Vec<String>,
    /// Names of guards to take away, from [`Guard::NAMES`].
    pub(crate) without: Vec<&'static str>,
    /// Programs in user mode do the operations.
    pub(crate) user: bool,
    /// Whether durations, interrupts and waiting memory are recorded.
    pub(crate) profile: bool,
    /// Level of the kernel's messages; `None` for the kernel's default.
    pub(crate) log: Option<String>,
}

/// The mask of the guards in `without`, names from [`Guard::NAMES`].
pub(crate) fn guard_mask(without: &[&str]) -> u64 {
    let bit = |name: &&str| Guard::NAMES.iter().position(|(n, _)| n == name).map_or(0, |i| 1 << i);
    without.iter().map(bit).fold(0, |mask, bit| mask | bit)
}

/// Whether a workload is one of programs.
pub(crate) fn is_program(workload: &str) -> bool {
    kernel::workload::PROGRAMS.iter().any(|(name, _)| *name == workload)
}

impl Suite {
    /// How many cells that makes: workloads of programs run once, whatever the modes.
    pub(crate) fn cells(&self) -> usize {
        let cells = |name: &&str| if is_program(name) { 1 } else { self.modes.len() };
        self.strategies.len() * self.workloads.iter().map(cells).sum::<usize>()
    }

    /// Whether any cell runs programs.
    pub(crate) fn runs_programs(&self) -> bool {
        self.user || self.workloads.iter().any(|name| is_program(name))
    }

    /// One suite for each strategy.
    pub(crate) fn by_strategy(&self) -> Vec<Suite> {
        self.strategies.iter().map(|&s| Suite { strategies: vec![s], ..self.clone() }).collect()
    }

    /// The same operations with every other CPU idle, and with a bystander if one was asked for: what the plain image
    /// measures.
    pub(crate) fn measurement(&self) -> Suite {
        let [idle, isolated] = [Mode::Idle, Mode::Isolated].map(|mode| Mode::NAMES[mode as usize].0);
        let stands_by = self.modes.contains(&isolated);
        let modes = [Some(idle), stands_by.then_some(isolated)];
        Suite { modes: modes.into_iter().flatten().collect(), profile: false, ..self.clone() }
    }

    /// The guest's command line ([`kernel::suite`]), given the transport that the architecture has by itself.
    pub(crate) fn command_line(&self, native_transport: &str) -> String {
        let mut words = vec![
            format!("strategies={}", self.strategies.join(",")),
            format!("transport={}", self.transport.unwrap_or(native_transport)),
            format!("workloads={}", self.workloads.join(",")),
            format!("modes={}", self.modes.join(",")),
            format!("walker={}", self.walker),
            format!("ops={}", self.ops),
            format!("seed={}", self.seed),
            format!("hook={}", self.hook.word()),
            format!("engine={}", self.engine.name()),
        ];
        if !self.inject.is_empty() {
            words.push(format!("inject={}", self.inject.join(",")));
        }
        let guards = guard_mask(&self.without);
        if guards != 0 {
            words.push(format!("guards={guards:x}"));
        }
        if self.profile {
            words.push("profile=true".into());
        }
        if self.user {
            words.push("user=true".into());
        }
        if let Some(level) = &self.log {
            words.push(format!("log={level}"));
        }
        words.join(" ")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn small() -> Suite {
        Suite {
            strategies: vec!["none", "sync-all"],
            transport: None,
            workloads: vec!["collapse_anon"],
            modes: vec!["same", "contend"],
            walker: "gup",
            ops: 64,
            seed: 1,
            hook: Hook::Auto,
            engine: Engine::Icount,
            inject: vec![],
            without: vec![],
            user: false,
            profile: false,
            log: None,
        }
    }

    #[test]
    fn the_command_line_says_everything() {
        assert_eq!(
            small().command_line("ipi"),
            "strategies=none,sync-all transport=ipi workloads=collapse_anon modes=same,contend walker=gup ops=64 seed=1 \
             hook=auto engine=icount"
        );
        let chosen = Suite {
            transport: Some("broadcast"),
            hook: Hook::True,
            engine: Engine::Mttcg,
            inject: vec!["batch:2".into()],
            without: vec![Guard::NAMES[3].0, Guard::NAMES[0].0],
            log: Some("debug".into()),
            ..small()
        };
        assert!(chosen.command_line("ipi").contains(" transport=broadcast "));
        assert!(chosen.command_line("ipi").ends_with(" hook=true engine=mttcg inject=batch:2 guards=9 log=debug"));
    }

    #[test]
    fn each_strategy_can_have_a_suite_of_its_own() {
        let all = small().by_strategy();
        assert_eq!(all.len(), 2);
        assert!(all[1].command_line("ipi").starts_with("strategies=sync-all transport="));
    }

    #[test]
    fn the_measurement_runs_each_operation_once_per_strategy() {
        let plain = small().measurement();
        assert_eq!((plain.modes.as_slice(), plain.cells(), small().cells()), (&["idle"][..], 2, 4));
        let isolated = Suite { modes: vec!["isolated", "same"], ..small() };
        assert_eq!(isolated.measurement().modes, ["idle", "isolated"]);
    }
}
