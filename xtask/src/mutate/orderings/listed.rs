//! What is written in the kernel's source, as the test `orderings` lists it.

use super::loom::Met;

/// One half of one ordering.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) file: String,
    pub(super) line: u32,
    /// Acquire, Release or Full.
    pub(super) half: String,
    /// The litmus test that a comment names, and what it says of such a half.
    pub(super) litmus: Option<(String, String)>,
    /// The line.
    pub(super) text: String,
    /// Lines that make an access with it, where it is a constant.
    uses: Vec<(String, u32)>,
}

impl Listed {
    /// Reads `FILE:LINE:HALF TEST WHAT -- the line`.
    pub(super) fn read(text: &str) -> Option<Listed> {
        let (head, text) = text.split_once(" -- ")?;
        let mut words = head.split(' ');
        let mut place = words.next()?.rsplitn(3, ':');
        let (half, line, file) = (place.next()?.to_owned(), place.next()?.parse().ok()?, place.next()?.to_owned());
        let (name, says) = (words.next()?, words.next()?);
        let litmus = (name != "-").then(|| (name.to_owned(), says.to_owned()));
        Some(Listed { file, line, half, litmus, text: text.to_owned(), uses: Vec::new() })
    }

    /// File and line.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// Whether a model that meets `met` meets this.
    pub(super) fn is_met_as(&self, met: &Met) -> bool {
        let at = |file: &str, line| met.file == file && met.line == line;
        met.half == self.half && (at(&self.file, self.line) || self.uses.iter().any(|(file, line)| at(file, *line)))
    }
}

/// The list of all that the test says, and its complaints.
pub(super) fn read(text: &str) -> (Vec<Listed>, Vec<String>) {
    let (mut listed, mut complaints) = (Vec::new(), Vec::new());
    // What the harness says of a test may stand before its first words.
    for line in text.lines().map(|line| line.split_once(" ... ").map_or(line, |(_, said)| said).trim()) {
        if let Some(rest) = line.strip_prefix("written: ") {
            listed.extend(Listed::read(rest));
        } else if let Some((place, of)) = line.strip_prefix("used: ").and_then(|rest| rest.split_once(' ')) {
            let place = place.rsplit_once(':').and_then(|(file, line)| Some((file.to_owned(), line.parse().ok()?)));
            let constants = listed.iter_mut().filter(|l| l.text.contains(&format!("const {of}:")));
            constants.for_each(|constant| constant.uses.extend(place.clone()));
        } else if let Some(rest) = line.strip_prefix("not accounted for: ") {
            complaints.push(rest.to_owned());
        }
    }
    (listed, complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_test_are_read() {
        let text = "running 1 test\ntest it ... written: k/a.rs:4:Acquire - - -- pub const LOAD: Ordering = Ordering::Acquire;\n\
                    written: k/a.rs:9:Release walk-end Needs -- x.store(1, Ordering::Release); // a -- b\n\
                    used: k/b.rs:7 LOAD\nnot accounted for: k/c.rs:1: no\ntest it ... ok\n";
        let (listed, complaints) = read(text);
        assert_eq!(complaints, ["k/c.rs:1: no"]);
        assert_eq!(listed[1].litmus, Some(("walk-end".into(), "Needs".into())));
        assert_eq!(
            (listed[1].place().as_str(), listed[1].text.as_str()),
            ("k/a.rs:9", "x.store(1, Ordering::Release); // a -- b")
        );
        let met = |file: &str, line, half: &str| Met { file: file.into(), line, half: half.into(), ..Met::default() };
        assert!(listed[0].is_met_as(&met("k/b.rs", 7, "Acquire")) && listed[0].is_met_as(&met("k/a.rs", 4, "Acquire")));
        assert!(
            !listed[0].is_met_as(&met("k/b.rs", 7, "Release")) && !listed[1].is_met_as(&met("k/b.rs", 7, "Release"))
        );
    }
}
