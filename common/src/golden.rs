//! Golden files of this crate's tests.

use std::path::Path;

/// Compares text with `fixtures/NAME`. With `UPDATE_GOLDEN` set in the environment, the file is written instead, for
/// the change to be read in the diff.
pub fn assert_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(actual, expected, "`{name}` differs; if that is meant, run again with UPDATE_GOLDEN=1");
}
