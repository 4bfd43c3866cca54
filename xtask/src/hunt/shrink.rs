//! Making a counterexample small: fewer workloads, CPUs and operations, as long as the same kind of thing goes wrong.

/// What is run: everything that shrinking may change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Case {
    /// CPUs of the machine.
    pub(crate) cpus: u32,
    /// Operations of each cell.
    pub(crate) ops: u64,
    /// Workloads, in order.
    pub(crate) workloads: Vec<&'static str>,
    /// Seed of the schedule.
    pub(crate) seed: u64,
}

/// A case in which something goes wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wrong {
    /// The case.
    pub(crate) case: Case,
    /// In which workload; `None` if the kernel failed and no row says in which.
    pub(crate) workload: Option<&'static str>,
    /// In which operation, counted from 0.
    pub(crate) op: Option<u64>,
}

/// Seeds that are tried for a smaller case, from the one that was found on.
const NEARBY: u64 = 8;

/// Smaller cases, the most promising first. Each group differs in its seeds only: any of them will do, the first is
/// preferred.
fn smaller(found: &Wrong) -> Vec<Vec<Case>> {
    let case = &found.case;
    let seeds =
        |smaller: Case| (0..NEARBY).map(|n| Case { seed: case.seed.wrapping_add(n), ..smaller.clone() }).collect();
    let mut groups: Vec<Vec<Case>> = Vec::new();
    if let (Some(workload), true) = (found.workload, case.workloads.len() > 1) {
        groups.push(seeds(Case { workloads: vec![workload], ..case.clone() }));
    }
    groups.extend((2..case.cpus).map(|cpus| seeds(Case { cpus, ..case.clone() })));
    let mut ops = 1;
    while ops < case.ops {
        groups.push(seeds(Case { ops, ..case.clone() }));
        ops *= 2;
    }
    // The operations after the one that went wrong are not needed: up to there the run is the same.
    if let Some(op) = found.op.filter(|op| op + 1 < case.ops) {
        groups.push(vec![Case { ops: op + 1, ..case.clone() }]);
    }
    groups
}

/// Makes `found` as small as it gets. `first_wrong` runs cases and returns the first, in their order, in which
/// something goes wrong. Returns how many groups of cases were tried as well.
pub(crate) fn shrink(
    mut found: Wrong,
    first_wrong: &mut dyn FnMut(&[Case]) -> anyhow::Result<Option<Wrong>>,
) -> anyhow::Result<(Wrong, usize)> {
    let mut tried = 0;
    loop {
        let mut better = None;
        for group in smaller(&found) {
            tried += 1;
            better = first_wrong(&group)?;
            if better.is_some() {
                break;
            }
        }
        match better {
            Some(better) => found = better,
            None => return Ok((found, tried)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: [&str; 3] = ["munmap_4k", "collapse_anon", "unshare_chain"];

    fn found(cpus: u32, ops: u64, op: u64) -> Wrong {
        Wrong { case: Case { cpus, ops, workloads: W.to_vec(), seed: 10 }, workload: Some(W[1]), op: Some(op) }
    }

    /// Something goes wrong in cases for which `wrong` holds, in the operation before the last.
    fn runner(wrong: impl Fn(&Case) -> bool) -> impl FnMut(&[Case]) -> anyhow::Result<Option<Wrong>> {
        move |group| {
            let first = group.iter().find(|c| wrong(c)).cloned();
            Ok(first.map(|case| Wrong { op: Some(case.ops.saturating_sub(2)), workload: Some(W[1]), case }))
        }
    }

    #[test]
    fn everything_that_is_not_needed_goes() {
        let (small, _) = shrink(found(8, 64, 40), &mut runner(|c| c.workloads.contains(&W[1]))).unwrap();
        assert_eq!(small.case, Case { cpus: 2, ops: 1, workloads: vec![W[1]], seed: 10 });
    }

    #[test]
    fn what_is_needed_stays() {
        let needs = |c: &Case| c.cpus >= 3 && c.ops >= 5 && c.workloads == [W[1]];
        let (small, _) = shrink(found(4, 64, 40), &mut runner(needs)).unwrap();
        // 5 is not a power of two: 8 is tried, then the operations after the one that went wrong are cut off, again and
        // again.
        assert_eq!((small.case.cpus, small.case.ops, small.case.seed), (3, 5, 10));
    }

    #[test]
    fn a_nearby_seed_is_taken_where_the_same_one_does_not_show_it() {
        let (small, _) = shrink(found(4, 64, 40), &mut runner(|c| c.cpus == 4 || c.seed == 13)).unwrap();
        assert_eq!((small.case.cpus, small.case.seed), (2, 13));
    }

    #[test]
    fn nothing_smaller_leaves_it_as_it_was() {
        let (small, tried) = shrink(found(2, 1, 0), &mut runner(|_| false)).unwrap();
        assert_eq!((small.case, tried), (found(2, 1, 0).case, 1));
    }

    #[test]
    fn a_failure_without_a_row_shrinks_too() {
        let fault = Wrong { workload: None, op: None, ..found(4, 16, 0) };
        let mut runs = |group: &[Case]| Ok(group.first().cloned().map(|case| Wrong { case, workload: None, op: None }));
        let (small, _) = shrink(fault, &mut runs).unwrap();
        assert_eq!((small.case.cpus, small.case.ops, small.case.workloads.len()), (2, 1, 3));
    }
}
