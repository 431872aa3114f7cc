//! Agreement of the paired tests with scipy, on thousands of pairs with ties, zeros and no spread.
//!
//! `fixtures/paired.csv`: `fixtures/make_paired.py`, with the version of scipy in its first line.

#![expect(clippy::unwrap_used, reason = "clippy does not take helpers in integration tests for tests")]

use metrics::PairedComparison;

/// The file has twelve digits. What is left is the incomplete beta function, of which two implementations agree
/// to some 1e-13 in the mean and less well far out, where p itself is small: hence relative.
const RELATIVE: f64 = 1e-9;

fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn unit(case: u64, index: u64) -> f64 {
    (mix((case << 32) | index) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The same pairs as in the script.
fn pairs(case: u64) -> (Vec<f64>, Vec<f64>) {
    let n = 2 + case % 11;
    let side = |offset| (0..n).map(|i| unit(case, 2 * i + offset)).collect::<Vec<_>>();
    let coarse = |side: Vec<f64>| side.into_iter().map(|v| (4.0 * v).floor() / 4.0).collect();
    let (left, right) = (side(0), side(1));
    match case % 4 {
        1 => (coarse(left), coarse(right)),
        2 => (left.into_iter().map(|v| v + 3.0).collect(), right),
        _ => (left, right),
    }
}

#[track_caller]
fn assert_p(case: usize, name: &str, found: Option<f64>, expected: &str) {
    match (found, expected) {
        (None, "") => {}
        (Some(found), expected) if !expected.is_empty() => {
            let expected: f64 = expected.parse().unwrap();
            assert!(
                (found - expected).abs() <= RELATIVE * expected,
                "case {case}, {name}: {found}, not {expected}"
            );
        }
        (found, expected) => panic!("case {case}, {name}: {found:?}, not `{expected}`"),
    }
}

#[test]
fn p_values_agree_with_scipy() {
    let lines: Vec<&str> = include_str!("../fixtures/paired.csv").lines().skip(1).collect();
    assert_eq!(lines.len(), 3_000);
    let (mut constant, mut ranked) = (0, 0);
    for (case, line) in lines.into_iter().enumerate() {
        let (left, right) = pairs(case as u64);
        let found = PairedComparison::new(&left, &right).unwrap();
        let (t, w) = line.split_once(',').unwrap();
        assert_p(case, "t-test", found.p_value, t);
        constant += usize::from(t.is_empty());
        // The script leaves the large cases out, of which there are too many sign patterns.
        let differing = left.iter().zip(&right).filter(|(a, b)| a != b).count();
        if differing <= 10 {
            assert_p(case, "signed ranks", found.signed_rank_p_value, w);
            ranked += 1;
        }
    }
    assert!(constant > 10, "cases without spread: {constant}");
    assert!(ranked > 2_000, "{ranked}");
}
