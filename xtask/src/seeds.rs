//! A range of seeds on the command line: `A..B`, both included, or one seed.

use std::fmt;
use std::str::FromStr;

/// Seeds from the first to the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seeds {
    first: u64,
    last: u64,
}

impl Seeds {
    /// In order.
    pub(crate) fn iter(self) -> impl Iterator<Item = u64> {
        self.first..=self.last
    }

    /// How many.
    pub(crate) fn count(self) -> u64 {
        self.last - self.first + 1
    }
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(given: &str) -> Result<Seeds, String> {
        let (first, last) = given.split_once("..").unwrap_or((given, given));
        let number =
            |text: &str| text.parse::<u64>().map_err(|_| format!("\"{text}\" is no seed; give A..B, like 1..64"));
        let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
        if first > last || last == u64::MAX {
            return Err(format!("there is no seed from {first} to {last}"));
        }
        Ok(Seeds { first, last })
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_includes_both_ends() {
        let seeds: Seeds = "3..5".parse().unwrap();
        assert_eq!((seeds.iter().collect::<Vec<_>>(), seeds.count()), (vec![3, 4, 5], 3));
        assert_eq!(seeds.to_string(), "3..5");
        assert_eq!("7".parse::<Seeds>().unwrap().iter().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", "5..3", "a..b", "1..", "..4", "1..18446744073709551615"] {
            assert!(bad.parse::<Seeds>().is_err(), "{bad}");
        }
    }
}
