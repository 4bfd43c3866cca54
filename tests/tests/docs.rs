//! What the documents say is what happens: every command in them is one that the runner takes, every example is a file
//! that is compiled, every link leads somewhere; and in QEMU, what is shown under a command is what it prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The documents, by their paths in the repository.
fn documents() -> Vec<String> {
    let mut found = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    for entry in std::fs::read_dir(repository().join("docs")).expect("there are documents") {
        let name = entry.expect("they can be listed").file_name().into_string().expect("their names are text");
        if name.ends_with(".md") {
            found.push(format!("docs/{name}"));
        }
    }
    found.sort();
    found
}

/// A fenced block: what stands behind the fence, and the lines between.
struct Block {
    language: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut out = Vec::new();
    let mut open: Option<Block> = None;
    for line in document.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some(Block { language: language.to_owned(), text: String::new() }),
            (Some(_), Some(_)) => out.extend(open.take()),
            (Some(block), None) => block.text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    out
}

/// A command of a document, and how it ends.
struct Shown {
    document: String,
    words: Vec<String>,
    status: i32,
    /// What is shown of its output, if the block that follows is one.
    output: Option<String>,
}

/// The commands of all blocks marked `sh run`, or `sh run status=N`. A block of text that follows one belongs to its
/// last command.
fn commands() -> Vec<Shown> {
    let mut out: Vec<Shown> = Vec::new();
    for document in documents() {
        let mut before_is_command = false;
        for block in blocks(&read(&document)) {
            if block.language == "text" && before_is_command {
                out.last_mut().expect("one was before").output = Some(block.text);
                before_is_command = false;
                continue;
            }
            let Some(rest) = block.language.strip_prefix("sh run") else {
                before_is_command = false;
                continue;
            };
            let status = rest.trim().strip_prefix("status=").map_or(0, |n| n.parse().expect("a status"));
            for line in block.text.replace("\\\n", " ").lines().filter(|l| !l.trim().is_empty()) {
                let words = line.strip_prefix("cargo xtask ").unwrap_or_else(|| panic!("{document}: {line}"));
                let words = words.split_whitespace().map(str::to_owned).collect();
                out.push(Shown { document: document.clone(), words, status, output: None });
            }
            before_is_command = true;
        }
    }
    out
}

/// The runner with these words: a copy that `cargo xtask test` left, or one that cargo builds.
fn xtask(words: &[String]) -> Output {
    let mut command = match std::env::var_os("XTASK") {
        Some(program) => Command::new(program),
        None => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["run", "--quiet", "--package", "xtask", "--"]);
            cargo
        }
    };
    command.current_dir(repository()).args(words).output().expect("the runner starts")
}

/// Commands in the middle of a sentence.
fn mentioned() -> Vec<Shown> {
    let mut out = Vec::new();
    for document in documents() {
        let text = read(&document);
        for words in text.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.strip_prefix("cargo xtask ")) {
            let words = words.split_whitespace().map(str::to_owned).collect();
            out.push(Shown { document: document.clone(), words, status: 0, output: None });
        }
    }
    out
}

