//! An interleaving of the core in a file: the scope, who takes which step, and what was wrong in the end. It replays on
//! the same source; where the core has changed since it may not fit any more, and says so.

use kernel::record::event::{Event, EventKind};
use kernel::suite::Named;
use kernel::sync;
use kernel::tlb::transport::{self, TransportId};
use kernel::workload::{self, WorkloadId};
use serde::{Deserialize, Serialize};

use super::prove::{Replayed, Wrong, replay};
use super::scope::{Profile, Role, Scope};
use super::staging::Staging;
use crate::explore::schedule::BadSchedule;

/// Version of the format.
const VERSION: u32 = 1;

/// What is in the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    profile: String,
    strategy: String,
    transport: String,
    workload: String,
    others: Vec<String>,
    buffers: bool,
    findings: Vec<String>,
    /// Which way translations go that could go more than one.
    #[serde(default)]
    ways: u64,
    steps: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    staging: Option<Staging>,
}

/// A file that cannot be replayed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadRecording {
    /// Not of the format.
    #[error("this is no recording: {0}")]
    Format(String),
    /// Of another version.
    #[error("the recording has version {0} of the format, this program reads version {VERSION}")]
    Version(u32),
    /// A name that is in no list.
    #[error("the recording is of a {kind} \"{name}\", which there is not")]
    Unknown {
        /// What it names.
        kind: &'static str,
        /// How.
        name: String,
    },
    /// Its steps are none.
    #[error(transparent)]
    Schedule(#[from] BadSchedule),
    /// The core does something else now.
    #[error("the recording does not fit this core: it was made of another version of it")]
    Stale,
}

fn position(kind: &'static str, names: &[Named], name: &str) -> Result<usize, BadRecording> {
    let found = names.iter().position(|(known, _)| *known == name);
    found.ok_or_else(|| BadRecording::Unknown { kind, name: name.into() })
}

fn operation(name: &str) -> Result<WorkloadId, BadRecording> {
    let names: Vec<Named> = workload::NAMES.iter().chain(workload::STAGED).copied().collect();
    let at = position("workload", &names, name)?;
    Ok(WorkloadId::ALL.into_iter().chain(WorkloadId::STAGED).nth(at).expect("both lists are of one order"))
}

/// The text of a recording.
pub fn record(scope: &Scope, wrong: &Wrong) -> String {
    let file = File {
        version: VERSION,
        profile: scope.profile.name().into(),
        strategy: scope.strategy_name().into(),
        transport: scope.transport.name().into(),
        workload: WorkloadId::name_of(scope.workload as u16).unwrap_or_default().into(),
        others: scope.roles.iter().map(|role| role.name().into()).collect(),
        buffers: scope.buffers,
        findings: wrong.findings.clone(),
        ways: wrong.ways,
        steps: wrong.schedule.to_string(),
        staging: scope.staging.clone(),
    };
    toml::to_string(&file).expect("plain strings and numbers")
}

/// What a recording is of.
pub fn read(text: &str) -> Result<(Scope, Wrong), BadRecording> {
    let file: File = toml::from_str(text).map_err(|error| BadRecording::Format(error.message().into()))?;
    if file.version != VERSION {
        return Err(BadRecording::Version(file.version));
    }
    let profile = Profile::NAMES.into_iter().find(|(name, _)| *name == file.profile).map(|(_, profile)| profile);
    let role = |name: &String| {
        let found = Role::NAMES.into_iter().find(|(known, _)| known == name).map(|(_, role)| role);
        found.ok_or_else(|| BadRecording::Unknown { kind: "role", name: name.clone() })
    };
    if file.staging.as_ref().is_some_and(|staging| !staging.is_sound()) {
        return Err(BadRecording::Format("its staging does not fit together".into()));
    }
    let profile = profile.ok_or(BadRecording::Unknown { kind: "profile", name: file.profile })?;
    let scope = Scope {
        profile,
        strategy: position("strategy", sync::NAMES, &file.strategy)?,
        transport: TransportId::ALL[position("transport", transport::NAMES, &file.transport)?],
        workload: operation(&file.workload)?,
        deed: None,
        roles: file.others.iter().map(role).collect::<Result<_, _>>()?,
        staging: file.staging,
        buffers: file.buffers,
        hardware: profile.hardware(),
        guards: 0,
    };
    Ok((scope, Wrong { schedule: file.steps.parse()?, ways: file.ways, findings: file.findings }))
}

/// Runs a recording again; what is wrong must be what was wrong.
pub fn again(scope: &Scope, wrong: &Wrong) -> Result<Replayed, BadRecording> {
    let replayed = replay(scope, wrong.ways, &wrong.schedule).ok_or(BadRecording::Stale)?;
    if replayed.findings == wrong.findings { Ok(replayed) } else { Err(BadRecording::Stale) }
}

/// The interleaving, one numbered line for each of the kernel's events, with the step at which it happened.
pub fn interleaving(scope: &Scope, wrong: &Wrong, replayed: &Replayed) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut skipped = 0;
    for event in &replayed.events {
        // A table that is reused, and pages that are freed, one by one: hundreds of lines that say nothing.
        if EventKind::from_number(event.kind) == Some(EventKind::Free) {
            skipped += 1;
            continue;
        }
        let _ = writeln!(text, "{:>7}. cpu{} {}", event.time, event.cpu, in_words(event));
    }
    if skipped > 0 {
        let _ = writeln!(text, "         ({skipped} frames freed)");
    }
    for finding in &wrong.findings {
        let _ = writeln!(text, "         violated: {finding}");
    }
    let _ = writeln!(
        text,
        "         {} steps, CPUs take turns {} times: {}",
        replayed.steps,
        wrong.schedule.switches(),
        scope.in_words()
    );
    text
}

fn in_words(event: &Event) -> String {
    let Some(kind) = EventKind::from_number(event.kind) else { return String::from("something unknown") };
    kind.in_words().replace("{a}", &format!("{:#x}", event.a)).replace("{b}", &format!("{:#x}", event.b))
}
