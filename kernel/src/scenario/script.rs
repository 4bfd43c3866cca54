//! The script of a scenario: actors, and steps over them; and the word of the kernel command line that says it.
//!
//! The word is `ACTORS/STEPS` and options: `U+W/W@after_pmd_read,U,W/before:2`. Actors are separated by `+`, steps by
//! commas; a step is an actor that goes on to its completion (`W`), up to a point (`W@after_pmd_read`), or is frozen
//! where it stands (`W!`). Actor number `n` runs on CPU `n`.

use core::fmt;

use arrayvec::ArrayVec;

use crate::scenario::Point;
use crate::suite::Named;

/// The most steps of a script.
pub const MAX_STEPS: usize = 24;
/// The most actors of a script.
pub const MAX_ACTORS: usize = 8;
/// The most pages that one walk may ask for.
pub const MAX_PAGES: u64 = 8;

macro_rules! roles {
    ($($role:ident = $letter:literal: $text:literal;)*) => {
        /// What an actor does, once.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Role { $(#[doc = $text] $role,)* }
        impl Role {
            /// All roles with what each is.
            pub const NAMES: &'static [Named] = &[$(($letter, $text),)*];
            const ALL: &'static [Role] = &[$(Role::$role,)*];
        }
    };
}

roles! {
    Updater = "U": "does one operation of the workload, on CPU 0";
    Walker = "W": "makes one walk of the range, as the strategy under test makes it";
    TwoWord = "H": "makes one walk of the range that reads each entry as two halves (--walker two-word)";
    Foreign = "K": "makes one walk of the range, whose mm its CPU has not loaded";
    Reader = "R": "reads the range's entries under RCU, with interrupts on and without a lock";
    Pin = "P": "pins one page of the range for writing (pin_user_pages_fast)";
    Loader = "L": "loads the mm, which its CPU has not loaded before, then makes one walk of the range";
    Sync = "S": "asks for one sync of every other CPU";
    Fault = "F": "takes one fault in the range (the slow path)";
    Exchange = "E": "drops two pages of the range and faults both in again: each gets the frame of the other";
    Touch = "T": "reads the range through its TLB, twice, with after_touch in between";
    Drop = "D": "writes to the range, drops it (MADV_DONTNEED) and reads it again, with after_touch after the write";
}

/// One actor: a role, and a number where the role is played more than once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Actor {
    /// What it does.
    pub role: Role,
    /// 1 for `W`, 2 for `W2`.
    pub number: u8,
}

impl Actor {
    /// The actor of this name.
    pub fn named(name: &str) -> Option<Actor> {
        let role = Role::ALL.iter().copied().find(|r| name.starts_with(Role::NAMES[*r as usize].0))?;
        let number = match &name[1..] {
            "" => 1,
            digits if digits.starts_with(|c: char| ('1'..='9').contains(&c)) && digits != "1" => digits.parse().ok()?,
            _ => return None,
        };
        Some(Actor { role, number })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Role::NAMES[self.role as usize].0)?;
        if self.number > 1 { write!(f, "{}", self.number) } else { Ok(()) }
    }
}

/// How far a step goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Goal {
    /// Until the actor is at this point.
    Until(Point),
    /// Until it has done all.
    Completion,
    /// Not at all: the hypervisor freezes its CPU, until its next step or an interrupt.
    Freeze,
}

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Whose: its index, which is its CPU.
    pub actor: u8,
    /// How far.
    pub goal: Goal,
}

/// A script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script {
    /// The actors; the first is the updater.
    pub actors: ArrayVec<Actor, MAX_ACTORS>,
    /// The steps.
    pub steps: ArrayVec<Step, MAX_STEPS>,
    /// Operations that are done undisturbed first.
    pub before: u64,
    /// Pages that each walk asks for.
    pub pages: u64,
    /// Which page of the range the actors act on, or begin at.
    pub page: u64,
}

/// A script that makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptError {
    /// A word that is no actor.
    #[error("the scenario names an actor that there is not")]
    Actor,
    /// The first actor is not the updater, or one is there twice.
    #[error("the scenario's actors are not one updater and different others")]
    Cast,
    /// A word that is no point.
    #[error("the scenario names a pause point that there is not")]
    Point,
    /// A word that is no option.
    #[error("the scenario has an option that there is not")]
    Option,
    /// More than there is room for.
    #[error("the scenario is too long")]
    TooLong,
}

impl Script {
    /// Reads the word of the command line.
    pub fn parse(word: &str) -> Result<Script, ScriptError> {
        let mut parts = word.split('/');
        let mut script = Script { actors: ArrayVec::new(), steps: ArrayVec::new(), before: 0, pages: 1, page: 0 };
        for name in parts.next().unwrap_or_default().split('+') {
            let actor = Actor::named(name).ok_or(ScriptError::Actor)?;
            if script.actors.contains(&actor) || (actor.role == Role::Updater) != script.actors.is_empty() {
                return Err(ScriptError::Cast);
            }
            script.actors.try_push(actor).map_err(|_| ScriptError::TooLong)?;
        }
        for step in parts.next().unwrap_or_default().split(',').filter(|s| !s.is_empty()) {
            let (name, goal) = match (step.split_once('@'), step.strip_suffix('!')) {
                (Some((name, point)), _) => (name, Goal::Until(Point::named(point).ok_or(ScriptError::Point)?)),
                (None, Some(name)) => (name, Goal::Freeze),
                (None, None) => (step, Goal::Completion),
            };
            let actor = Actor::named(name).and_then(|a| script.index(a)).ok_or(ScriptError::Actor)?;
            script.steps.try_push(Step { actor, goal }).map_err(|_| ScriptError::TooLong)?;
        }
        for option in parts {
            let number = |n: &str| n.parse().map_err(|_| ScriptError::Option);
            match option.split_once(':') {
                Some(("before", n)) => script.before = number(n)?,
                Some(("pages", n)) => script.pages = number(n)?,
                Some(("page", n)) => script.page = number(n)?,
                _ => return Err(ScriptError::Option),
            }
        }
        if script.pages == 0 || script.pages > MAX_PAGES {
            return Err(ScriptError::Option);
        }
        Ok(script)
    }

    /// The index of `actor`.
    pub fn index(&self, actor: Actor) -> Option<u8> {
        self.actors.iter().position(|a| *a == actor).map(|i| i as u8)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, actor) in self.actors.iter().enumerate() {
            write!(f, "{}{actor}", if i == 0 { "" } else { "+" })?;
        }
        f.write_str("/")?;
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "," }, self.actors[step.actor as usize])?;
            match step.goal {
                Goal::Until(point) => write!(f, "@{}", point.name())?,
                Goal::Completion => {}
                Goal::Freeze => f.write_str("!")?,
            }
        }
        if self.before != 0 {
            write!(f, "/before:{}", self.before)?;
        }
        if self.pages != 1 {
            write!(f, "/pages:{}", self.pages)?;
        }
        if self.page != 0 {
            write!(f, "/page:{}", self.page)?;
        }
        Ok(())
    }
}