#[test]
fn every_command_is_one_that_the_runner_takes() {
    let commands = commands();
    assert!(commands.len() > 10, "the documents show commands");
    for shown in commands.into_iter().chain(mentioned()) {
        let mut words = shown.words.clone();
        // The models read their options themselves, and are programs that take long to build.
        if words[0] == "sim" || words[0] == "scale" {
            words.truncate(1);
            words.insert(0, "help".to_owned());
        }
        // What makes it stop before it does anything.
        match words[0].as_str() {
            "help" => {}
            "run" => words.push("--dry-run".to_owned()),
            _ => words.push("--help".to_owned()),
        }
        let output = xtask(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: cargo xtask {}: {said}", shown.document, shown.words.join(" "));
    }
}

/// Every job of the workflow runs commands that the runner takes.
#[test]
fn every_command_of_the_workflow_is_one_that_the_runner_takes() {
    let workflow = read(".github/workflows/ci.yml");
    let commands: Vec<&str> =
        workflow.lines().filter_map(|line| line.trim().strip_prefix("- run: cargo xtask ")).collect();
    assert!(commands.len() > 5, "the workflow runs the runner");
    for arch in ["x86_64", "aarch64"] {
        for command in commands.iter().map(|words| words.replace("${{ matrix.arch }}", arch)) {
            let words: Vec<String> = command.split_whitespace().chain(["--help"]).map(str::to_owned).collect();
            let output = xtask(&words);
            assert!(output.status.success(), "cargo xtask {command}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn every_block_of_shell_is_tested() {
    for document in documents() {
        for block in blocks(&read(&document)) {
            assert!(
                !block.language.starts_with("sh") || block.language.starts_with("sh run"),
                "{document}: a block marked {:?}",
                block.language
            );
        }
    }
}

/// A strategy in a document is a file of `tests/strategies`, which `strategy.rs` compiles and asks.
#[test]
fn examples_are_the_files_that_are_compiled() {
    let shown: Vec<Block> =
        blocks(&read("docs/write-a-strategy.md")).into_iter().filter(|b| b.language == "rust").collect();
    for (name, block) in ["any_mm", "this_mm"].iter().zip(&shown) {
        let file = read(&format!("tests/strategies/{name}.rs"));
        assert!(file.lines().count() < 100, "{name} is short");
        // The whole file, or the part that differs.
        assert!(file.contains(block.text.trim()), "docs/write-a-strategy.md does not show {name}.rs as it is");
    }
    assert_eq!(shown.len(), 2);
}

/// The scenario in a document is one that is played, and every scenario that a document names is there.
#[test]
fn the_scenarios_that_are_named_are_those_that_are_played() {
    let shown: Vec<Block> =
        blocks(&read("docs/write-a-scenario.md")).into_iter().filter(|b| b.language == "scenario").collect();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].text, read("scenarios/02-collapse-without-sync.scenario"));
    for document in documents() {
        let text = read(&document);
        let quoted = text.split('`').skip(1).step_by(2);
        let numbered = |word: &str| word.get(..3).is_some_and(|n| n.ends_with('-') && n[..2].parse::<u8>().is_ok());
        for name in quoted.flat_map(|quoted| quoted.split(' ')).filter(|word| numbered(word)) {
            let file = repository().join("scenarios").join(format!("{name}.scenario"));
            assert!(file.is_file(), "{document} names {name}, which is no scenario");
        }
    }
}

/// The actors of a document are those of the kernel.
#[test]
fn the_actors_of_scenarios_are_all_told() {
    let text = read("docs/write-a-scenario.md");
    for (letter, what) in kernel::scenario::script::Role::NAMES {
        assert!(text.contains(&format!("| `{letter}` | {what} |")), "docs/write-a-scenario.md does not tell {letter}");
    }
}

/// The program in a document is one that is built and run.
#[test]
fn the_program_that_is_shown_is_the_one_that_runs() {
    let document = read("docs/write-a-program.md");
    let shown: Vec<Block> = blocks(&document).into_iter().filter(|b| b.language == "rust").collect();
    assert_eq!(shown.len(), 1);
    assert_eq!(shown[0].text, read("programs/src/bin/null_call.rs"));
    assert!(document.contains("--workload null_call"), "nothing runs it");
}

#[test]
fn links_lead_somewhere() {
    for document in documents() {
        let here = repository().join(&document).parent().expect("a folder").to_owned();
        for part in read(&document).split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            assert!(
                target.starts_with("https://") || path.is_empty() || here.join(path).exists(),
                "{document}: {target}"
            );
        }
    }
}

/// Every test, guard and file that ARCHITECTURE.md names in code quotes exists.
#[test]
fn what_the_architecture_names_exists() {
    let text = read("ARCHITECTURE.md");
    // What comes after is about what does not exist.
    let text = text.split("## Where the cut differs").next().unwrap_or_default();
    let sources = sources(&repository());
    for line in text.lines().filter(|l| l.contains("**Invariant**")) {
        let quoted: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        assert!(!quoted.is_empty(), "nothing is named that fails without it: {line}");
    }
    for name in text.split('`').skip(1).step_by(2).filter(|n| !n.contains([' ', '\n'])) {
        let known = repository().join(name).exists()
            || sources.contains(name)
            || sources.contains(name.rsplit("::").next().unwrap_or(name).trim_end_matches("()"));
        assert!(known, "ARCHITECTURE.md names {name}, which is nowhere");
    }
}

/// All Rust of the repository, and the names of all files and folders, in one text.
fn sources(folder: &Path) -> String {
    let mut out = String::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap_or_default());
        out += &format!("{name}\n");
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            out += &sources(&path);
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            out += &std::fs::read_to_string(&path).unwrap_or_default();
        }
    }
    out
}

/// Text as it is compared: numbers, which move with every change of the kernel, are one sign, and spaces one.
fn bare(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_whitespace() {
        let number = |c: char| c.is_ascii_digit();
        let mut chars = word.chars().peekable();
        while let Some(c) = chars.next() {
            if !number(c) {
                out.push(c);
                continue;
            }
            while chars.next_if(|c| c.is_ascii_hexdigit() || matches!(c, ',' | '.' | 'x')).is_some() {}
            out.push('#');
        }
        out.push(' ');
    }
    out
}

/// Runs the commands whose words have `which`, and finds what is shown of their output in it, in that order; `...`
/// stands for anything.
fn shown_is_printed(which: &str) {
    for shown in commands()
        .iter()
        .filter(|c| matches!(c.words[0].as_str(), "run" | "sim" | "scenario") && c.words.iter().any(|w| w == which))
    {
        let line = shown.words.join(" ");
        let output = xtask(&shown.words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(shown.status), "{}: cargo xtask {line}\n{text}{said}", shown.document);
        let printed = bare(&text);
        let mut rest = printed.as_str();
        for part in shown.output.as_deref().unwrap_or_default().split("...") {
            let wanted = bare(part);
            let at = rest.find(wanted.trim_end());
            let at =
                at.unwrap_or_else(|| panic!("{}: cargo xtask {line}\nnot printed: {part}\n{text}", shown.document));
            rest = &rest[at + wanted.trim_end().len()..];
        }
    }
}

mod x86_64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn what_the_documents_show_is_what_is_printed() {
        super::shown_is_printed("x86_64");
    }
}

mod aarch64 {
    #[test]
    #[ignore = "boots QEMU"]
    fn what_the_documents_show_is_what_is_printed() {
        super::shown_is_printed("aarch64");
        super::shown_is_printed("all");
        super::shown_is_printed("sim");
    }
}
