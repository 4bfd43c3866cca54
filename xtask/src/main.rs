//! `cargo xtask`: one command from a bare machine to a verdict. It installs what is missing, builds the two images of
//! the kernel, boots them in QEMU, reads the results from the guest's memory and reports them.

mod arch;
mod barriers;
mod bench;
mod build;
mod bystander;
mod child;
mod ci;
mod compare;
mod completions;
mod debugger;
mod diff;
mod doctor;
mod document;
mod engines;
mod error;
mod examples;
mod exits;
mod experiment;
mod guest;
mod guests;
mod hang;
mod hunt;
mod image;
mod judge;
mod kept;
mod linux;
mod list;
mod matrix;
mod mutate;
mod names;
mod output;
mod page;
mod panic_report;
mod parity;
mod probe;
mod profile;
mod programs;
mod progress;
mod qemu;
mod records;
mod report;
mod results_file;
mod rows;
mod run;
mod scale;
mod scenario;
mod seeds;
mod setup;
mod shared_memory;
mod sim;
mod soak;
mod structured_log;
mod suite;
mod table;
mod test;
mod toolchain;
mod trace;
mod violation;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Boots a research kernel in QEMU on x86_64 and aarch64, and says whether a page-table protocol is safe and what it
/// costs.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How every command ends.
const EXIT_STATUS: &str = "Exit status: 0 when every verdict and every count is the expected one, 1 when one is not, \
                           2 for bad input, 3 when set-up, QEMU, the guest or a file failed, 130 after Ctrl-C.";

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Judge(judge::Judge),
    Scenario(scenario::Scenario),
    Experiment(experiment::Run),
    Report(page::Report),
    Diff(diff::Diff),
    List(list::List),
    Doctor(doctor::Doctor),
    Build(build::Build),
    Test(test::Test),
    Sim(sim::Sim),
    Scale(scale::Scale),
    Ci(ci::Ci),
    Mutate(mutate::Mutate),
    Hunt(Box<hunt::Hunt>),
    Linux(linux::Linux),
    Parity(parity::Parity),
    Barriers(barriers::Barriers),
    Bench(bench::Bench),
    Soak(soak::Soak),
    Completions(completions::Completions),
}

impl Command {
    fn run(self) -> anyhow::Result<error::Outcome> {
        match self {
            Command::Run(command) => command.run(),
            Command::Judge(command) => command.run(),
            Command::Scenario(command) => command.run(),
            Command::Experiment(command) => command.run(),
            Command::Report(command) => command.run(),
            Command::Diff(command) => command.run(),
            Command::List(command) => command.run(),
            Command::Doctor(command) => command.run(),
            Command::Build(command) => command.run(),
            Command::Test(command) => command.run(),
            Command::Sim(command) => command.run(),
            Command::Scale(command) => command.run(),
            Command::Ci(command) => command.run(),
            Command::Mutate(command) => command.run(),
            Command::Hunt(command) => command.run(),
            Command::Linux(command) => command.run(),
            Command::Parity(command) => command.run(),
            Command::Barriers(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Soak(command) => command.run(),
            Command::Completions(command) => command.run(),
        }
    }
}

/// The whole command line, with examples and the exit status in the help of every command.
fn command_line() -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        let text = match examples::of(command.get_name()) {
            Some(lines) => format!("Examples:\n  {}\n\n{EXIT_STATUS}", lines.join("\n  ")),
            None => EXIT_STATUS.to_owned(),
        };
        command.after_help(text)
    })
}

fn main() -> std::process::ExitCode {
    let matches = command_line().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    child::stop_on_ctrl_c();
    error::exit_code(cli.command.run())
}
