//! One file and nothing else: a strategy that lies in `strategies/` is in every list, and is judged like the core's
//! own. Tried in a copy of the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("it is there")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().expect("it has one");
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(&path, to.join(name)).expect("a file can be copied");
        }
    }
}

/// A copy of everything that cargo builds, without what it has built.
fn workspace() -> PathBuf {
    let (from, to) = (repository(), Path::new(env!("CARGO_TARGET_TMPDIR")).join("dropped-in"));
    let _ = std::fs::remove_dir_all(&to);
    for entry in std::fs::read_dir(&from).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("our names are text");
        if path.join("Cargo.toml").exists() || name == "strategies" {
            copy(&path, &to.join(name));
        } else if name.starts_with("Cargo.") {
            std::fs::create_dir_all(&to).expect("a folder can be made");
            std::fs::copy(&path, to.join(name)).expect("a file can be copied");
        }
    }
    to
}

/// Cargo in that copy. What it builds lies with what was built before, so that no dependency is built twice; the
/// program itself lies in the copy.
fn cargo(workspace: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    command.env("CARGO_TARGET_DIR", workspace.join("target")).env("CARGO_BUILD_BUILD_DIR", repository().join("target"));
    command.current_dir(workspace).args(words).output().expect("cargo starts")
}

#[test]
fn a_file_is_all_that_it_takes() {
    let copy = workspace();
    let strategies = copy.join("strategies");
    std::fs::copy(repository().join("tests/strategies/this_mm.rs"), strategies.join("this-mm.rs"))
        .expect("it can be copied");
    let words = ["run", "--quiet", "--package", "arch-sim", "--"];
    let cell =
        ["--strategy", "this-mm", "--walker", "gup", "--transport", "ipi,broadcast", "--operation", "unshare-three"];
    let judged = cargo(&copy, &[&words[..], &cell].concat());
    let text = String::from_utf8_lossy(&judged.stdout).into_owned();
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    // On `ipi` the first mm's own flush has interrupted who walked; by broadcast nobody has.
    assert_eq!(judged.status.code(), Some(1), "{text}{said}");
    assert!(text.contains("this-mm on broadcast, unshare-three, walker gup: unsafe (expected safe)"), "{text}{said}");
    assert!(text.contains("1 of 2 cells are not as expected"), "{text}{said}");

    let wrong = [
        ("empty.rs", "//! Nothing.\n", "empty.rs: no line begins with `impl Strategy for`"),
        ("2fast.rs", "", "a strategy is a module, so its file needs a name of letters"),
        ("coverage.rs", "", "the kernel has a strategy in a file coverage.rs already"),
    ];
    for (name, text, _) in wrong {
        std::fs::write(strategies.join(name), text).expect("it can be written");
    }
    let twin = std::fs::read_to_string(strategies.join("this-mm.rs")).expect("it is there");
    std::fs::write(strategies.join("twin.rs"), twin).expect("it can be written");
    let refused = cargo(&copy, &["check", "--quiet", "--package", "kernel"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    for (_, _, sentence) in wrong {
        assert!(said.contains(sentence), "{sentence}: {said}");
    }
    wrong.iter().for_each(|(name, ..)| std::fs::remove_file(strategies.join(name)).expect("it was written"));
    let refused = cargo(&copy, &["check", "--quiet", "--package", "kernel"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("two strategies have one NAME"), "{said}");
    let _ = std::fs::remove_dir_all(&copy);
}
