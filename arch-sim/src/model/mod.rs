//! The strategies' own decision code in an explicit-state model of the rest of the machine.
//!
//! What is real: [`kernel::sync::Strategy::decide`], called with the reads that it makes, each a step of its own. What
//! is modelled, one shared access per step: the operation up to the reuse or the free of one table; the flush on each
//! transport; walks of every class, in any number; context switches with their windows, lazy CPUs; interrupts, held off
//! by whoever masks them; CPUs that a hypervisor freezes; grace periods. And the hardware below: store buffers (total
//! store order), TLBs and paging-structure caches that are filled whenever they may be, broadcast invalidations that
//! arrive when they like.
//!
//! The bounds are in the [`Scenario`]: CPUs, mms, one table, one operation, three stores per buffer. Walks, switches,
//! idle phases and freezes are not bounded: a state is visited once, however one got there. `docs/simulated-machine.md`
//! has the source of each part and what is not in it.
//!
//! Violated is what the oracle of the kernel also calls violated: the table is used again, or freed, while a walk of an
//! mm that unlinked it holds it, or while a cache leads through it for such an mm.

pub(crate) mod ask;
pub mod check;
mod fields;
pub(crate) mod initiator;
mod mmu;
pub(crate) mod nowhere;
pub mod scenario;
pub mod state;
pub mod step;
pub mod strategies;
mod symmetry;
pub(crate) mod two_word;
mod walker;
pub mod words;

use stateright::{Model, Property};

use scenario::{MAX_CPUS, Scenario};
use state::{Common, CpuState, State};
use step::Step;

/// The one property.
const PROPERTY: &str = "nobody has the table when it changes hands";

/// A scenario, to be explored.
#[derive(Clone, Copy, Debug)]
pub struct Machine(pub Scenario);

impl Model for Machine {
    type State = State;
    type Action = Step;

    /// Each CPU has nothing loaded, or any mm.
    fn init_states(&self) -> Vec<State> {
        let scenario = &self.0;
        let choices = u32::from(scenario.mms() + 1);
        let all = (0..choices.pow(scenario.cpus.into())).map(|choice| initial(scenario, choice));
        all.map(|state| symmetry::representative(scenario, state)).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        step::possible(&self.0, state, actions);
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        Some(symmetry::representative(&self.0, step::take(&self.0, before, step)))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(PROPERTY, |_, state: &State| state.broken().is_none())]
    }
}

/// A state before the operation: the digits of `loaded`, one per CPU, are the mms that are loaded, 0 for none.
fn initial(scenario: &Scenario, mut loaded: u32) -> State {
    let mut cpus = [CpuState::default(); MAX_CPUS];
    let choices = u32::from(scenario.mms() + 1);
    for cpu in &mut cpus[..scenario.cpus as usize] {
        let mm = (loaded % choices) as u8;
        loaded /= choices;
        if mm != 0 {
            cpu.set_loaded(mm);
            cpu.set_current(mm);
            cpu.set_root(mm);
            cpu.change_mask(mm, true);
        }
    }
    let mut common = Common::default();
    common.set_linked((1 << scenario.operation.sharers()) - 1);
    common.set_leaver(1);
    let mut state = State { cpus, common, answers: 0 };
    if scenario.eager_fills {
        mmu::fill_all(scenario, &mut state);
    }
    state
}
