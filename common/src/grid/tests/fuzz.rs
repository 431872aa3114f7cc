//! Texts that nobody wrote.

use super::*;

/// Cuts, repeats and swaps pieces of valid files, so that most results are almost right.
fn mutated(random: &mut impl rand::Rng, texts: &[&str]) -> String {
    let mut text: Vec<char> = texts[random.random_range(0..texts.len())].chars().collect();
    let noise: Vec<char> = "[]{}=\"',.#\n\t -_0129eénan∞\u{0}\u{feff}".chars().collect();
    for _ in 0..random.random_range(1..6) {
        let from = random.random_range(0..text.len());
        let to = (from + random.random_range(0..40)).min(text.len());
        match random.random_range(0..5) {
            0 => drop(text.drain(from..to)),
            1 => text.insert(from, noise[random.random_range(0..noise.len())]),
            2 => text[from] = noise[random.random_range(0..noise.len())],
            3 => {
                let piece = text[from..to].to_vec();
                let place = random.random_range(0..=text.len());
                text.splice(place..place, piece);
            }
            _ => text.truncate(from.max(1)),
        }
        if text.is_empty() {
            break;
        }
    }
    text.into_iter().collect()
}

#[test]
fn no_text_makes_the_parser_panic_and_every_error_points_into_the_text() {
    use rand::SeedableRng;
    let mut random = rand::rngs::SmallRng::seed_from_u64(0);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let text = mutated(&mut random, &[QUICKSTART, CIFAR10, SMALL]);
        match parse(&text) {
            Ok(plan) => {
                accepted += 1;
                assert_needs_stand_before_users(&plan);
            }
            Err(errors) => {
                refused += 1;
                assert!(!errors.problems.is_empty());
                for problem in &errors.problems {
                    let line = text.lines().nth(problem.line - 1).unwrap_or_default();
                    assert_eq!(problem.source, line, "{text}");
                    assert!(problem.column <= line.chars().count() + 1, "{problem:?}");
                }
                assert!(errors.to_string().ends_with("above"));
            }
        }
    }
    // Both outcomes are common, or the mutations test nothing.
    assert!(accepted > 100 && refused > 1_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn hostile_texts_are_refused_in_little_time() {
    let keys: String = (0..50_000).map(|n| format!("k{n} = 1\n")).collect();
    let found = problems(&keys);
    assert_eq!(found.len(), 100);
    assert!(found[99].hint.as_deref().unwrap().ends_with("further errors are not listed"), "{:?}", found[99]);
    for text in [
        format!("a = {}", "[".repeat(500_000)),
        format!("a = {}", "{a=".repeat(200_000)),
        "a.".repeat(400_000),
        "[[method]]\n".repeat(80_000),
        format!("seeds = [{}]", "1,".repeat(400_000)),
        format!("{SMALL}data.x.held-out = [{}]", "1,".repeat(400_000)),
        "\"".repeat(900_000),
    ] {
        assert!(problems(&text).len() <= 100);
    }
}
