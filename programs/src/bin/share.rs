//! The share server: it has the tables of shared memory, as hugetlb has, and hands them out to whoever may call it.
//! Those who map the same table whole share the table itself.
#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::abi::message::CAPABILITY_WORD;
use runtime::abi::{Info, Rights, Status};
use runtime::kernel::{self, Received};
use runtime::program;
use runtime::server::{self, Answer, FREE};
use runtime::share::{DROP, GET, MOST, PAGES};

program!(start);

/// One bit for each table that there is; table `n` is in slot `FREE + n`.
static MADE: AtomicU64 = AtomicU64::new(0);

fn start(_argument: u64) -> u64 {
    server::serve(0, answer, || {})
}

fn answer(message: &Received) -> Answer {
    let [request, table, ..] = message.words;
    match request {
        _ if table >= MOST => Err(Status::BadArgument).into(),
        GET => match get(table) {
            Ok(()) => {
                let mut words = [0; 6];
                words[CAPABILITY_WORD] = kernel::capability(FREE + table, Rights::READ | Rights::WRITE | Rights::GRANT);
                Answer { info: Info::CAPABILITY, words }
            }
            error => error.into(),
        },
        DROP => drop(table).into(),
        _ => Err(Status::BadNumber).into(),
    }
}

/// Makes the table unless it is there.
fn get(table: u64) -> Result<(), Status> {
    if MADE.load(Ordering::Relaxed) >> table & 1 == 0 {
        kernel::make_shared(FREE + table, PAGES)?;
        MADE.fetch_or(1 << table, Ordering::Relaxed);
    }
    Ok(())
}

fn drop(table: u64) -> Result<(), Status> {
    if MADE.fetch_and(!(1 << table), Ordering::Relaxed) >> table & 1 == 0 {
        return Err(Status::NotMapped);
    }
    kernel::revoke(FREE + table)?;
    kernel::delete(FREE + table)
}
