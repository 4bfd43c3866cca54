//! Finds the strategies that lie in `strategies/`, so that trying one takes a file and nothing else: each `.rs` file
//! there is a module of `kernel::sync`, and its type stands at the end of the list of strategies. A file that is not a
//! strategy is a compile error that says what it lacks.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let from = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../strategies");
    println!("cargo:rerun-if-changed={}", from.display());
    println!("cargo:rerun-if-changed=build.rs");
    let mut files: Vec<PathBuf> = fs::read_dir(&from).map_or(Vec::new(), |entries| {
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "rs"))
            .collect()
    });
    files.sort();
    let (mut modules, mut list) = (String::new(), String::new());
    for file in &files {
        println!("cargo:rerun-if-changed={}", file.display());
        match strategy(file) {
            Ok((module, name)) => {
                writeln!(
                    modules,
                    "#[allow(missing_docs, unreachable_pub)]\n#[path = {:?}]\npub mod {module};",
                    file.display().to_string()
                )
                .and_then(|()| writeln!(list, "            {module}::{name},"))
                .expect("a string takes what it is given");
            }
            Err(lacks) => {
                writeln!(modules, "compile_error!({:?});", format!("{}: {lacks}", file.display())).expect("as above");
            }
        }
    }
    let text = format!(
        "{modules}\n/// Gives `$list` the core's own strategies and then those that lie in `strategies/`.\nmacro_rules! and_those_found {{\n    \
         ($list:ident {{ $($own:tt)* }}) => {{\n        $list! {{\n            $($own)*\n{list}        }}\n    }};\n}}\n"
    );
    let to = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("strategies.rs");
    fs::write(&to, text).expect("cargo's folder for this can be written");
}

/// The module that a file is, and the type in it that is a strategy; or what is wrong with it.
fn strategy(file: &Path) -> Result<(String, String), String> {
    let module = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().replace('-', "_");
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !is_word(&module) {
        return Err("a strategy is a module, so its file needs a name of letters, digits and underscores".into());
    }
    if Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/sync/{module}.rs")).exists() {
        return Err(format!("the kernel has a strategy in a file {module}.rs already; give this one another name"));
    }
    let text = fs::read_to_string(file).map_err(|error| format!("it cannot be read: {error}"))?;
    let named =
        |line: &str| line.trim_start().strip_prefix("impl Strategy for ")?.split([' ', '{']).next().map(String::from);
    let found: Vec<String> = text.lines().filter_map(named).collect();
    match &found[..] {
        [one] if is_word(one) => Ok((module, one.clone())),
        [] => Err("no line begins with `impl Strategy for`; docs/write-a-strategy.md shows one".into()),
        _ => Err("more than one type in it is a strategy; give each a file".into()),
    }
}
