//! What things cost in the model: presets in one TOML file, each number with its source.

use std::collections::BTreeMap;

use kernel::tlb::transport::TransportId;
use serde::Deserialize;

/// The file that comes with the model.
const PRESETS: &str = include_str!("presets.toml");

/// Whether a number was measured by somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// The source has it.
    Published,
    /// Nobody's measurement.
    Assumed,
}

/// One cost.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Nanoseconds.
    pub ns: u64,
    /// Measured or guessed.
    pub grade: Grade,
    /// Where it is from.
    pub source: String,
}

/// One machine.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// In one line.
    pub about: String,
    /// CPUs of the real machine; the model takes any number.
    pub cpus: u32,
    /// Over how many sockets CPUs are spread, in blocks.
    pub sockets: u32,
    /// How its flushes travel: `ipi` or `broadcast`.
    pub transport: String,
    /// The initiator's work for each target.
    pub send: Cost,
    /// From the send to the target's first instruction.
    pub delivery: Cost,
    /// What that takes more to another socket.
    pub far: Cost,
    /// The target's handler, without what it is asked for.
    pub handler: Cost,
    /// One invalidation of one CPU's TLB.
    pub invalidate: Cost,
    /// A cache line from another CPU.
    pub line: Cost,
    /// A cache line from a CPU of another socket.
    pub far_line: Cost,
    /// A broadcast and its completion.
    pub broadcast: Cost,
    /// What each CPU adds to that.
    pub broadcast_per_cpu: Cost,
    /// A grace period that somebody waits for.
    pub grace: Cost,
    /// A full barrier on a CPU that has nothing else to wait for.
    pub barrier: Cost,
}

/// The presets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PresetError {
    /// The file is no TOML, or has other keys.
    #[error("the presets cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// No preset of that name.
    #[error("there is no preset \"{name}\"; there are: {all}")]
    Unknown {
        /// As given.
        name: String,
        /// What there is.
        all: String,
    },
    /// A transport that the model does not have.
    #[error("preset {preset} flushes by \"{transport}\"; the model has ipi and broadcast")]
    Transport {
        /// Whose.
        preset: String,
        /// What it says.
        transport: String,
    },
    /// No CPUs or sockets.
    #[error("preset {0} has no CPUs or no sockets")]
    Empty(String),
}

impl Preset {
    /// The presets of `text`, or of the file that comes with the model.
    pub fn all(text: Option<&str>) -> Result<BTreeMap<String, Preset>, PresetError> {
        let presets: BTreeMap<String, Preset> = toml::from_str(text.unwrap_or(PRESETS))?;
        for (name, preset) in &presets {
            if preset.transport().is_none() {
                return Err(PresetError::Transport { preset: name.clone(), transport: preset.transport.clone() });
            }
            if preset.cpus == 0 || preset.sockets == 0 {
                return Err(PresetError::Empty(name.clone()));
            }
        }
        Ok(presets)
    }

    /// The preset of this name.
    pub fn named(text: Option<&str>, name: &str) -> Result<Preset, PresetError> {
        let mut all = Preset::all(text)?;
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        let unknown = PresetError::Unknown { name: name.to_owned(), all: names.join(", ") };
        all.remove(name).ok_or(unknown)
    }

    /// How its flushes travel.
    pub fn transport(&self) -> Option<TransportId> {
        [TransportId::Ipi, TransportId::Broadcast].into_iter().find(|t| t.name() == self.transport)
    }

    /// All costs by name.
    pub fn costs(&self) -> [(&'static str, &Cost); 11] {
        [
            ("send", &self.send),
            ("delivery", &self.delivery),
            ("far", &self.far),
            ("handler", &self.handler),
            ("invalidate", &self.invalidate),
            ("line", &self.line),
            ("far_line", &self.far_line),
            ("broadcast", &self.broadcast),
            ("broadcast_per_cpu", &self.broadcast_per_cpu),
            ("grace", &self.grace),
            ("barrier", &self.barrier),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cost_of_every_preset_has_a_source() {
        let presets = Preset::all(None).unwrap();
        assert_eq!(presets.keys().collect::<Vec<_>>(), ["arm-128", "x86-2s", "x86-384"]);
        for (name, preset) in presets {
            for (cost, value) in preset.costs() {
                assert!(!value.source.is_empty(), "{name} {cost}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        assert!(Preset::named(None, "x87").unwrap_err().to_string().contains("x86-2s"));
        let error = Preset::all(Some("[m]\ncpu = 3\n")).unwrap_err().to_string();
        assert!(error.contains("cpu"), "{error}");
        let pigeon = PRESETS.replacen("transport = \"ipi\"", "transport = \"pigeon\"", 1);
        assert!(Preset::all(Some(&pigeon)).unwrap_err().to_string().contains("pigeon"));
    }
}
