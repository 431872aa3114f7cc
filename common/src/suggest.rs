//! "Did you mean …?": the valid name that a misspelt one most likely stands for.
//!
//! It only proposes. Nothing is ever corrected silently.

/// Longest text that is compared, in characters. No name is longer, and the comparison is quadratic.
const LONGEST: usize = 64;

/// The candidate nearest to `name`, when it is near enough to be meant.
///
/// Case, and whether words are joined by `-`, `_` or a space, do not count. Beyond that, up to a third of the
/// letters may be wrong, missing, extra or swapped with their neighbour. Of equally near candidates the first is taken.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = folded(name);
    let length = name.chars().count();
    if length == 0 || length > LONGEST {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&name, &folded(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= (length.max(candidate.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// One sentence for an unknown name: the nearest valid one, if there is one, and all of them.
pub fn hint<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let listed = match candidates.as_slice() {
        [] => "nothing is valid here".to_owned(),
        [only] => format!("the only valid name is `{only}`"),
        several => format!("valid names are {}", quoted(several)),
    };
    match nearest(name, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {listed}"),
        None => listed,
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn folded(name: &str) -> String {
    name.chars().take(LONGEST + 1).flat_map(char::to_lowercase).map(joined).collect()
}

fn joined(letter: char) -> char {
    if matches!(letter, '_' | ' ') { '-' } else { letter }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 4] = ["epochs", "batch-size", "lr", "nesterov"];

    #[test]
    fn a_misspelt_name_is_found() {
        for (typed, meant) in
            [("epoch", "epochs"), ("batch_size", "batch-size"), ("Nestreov", "nesterov"), ("rl", "lr")]
        {
            assert_eq!(nearest(typed, KEYS), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_name_that_resembles_nothing_gets_no_proposal() {
        for typed in ["", "dropout", "x".repeat(10_000).as_str()] {
            assert_eq!(nearest(typed, KEYS), None, "{typed}");
        }
        assert_eq!(hint("dropout", KEYS), "valid names are `epochs`, `batch-size`, `lr`, `nesterov`");
    }

    #[test]
    fn a_hint_names_the_nearest_first_and_then_all() {
        assert_eq!(hint("LR", ["lr", "momentum"]), "did you mean `lr`? valid names are `lr`, `momentum`");
        assert_eq!(hint("zzz", ["lr"]), "the only valid name is `lr`");
    }
}
