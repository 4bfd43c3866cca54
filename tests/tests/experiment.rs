//! An experiment in QEMU, through the runner: interrupted and gone on with, judged again, and found wrong where it is.

mod aarch64 {
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Output, Stdio};
    use std::time::{Duration, Instant};

    const FILE: &str = "claim = \"Small.\"\narchitectures = \"aarch64\"\nstrategies = [\"none\", \"sync-all\"]\n\
                        workloads = \"unshare_munmap_last\"\nmodes = [\"same\", \"contend\"]\nseeds = \"1..3\"\nops = 32\n\
                        [[expected]]\nmodes = \"contend\"\nstrategies = \"none\"\nrows = \"some\"\nverdict = \"unsafe\"\n";

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Scratch {
            let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("experiment");
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir_all(&path).expect("a folder for this test");
            Scratch(path)
        }

        fn file(&self, text: &str) -> PathBuf {
            let path = self.0.join("small.toml");
            std::fs::write(&path, text).expect("the file is written");
            path
        }
    }

    fn start(file: &Path, folder: &Path) -> Child {
        let program = std::env::var_os("XTASK").expect("`cargo xtask test` runs these tests");
        let mut command = Command::new(program);
        command.arg("experiment").arg(file).arg("--folder").arg(folder).args(["--jobs", "1"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the runner starts")
    }

    fn run(file: &Path, folder: &Path) -> Output {
        start(file, folder).wait_with_output().expect("the runner ends")
    }

    fn said(output: &Output) -> String {
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Lines are broken where a terminal ends.
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn parts(folder: &Path) -> usize {
        let all = std::fs::read_dir(folder.join("parts"));
        all.map_or(0, |all| all.flatten().filter(|e| e.path().extension().is_some_and(|e| e == "jsonl")).count())
    }

    #[test]
    #[ignore = "boots QEMU"]
    fn an_interrupted_experiment_goes_on_where_it_was() {
        let scratch = Scratch::new();
        let file = scratch.file(FILE);
        let (whole, broken) = (scratch.0.join("whole"), scratch.0.join("broken"));
        let output = run(&file, &whole);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));

        let child = start(&file, &broken);
        let begin = Instant::now();
        while parts(&broken) < 2 && begin.elapsed() < Duration::from_secs(300) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("the runner takes a signal");
        let output = child.wait_with_output().expect("the runner ends");
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        assert!(said(&output).contains("the same command goes on with the rest"), "{}", said(&output));
        let done = parts(&broken);
        assert!((2..6).contains(&done), "{done} guests were done");
        let output = run(&file, &broken);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains(&format!("{} of 12 cells are done", 2 * done)), "{}", said(&output));
        for name in ["rows.jsonl", "rows.csv", "commands.txt", "experiment.toml"] {
            let read = |folder: &Path| std::fs::read_to_string(folder.join(name)).expect("it was written");
            assert_eq!(read(&broken), read(&whole), "{name}");
        }

        // What was expected can be changed afterwards; the rows stay, and nothing is run.
        let wrong = scratch.file(&FILE.replace("verdict = \"unsafe\"", "verdict = \"safe\""));
        let output = run(&wrong, &whole);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("verdict is unsafe, not safe (line 8)"), "{}", said(&output));
        let other = scratch.file(&FILE.replace("ops = 32", "ops = 33"));
        let output = run(&other, &whole);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("has rows of another experiment"), "{}", said(&output));
    }
}
