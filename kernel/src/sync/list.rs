//! The strategies by name and by number: the core's own, in the order in which they are explained, then those that lie
//! in `strategies/`.
//!
//! `kernel/build.rs` finds the latter. What it writes is a module for each, and the macro `and_those_found`, which puts
//! their types at the end of the list below.

use super::*;
use crate::arch::Arch;
use crate::mm::two_word;
use crate::mm::walk::{self, WalkFn};
use crate::record::cell::Verdict;
use crate::suite::Named;
use crate::workload::store_buffer;

/// A strategy made ready to run on machines of kind `A`.
pub struct Entry<A: Arch> {
    /// As on the command line.
    pub name: &'static str,
    /// In one line.
    pub about: &'static str,
    /// [`Strategy::promises`].
    pub promises: fn(Setting) -> Verdict,
    /// [`Strategy::frees_without_grace`].
    pub frees_without_grace: fn(bool) -> bool,
    /// [`Strategy::predicts`].
    pub predicts: fn(&Round) -> Option<Predicted>,
    /// [`Strategy::decide`].
    pub decide: fn(&dyn View, &Ask<'_>) -> Decision,
    /// Its two halves of a Dekker shape, alone.
    pub halves: store_buffer::Halves<A>,
    /// [`Strategy::SELF_MAP`].
    pub self_map: bool,
    /// [`Strategy::PUBLISHES`].
    pub publishes: Publication,
    /// [`Strategy::RESTORES`].
    pub restores: bool,
    /// `get_user_pages_fast`, compiled for it.
    pub get_user_pages_fast: WalkFn<A>,
    /// The same for entries that are read as two words: [`two_word::get_user_pages`].
    pub get_user_pages_two_word: WalkFn<A>,
    /// `pin_user_pages_fast`, compiled for it.
    pub pin_user_pages_fast: WalkFn<A>,
}

impl<A: Arch> Entry<A> {
    /// The entry of `S`.
    pub const fn of<S: Strategy>() -> Entry<A> {
        Entry {
            name: S::NAME,
            about: S::ABOUT,
            promises: S::promises,
            frees_without_grace: S::frees_without_grace,
            predicts: S::predicts,
            decide: S::decide,
            halves: store_buffer::Halves::of::<S>(),
            self_map: S::SELF_MAP,
            publishes: S::PUBLISHES,
            restores: S::RESTORES,
            get_user_pages_fast: walk::get_user_pages_fast::<A, S>,
            get_user_pages_two_word: two_word::get_user_pages::<A, S>,
            pin_user_pages_fast: walk::pin_user_pages_fast::<A, S>,
        }
    }
}

include!(concat!(env!("OUT_DIR"), "/strategies.rs"));

macro_rules! count {
    ($($strategy:ty),* $(,)?) => {
        /// How many of [`NAMES`] are the core's own; the others lie in `strategies/`.
        pub const OWN: usize = [$(<$strategy>::NAME),*].len();
    };
}

macro_rules! strategies {
    ($($strategy:ty),* $(,)?) => {
        /// All strategies by name, in the order of their numbers.
        pub const NAMES: &[Named] = &[$((<$strategy>::NAME, <$strategy>::ABOUT),)*];

        /// All strategies, made ready for `A`, in the same order.
        pub fn all<A: Arch>() -> &'static [Entry<A>] {
            // A constant, so that it is promoted to a static for each `A`.
            const { &[$(Entry::<A>::of::<$strategy>(),)*] }
        }
    };
}

/// No two of `names` are the same.
const fn are_distinct(names: &[Named]) -> bool {
    let mut one = 0;
    while one < names.len() {
        let mut other = 0;
        while other < one {
            let (a, b) = (names[one].0.as_bytes(), names[other].0.as_bytes());
            let mut same = 0;
            while same < a.len() && same < b.len() && a[same] == b[same] {
                same += 1;
            }
            if same == a.len() && same == b.len() {
                return false;
            }
            other += 1;
        }
        one += 1;
    }
    true
}

const _: () = assert!(are_distinct(NAMES), "two strategies have one NAME");

macro_rules! lists {
    ($($own:tt)*) => {
        count! { $($own)* }
        and_those_found! { strategies { $($own)* } }
    };
}

lists! {
    none::None,
    sync_all::SyncAll,
    static_hook::StaticHook,
    gather_flag::GatherFlag,
    targeted_v4::TargetedV4,
    targeted::Targeted,
    targeted_xchg::TargetedXchg,
    acked_generation::AckedGeneration,
    rcu::Rcu,
    fresh_table::FreshTable,
    mask_targeted::MaskTargeted,
    coverage::Coverage,
    self_map::SelfMap,
}
