//! What became of one step of a scenario: one word of a [`crate::record::cell::CellRow`].

macro_rules! outcomes {
    ($($outcome:ident = $n:literal: $text:literal;)*) => {
        /// How a step ended.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum StepOutcome { $(#[doc = $text] $outcome = $n,)* }
        impl StepOutcome {
            /// The outcome with this number.
            pub fn from_number(n: u8) -> Option<StepOutcome> {
                match n { $($n => Some(StepOutcome::$outcome),)* _ => None }
            }
            /// In words.
            pub fn in_words(self) -> &'static str {
                match self { $(StepOutcome::$outcome => $text,)* }
            }
        }
    };
}

outcomes! {
    NotRun = 0: "not begun";
    Reached = 1: "reached";
    Completed = 2: "completed";
    NotReached = 3: "not reached: it completed before";
    Blocked = 4: "blocked";
    Over = 5: "had completed already";
    Stuck = 6: "given up";
    Frozen = 7: "frozen";
}

/// No point.
const NOWHERE: u8 = u8::MAX;

/// What became of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepRecord {
    /// How it ended.
    pub outcome: StepOutcome,
    /// The number of the last pause point that its actor was at.
    pub at: Option<u8>,
    /// For a blocked one, the number of what its CPU waited for ([`crate::record::shared::Doing`]).
    pub doing: u8,
    /// When it ended, in instructions since the scenario began; `u32::MAX` for later.
    pub time: u32,
}

impl StepRecord {
    /// As one word.
    pub fn pack(self) -> u64 {
        let at = self.at.unwrap_or(NOWHERE);
        self.outcome as u64 | (at as u64) << 8 | (self.doing as u64) << 16 | (self.time as u64) << 32
    }

    /// From one word; `None` for an outcome that there is not.
    pub fn unpack(word: u64) -> Option<StepRecord> {
        let [outcome, at, doing, ..] = word.to_le_bytes();
        let outcome = StepOutcome::from_number(outcome)?;
        let at = (at != NOWHERE).then_some(at);
        Some(StepRecord { outcome, at, doing, time: (word >> 32) as u32 })
    }
}
