//! Names on the command line: lists of them, and the nearest one to a name that does not exist.

use kernel::suite::Named;

use crate::error::bad_input;

/// The name that `given` most likely stands for.
pub(crate) fn nearest<'n>(given: &str, names: impl IntoIterator<Item = &'n str>) -> &'n str {
    let similarity = |name: &str| {
        let whole = strsim::normalized_damerau_levenshtein(given, name);
        // A part of a name, like "collapse", is a likely slip too.
        if name.contains(given) && !given.is_empty() { whole.max(0.9) } else { whole }
    };
    let mut best = ("", -1.0);
    for name in names {
        let s = similarity(name);
        if s > best.1 {
            best = (name, s);
        }
    }
    best.0
}

/// Reads a list of names, each from `names`; `all` stands for every one. Repeated names count once.
pub(crate) fn choose(kind: &str, given: &[String], names: &[Named]) -> anyhow::Result<Vec<&'static str>> {
    choose_more(kind, given, names, &[])
}

/// The same with `more` names, for which `all` does not stand.
pub(crate) fn choose_more(
    kind: &str,
    given: &[String],
    names: &[Named],
    more: &[Named],
) -> anyhow::Result<Vec<&'static str>> {
    let mut chosen = Vec::new();
    for word in given {
        let word = word.trim();
        let found: Vec<&'static str> = if word == "all" {
            names.iter().map(|(name, _)| *name).collect()
        } else {
            names.iter().chain(more).filter(|(name, _)| *name == word).map(|(name, _)| *name).collect()
        };
        if found.is_empty() {
            let hint = nearest(word, names.iter().chain(more).map(|(name, _)| *name));
            return Err(bad_input(format!(
                "there is no {kind} \"{word}\"; did you mean \"{hint}\"? (`cargo xtask list` names them all)"
            )));
        }
        for name in found {
            if !chosen.contains(&name) {
                chosen.push(name);
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[Named] = &[("none", ""), ("sync-all", ""), ("static-hook", "")];

    fn words(list: &str) -> Vec<String> {
        list.split(',').map(String::from).collect()
    }

    #[test]
    fn lists_keep_their_order_and_lose_repetitions() {
        assert_eq!(choose("strategy", &words("static-hook,none,none"), NAMES).unwrap(), ["static-hook", "none"]);
        assert_eq!(choose("strategy", &words("none,all"), NAMES).unwrap(), ["none", "sync-all", "static-hook"]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest() {
        let error = choose("strategy", &words("static_hok"), NAMES).unwrap_err().to_string();
        assert!(error.contains("\"static_hok\"") && error.contains("\"static-hook\""), "{error}");
        assert_eq!(nearest("synall", NAMES.iter().map(|n| n.0)), "sync-all");
        assert_eq!(nearest("hook", NAMES.iter().map(|n| n.0)), "static-hook");
    }

    #[test]
    fn an_empty_name_is_unknown_too() {
        assert!(choose("strategy", &words(""), NAMES).is_err());
    }
}
