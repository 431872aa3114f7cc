//! A promise is worth what its test is worth: each test that `docs/guarantees.md` names exists.

use std::fs;

use system_tests::repository;

/// File and function of every test that the page names: `` `file.rs`: `function`, `function` ``.
fn named(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in page.lines() {
        let mut file: Option<&str> = None;
        // Every second part of a line stands between backquotes.
        for quoted in line.split('`').skip(1).step_by(2) {
            if quoted.ends_with(".rs") {
                file = Some(quoted);
            } else if let Some(file) = file
                && is_name(quoted)
            {
                found.push((file.to_owned(), quoted.to_owned()));
            }
        }
    }
    found
}

fn is_name(text: &str) -> bool {
    text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let page = fs::read_to_string(repository().join("docs/guarantees.md")).unwrap();
    let named = named(&page);
    assert!(named.len() > 40, "only {} tests are named", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| {
            let text = fs::read_to_string(repository().join(file)).unwrap_or_default();
            !text.contains(&format!("fn {test}("))
        })
        .collect();
    assert!(missing.is_empty(), "the guarantees name tests that do not exist: {missing:#?}");
}

#[test]
fn tests_are_found_by_the_file_before_them() {
    let page = "| a promise of `credence` | `a/b.rs`: `one_test`, `two_tests`; `c.rs`: `three_tests` |\n| `no_file` |";
    let expected = [("a/b.rs", "one_test"), ("a/b.rs", "two_tests"), ("c.rs", "three_tests")];
    assert_eq!(named(page), expected.map(|(file, test)| (file.to_owned(), test.to_owned())));
}
