//! The page of a report, in a browser: it renders without a word on the console, tables sort and rows are chosen. Where
//! there is no browser, a word says so.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The runner with these words: a copy that `cargo xtask test` left, or one that cargo builds.
fn xtask(words: &[&str]) -> Output {
    let mut command = match std::env::var_os("XTASK") {
        Some(program) => Command::new(program),
        None => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["run", "--quiet", "--package", "xtask", "--"]);
            cargo
        }
    };
    command.args(words).output().expect("the runner starts")
}

/// What was recorded beside the counts.
const PROFILE: &str = r#""profile":{"initiator":[[900,3],[4000,1]],"responder":[[40,9]],"walker":[[100,50],[120,2]],"longest":[4001,40,121],"interrupted":[{"flush":[0,0],"sync":[0,0],"nmi":[0,0]},{"flush":[1,1],"sync":[1,0],"nmi":[0,0]}],"waiting":[0,2],"ends":[5000,9000]}"#;

/// A folder of a finished experiment with rows of three strategies, one of them not as expected.
fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder for this test");
    let mut rows = String::new();
    for (arch, transport) in [("x86_64", "ipi"), ("aarch64", "broadcast")] {
        for (strategy, sync, verdict) in [("none", 0, "unsafe"), ("sync-all", 1, "safe"), ("coverage", 1, "void")] {
            for (mode, cpus) in [("same", 2), ("same", 4), ("same", 16), ("contend", 4), ("isolated", 4)] {
                let (syncs, flushes) = (sync * (cpus - 1), if arch == "x86_64" { cpus - 1 } else { 0 });
                let verdict = if mode == "contend" { verdict } else { "safe" };
                let problem = if verdict == "void" { r#","problem":"void, expected <unsafe>""# } else { "" };
                let bystander = if mode == "isolated" { format!("{sync}.0") } else { "null".to_owned() };
                rows += &format!(
                    r#"{{"schema":1,"arch":"{arch}","cpus":{cpus},"transport":"{transport}","strategy":"{strategy}","workload":"collapse_anon","mode":"{mode}","seed":1,"ops":64,"flush_ipis_per_op":{flushes}.0,"sync_ipis_per_op":{syncs}.0,"redundant_sync_ipis_per_op":0.0,"missing_syncs_per_op":0.25,"verdict":"{verdict}","engine":"icount","walker":"gup","without":"","inject":"","repetition":1,"predicted_flush_ipis_per_op":{flushes}.0,"predicted_sync_ipis_per_op":{syncs}.0,"bystander_flush_ipis_per_op":0.0,"bystander_nmis_per_op":0.0,"bystander_sync_ipis_per_op":{bystander}{problem},{PROFILE}}}"#
                );
                rows += "\n";
            }
        }
    }
    let manifest = r#"{"schema":1,"experiment":"fixture","claim":"A <claim> & more.","guests":1,"cells":30,"revision":"abc","fingerprint":"f","images":{},"tools":{"qemu":"7.2"},"begun":0}"#;
    let summary = r#"{"schema":1,"summary":true,"rows":30,"unexpected":2}"#;
    for (name, text) in [("rows.jsonl", rows.as_str()), ("manifest.json", manifest), ("summary.json", summary)] {
        std::fs::write(folder.join(name), text).expect("a file of this test");
    }
    folder
}

