//! The row of one cell: what was counted, what the closed forms say, and the verdict.

use super::WorkloadId;
use super::cell::Cell;
use super::counted::Counted;
use super::crowd::ALL_PARTS;
use super::predict::{self, Prediction, recorded};
use super::walker::WalkerClass;
use crate::arch::Arch;
use crate::injection::Fault;
use crate::ledger::recorded::Notes;
use crate::ledger::{Snapshot, Taken};
use crate::record::cell::{CellRow, Verdict};
use crate::suite::{Mode, Suite};
use crate::sync::{self, Setting};
use crate::tlb::transport::TransportId;

/// Operations of `ipc_storm` from which a missing sync is to be found.
const STORMS: u64 = 32;

/// The row of a cell that is not run.
pub(crate) fn row_of_nothing<A: Arch>(cell: Cell, setting: Setting, verdict: Verdict) -> CellRow {
    CellRow {
        strategy: cell.strategy as u16,
        workload: cell.workload as u16,
        mode: cell.mode as u16,
        transport: setting.transport as u16,
        hook: setting.hook.into(),
        expected: verdict as u8,
        verdict: verdict as u8,
        cpus: A::machine().online_mask().count(),
        walker: setting.walker as u64,
        predicted_flush: u64::MAX,
        predicted_sync: u64::MAX,
        predicted_elided: u64::MAX,
        predicted_tlbi: u64::MAX,
        predicted_bystander: u64::MAX,
        ..CellRow::default()
    }
}

/// The closed forms for a cell in which `notes` was noted.
fn form<A: Arch>(
    suite: &Suite,
    cell: Cell,
    strategy: &sync::Entry<A>,
    setting: Setting,
    (notes, by_all): (&Notes, &Notes),
    asked: Option<u64>,
) -> Prediction {
    let (workload, ops, cpus) = (cell.workload, suite.ops, A::machine().online_mask().count().into());
    let form = || predict::predict(workload, strategy, setting, cell.mode, cpus, ops);
    let batches_fail = suite.inject.of(Fault::Batch) != 0;
    match cell.mode {
        // A gather that finds no room for a table flushes once more, as often as the chance has it.
        _ if batches_fail && (cell.mode != Mode::Contend || !cfg!(feature = "checking")) => Prediction::NONE,
        Mode::Scripted => Prediction::NONE,
        _ if workload.is_unscheduled() => predict::programs::predict(workload, strategy, setting, cpus, ops, asked),
        _ if suite.by_program(workload) || !cfg!(feature = "checking") => form(),
        Mode::Contend => recorded::predict(workload, strategy, setting, cpus, ops, (notes, by_all), batches_fail),
        _ => form().or_noted(notes),
    }
}

/// The row of a cell.
pub(crate) fn row<A: Arch>(
    suite: &Suite,
    cell: Cell,
    strategy: &sync::Entry<A>,
    setting: Setting,
    counted: &Counted,
    total: &Snapshot,
) -> CellRow {
    let Counted { counts: counted, notes, by_all, instructions, bystander, gap, ops, asked, whole } = counted;
    let machine = A::machine();
    let cpus = machine.online_mask().count();
    let form = form(suite, cell, strategy, setting, (notes, by_all), *asked);
    let noted =
        whole.as_ref().map(|(counts, notes)| (predict::programs::noted(strategy, setting, notes), counts, notes));
    // Where all there was is in what is shown, what was noted is of that.
    let form = noted.as_ref().map_or(form, |(noted, counts, _)| form.or(&noted.where_the_same(counts, counted)));
    let as_noted = noted.is_none_or(|(form, counts, notes)| form.agrees(counts, &Taken::default(), notes));
    let judged = cfg!(feature = "checking") && cell.mode == Mode::Contend && cpus > 1;
    // Programs meet by chance, and so do a walk and a table that is freed at once for want of a batch: a strategy that
    // promises nothing may be found out, and need not be.
    let frees_at_once = judged && suite.inject.of(Fault::Batch) != 0 && (strategy.frees_without_grace)(setting.hook);
    // So do they where a part of the crowd is missing, or too few to promote an mm.
    let too_few = cpus < ALL_PARTS
        && (setting.chain || setting.walker != WalkerClass::Gup || setting.transport == TransportId::Mixed);
    // Where so many messages are sent, while what they lie in is collapsed and left, some seed shows it.
    let storms = cell.workload == WorkloadId::IpcStorm
        && setting.transport == TransportId::Broadcast
        && cpus >= ALL_PARTS
        && suite.ops >= STORMS
        && suite.tries > 1;
    let by_chance = (suite.by_program(cell.workload) && !storms)
        || too_few
        || (frees_at_once && !cell.workload.reuses_a_walked_table());
    // Where entries are read as two words, each mm that leaves a shared table waits for all walks, and the next to
    // leave finds none of before.
    let nobody_left = setting.chain && setting.walker == WalkerClass::TwoWord;
    let expected = match (strategy.promises)(setting) {
        Verdict::Unsafe if by_chance => match total.violations_ghost + total.violations_value {
            0 => Verdict::Safe,
            _ => Verdict::Unsafe,
        },
        Verdict::Unsafe if storms => Verdict::Unsafe,
        Verdict::Unsafe if !judged || nobody_left || !cell.workload.reuses_a_walked_table() => Verdict::Safe,
        promised => promised,
    };
    let violations = total.violations_ghost + total.violations_value;
    let expected = if suite.oracle { expected } else { Verdict::NotApplicable };
    let verdict = match (violations, expected) {
        (0, Verdict::NotApplicable) => Verdict::NotApplicable,
        (0, Verdict::Unsafe) => Verdict::Void,
        (0, _) => Verdict::Safe,
        _ => Verdict::Unsafe,
    };
    CellRow {
        strategy: cell.strategy as u16,
        workload: cell.workload as u16,
        mode: cell.mode as u16,
        transport: setting.transport as u16,
        hook: setting.hook.into(),
        expected: expected as u8,
        verdict: verdict as u8,
        miscounted: (*ops != suite.ops || !form.agrees(counted, bystander, notes) || !as_noted).into(),
        cpus,
        walker: setting.walker as u64,
        ops: *ops,
        flush_ipis: counted.flush_ipis,
        sync_ipis: counted.sync_ipis,
        syncs_elided: counted.syncs_elided,
        redundant_sync_ipis: counted.redundant_sync_ipis,
        missing_syncs: total.missing_syncs,
        tlbi: counted.tlbi,
        vectors: counted.vectors,
        instructions: *instructions,
        walks: total.walks,
        pages: total.pages,
        pins: total.pins,
        injected: total.injected,
        left: Default::default(),
        violations_ghost: total.violations_ghost,
        violations_value: total.violations_value,
        predicted_flush: form.flush_ipis.unwrap_or(u64::MAX),
        predicted_sync: form.sync_ipis.unwrap_or(u64::MAX),
        predicted_elided: form.elided.unwrap_or(u64::MAX),
        predicted_tlbi: form.tlbi.unwrap_or(u64::MAX),
        bystander_flush: bystander.flush,
        bystander_sync: bystander.sync,
        bystander_nmi: bystander.nmi,
        bystander_gap: gap.longest,
        latencies: [gap.times, gap.least, gap.median],
        predicted_bystander: form.bystander.unwrap_or(u64::MAX),
        uncovered: whole.as_ref().map_or(notes, |(_, notes)| notes).uncovered,
        program_status: 0,
        user: suite.by_program(cell.workload).into(),
        promised: (strategy.promises)(setting) as u64,
        seeds: 1,
        steps: Default::default(),
        first: machine.first_violation.take(),
    }
}
