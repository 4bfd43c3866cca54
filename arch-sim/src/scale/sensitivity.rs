//! What would have to be otherwise for the model to have a published number: each parameter alone, the others as they
//! are.

use serde::Serialize;

use super::costs::{Cost, Grade};

/// One parameter.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Need {
    /// What it is.
    pub parameter: &'static str,
    /// Its unit, as it stands behind a number.
    pub unit: &'static str,
    /// What the model has.
    pub has: u64,
    /// Whether somebody has measured that.
    pub published: bool,
    /// What it would need; none if no value does.
    pub needs: Option<u64>,
}

impl Need {
    /// A cost of a preset: the smallest value up to `most` from which on the model has at least, or at most, `wanted`;
    /// `model` says what it has.
    pub(super) fn of_cost(
        parameter: &'static str,
        cost: &Cost,
        most: u64,
        wanted: f64,
        model: impl Fn(u64) -> f64,
    ) -> Need {
        let published = cost.grade == Grade::Published;
        Need { parameter, unit: "ns", has: cost.ns, published, needs: crossing(most, wanted, model) }
    }

    /// In words.
    pub fn in_words(&self) -> String {
        let Need { parameter, unit, has, published, needs } = self;
        let grade = if *published { "published" } else { "assumed" };
        match needs {
            Some(needs) => format!("if {parameter} were {needs} {unit} ({has}, {grade})"),
            None => format!("at no value of {parameter} ({has} {unit}, {grade})"),
        }
    }
}

/// Where `model`, which only rises or only falls from 0 to `most`, comes to the other side of `wanted`.
pub(super) fn crossing(most: u64, wanted: f64, model: impl Fn(u64) -> f64) -> Option<u64> {
    let above = |value| model(value) >= wanted;
    let first = above(0);
    if above(most) == first {
        return None;
    }
    let (mut low, mut high) = (0, most);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if above(middle) == first { low = middle } else { high = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_where_a_line_crosses() {
        assert_eq!(crossing(1_000, 70.0, |x| 2.0 * x as f64), Some(35));
        assert_eq!(crossing(1_000, 70.0, |x| 100.0 - x as f64), Some(31));
        assert_eq!(crossing(1_000, 70.0, |_| 1.0), None);
    }
}