/// What is done on the page, and what must be seen; each line of `said` is one.
const VISIT: &str = r##"
addEventListener("DOMContentLoaded", () => {
  const said = [];
  const say = (what, value) => said.push(`${what}: ${value}`);
  const cells = (table, column) => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[column].textContent);
  const all = document.getElementById("all");
  const headings = [...all.tHead.rows[0].cells];
  const column = (name) => headings.findIndex((heading) => heading.textContent === name);
  say("rows", all.tBodies[0].rows.length);
  const sync = headings[column("sync")];
  sync.click();
  say("up", cells(all, column("sync")).slice(0, 3) + " .. " + cells(all, column("sync")).slice(-2) + " " + sync.getAttribute("aria-sort"));
  sync.click();
  say("down", cells(all, column("sync")).slice(0, 3) + " " + sync.getAttribute("aria-sort"));
  headings[column("strategy")].dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
  say("by key", cells(all, column("strategy"))[0]);
  const list = [...document.querySelectorAll("select")].find((list) => Number(list.dataset.column) === column("strategy"));
  list.value = "none";
  list.dispatchEvent(new Event("change"));
  say("chosen", document.getElementById("shown").textContent + " " + new Set(cells(all, column("strategy"))).size);
  const search = document.getElementById("search");
  search.value = "AARCH64 contend";
  search.dispatchEvent(new Event("input"));
  say("searched", document.getElementById("shown").textContent);
  list.value = "";
  search.value = "";
  list.dispatchEvent(new Event("change"));
  say("again", document.getElementById("shown").textContent);
  say("figures", [...document.querySelectorAll("figure[id]")].map((figure) => figure.id));
  const drawn = (svg) => svg.getBoundingClientRect().width > 600 && svg.querySelectorAll("rect, circle, text").length > 5;
  say("drawn", [...document.querySelectorAll("figure svg")].every(drawn));
  say("matrix", [...document.querySelectorAll(".matrix tbody tr")].map((row) => [...row.cells].map((cell) => cell.textContent)).join(" | "));
  say("claim", document.querySelector("td.wide").textContent);
  const ink = getComputedStyle(document.body).color;
  say("ink", document.querySelector("figure svg text").matches("[fill='var(--ink)']") && ink !== "");
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  say("loaded", loaded.length);
  document.body.dataset.said = said.join("\n");
  console.log("the end of the visit");
});
"##;

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// The page's document after the visit, and what the browser wrote to its log.
fn visit(browser: &Path, page: &Path, profile: &Path) -> (String, String) {
    let file = |name: &str| std::fs::File::create(profile.with_extension(name)).expect("a file for this test");
    let mut child = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1200,900",
            "--enable-logging=stderr",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(file("dom"))
        .stderr(file("log"))
        .spawn()
        .expect("the browser starts");
    let begin = Instant::now();
    while child.try_wait().expect("the browser can be waited for").is_none() {
        if begin.elapsed() > Duration::from_secs(300) {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the browser did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let read = |name: &str| std::fs::read_to_string(profile.with_extension(name)).expect("it was written");
    (read("dom"), read("log"))
}

#[test]
fn the_page_works_in_a_browser() {
    let folder = fixture("report-page");
    let output = xtask(&["report", folder.to_str().expect("a plain path")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(folder.join("report.html")).expect("the page was written");
    for outside in ["http://", "src=", "url(", "@import"] {
        // The name of SVG's language looks like an address, and is none.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(outside), "the page asks for {outside}");
    }
    for name in ["interrupts", "syncs", "scaling", "bystander", "map", "durations", "waiting"] {
        let svg = std::fs::read_to_string(folder.join(format!("figures/{name}.svg"))).expect("the figure was written");
        assert!(svg.starts_with("<svg ") && svg.contains("#1B1F24") && !svg.contains("var("), "{name}");
    }
    let Some(browser) = browser() else {
        eprintln!(
            "SKIPPED: there is no Chromium, so nobody looked at the page; `cargo xtask test` installs one where it may"
        );
        return;
    };
    let visited = folder.join("visited.html");
    std::fs::write(&visited, page.replacen("</head>", &format!("<script>{VISIT}</script></head>"), 1))
        .expect("written");
    let (document, log) = visit(&browser, &visited, &folder.join("profile"));
    let said = document.split("data-said=\"").nth(1).and_then(|rest| rest.split('"').next());
    let said = said.unwrap_or_else(|| panic!("the visit did not come to its end: {log}"));
    let expected = [
        "rows: 30",
        "up: 0,0,0 .. 15,15 ascending",
        "down: 15,15,15 descending",
        "by key: coverage",
        "chosen: 10 of 30 rows 1",
        "searched: 1 of 30 rows",
        "again: 30 of 30 rows",
        "figures: interrupts,syncs,scaling,bystander,map,durations,waiting",
        "drawn: true",
        // As run, on x86_64 and aarch64; then the simulated machine's, on the same two transports.
        "matrix: none,unsafe,unsafe,safe,unsafe | sync-all,safe,safe,safe,safe | coverage,void,void,safe,safe",
        "claim: A &lt;claim&gt; &amp; more.",
        "ink: true",
        "loaded: 0",
    ];
    let said: Vec<&str> = said.lines().collect();
    for (said, expected) in said.iter().zip(expected) {
        // The front is there as soon as bench/results.json knows these strategies.
        assert_eq!(said.replace("scaling,front,", "scaling,"), expected);
    }
    assert_eq!(said.len(), expected.len());
    // What the visit itself wrote shows that the console is in the log.
    let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.len() == 1 && console[0].contains("the end of the visit"), "the console says: {console:?}");
}

#[test]
fn a_folder_without_an_experiment_is_told() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-empty");
    std::fs::create_dir_all(&folder).expect("a folder for this test");
    let output = xtask(&["report", folder.to_str().expect("a plain path")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no finished experiment"));
}

fn diff(words: &[&str]) -> (Option<i32>, String) {
    let output = xtask(&[&["diff"], words].concat());
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn what_moved_is_told_and_a_budget_is_kept_or_not() {
    let (before, after) = (fixture("diff-before"), fixture("diff-after"));
    let rows = std::fs::read_to_string(after.join("rows.jsonl")).expect("it was written");
    let one =
        rows.lines().position(|line| line.contains("coverage") && line.contains("aarch64")).expect("there is one");
    let moved = |(i, line): (usize, &str)| {
        if i == one { line.replace("\"sync_ipis_per_op\":1.0", "\"sync_ipis_per_op\":2.0") } else { line.to_owned() }
    };
    let moved: Vec<String> = rows.lines().enumerate().map(moved).collect();
    std::fs::write(after.join("rows.jsonl"), moved.join("\n")).expect("written");
    let budget = after.with_extension("toml");
    std::fs::write(&budget, "[[budget]]\nstrategies = \"coverage\"\nmodes = \"same\"\nsync_ipis_per_op = \"others\"\n")
        .expect("written");
    let [before, after, budget] = [&before, &after, &budget].map(|path| path.to_str().expect("a plain path"));

    let (status, text) = diff(&[before, after]);
    assert_eq!(status, Some(0));
    assert!(
        text.contains("coverage, same, gup icount, seed 1 sync_ipis_per_op 1 -> 2 (+100.0 %) 1 of 30 rows moved."),
        "{text}"
    );
    let (status, text) = diff(&[before, "--budget", budget]);
    assert_eq!(status, Some(0), "{text}");
    let (status, text) = diff(&[before, after, "--budget", budget]);
    assert_eq!(status, Some(1));
    assert!(text.contains("fixture: aarch64 2 cpus broadcast, collapse_anon, coverage, same"), "{text}");
    assert!(text.contains("sync_ipis_per_op is 2, not at most 1 (others) (line 1)"), "{text}");

    std::fs::write(budget, "[[budget]]\nstrategies = \"coverag\"\nsync_ipis_per_op = 1\n").expect("written");
    let (status, text) = diff(&[after, "--budget", budget]);
    assert_eq!(status, Some(2));
    assert!(text.contains(":2:14: there is no strategy \"coverag\"; did you mean \"coverage\"?"), "{text}");
}
