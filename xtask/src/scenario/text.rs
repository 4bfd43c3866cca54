//! Pieces of a text that know where they are, and what is wrong with one.

use kernel::suite::Named;

use crate::names::nearest;

/// A mistake, and where it is: line and column, from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mistake {
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) sentence: String,
}

/// A piece of a line, and the column where it begins.
#[derive(Clone, Copy)]
pub(super) struct Piece<'t> {
    pub(super) text: &'t str,
    pub(super) line: usize,
    pub(super) column: usize,
}

impl<'t> Piece<'t> {
    pub(super) fn mistake<T>(&self, sentence: impl Into<String>) -> Result<T, Mistake> {
        Err(Mistake { line: self.line, column: self.column, sentence: sentence.into() })
    }

    /// The part from byte `from` on, up to `to`.
    pub(super) fn part(&self, from: usize, to: usize) -> Piece<'t> {
        let column = self.column + self.text[..from].chars().count();
        Piece { text: &self.text[from..to], line: self.line, column }
    }

    pub(super) fn trimmed(&self) -> Piece<'t> {
        let from = self.text.len() - self.text.trim_start().len();
        self.part(from, from + self.text.trim().len())
    }

    /// Before and after the first `separator`.
    pub(super) fn split_once(&self, separator: char) -> Option<(Piece<'t>, Piece<'t>)> {
        let at = self.text.find(separator)?;
        Some((self.part(0, at), self.part(at + separator.len_utf8(), self.text.len())))
    }

    /// Pieces between `separator`s.
    pub(super) fn split(&self, separator: char) -> Vec<Piece<'t>> {
        let mut pieces = Vec::new();
        let mut from = 0;
        for (at, _) in self.text.match_indices(separator) {
            pieces.push(self.part(from, at));
            from = at + separator.len_utf8();
        }
        pieces.push(self.part(from, self.text.len()));
        pieces
    }

    pub(super) fn words(&self) -> Vec<Piece<'t>> {
        self.split(' ').into_iter().filter(|p| !p.text.is_empty()).collect()
    }

    /// The name in `names` that this is.
    pub(super) fn name(&self, kind: &str, names: &[Named]) -> Result<&'static str, Mistake> {
        match names.iter().find(|(name, _)| *name == self.text) {
            Some((name, _)) => Ok(name),
            None => {
                let hint = nearest(self.text, names.iter().map(|(name, _)| *name));
                self.mistake(format!("there is no {kind} \"{}\"; did you mean \"{hint}\"?", self.text))
            }
        }
    }

    pub(super) fn number(&self, most: u64) -> Result<u64, Mistake> {
        match self.text.parse() {
            Ok(n) if n <= most => Ok(n),
            _ => self.mistake(format!("a number of at most {most} belongs here, not \"{}\"", self.text)),
        }
    }
}
