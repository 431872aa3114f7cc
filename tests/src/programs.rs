//! Where the programs under test are.

use std::env;
use std::path::{Path, PathBuf};

/// The two executables.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `credence`.
    pub credence: PathBuf,
}

impl Programs {
    /// The programs that `CREDENCE_BIN` and `CREDENCE_TRAINER_BIN` name, or those that were built with the profile
    /// of this test.
    ///
    /// # Panics
    ///
    /// When `credence` is missing. Cargo builds no binaries of other packages for a test, so it says what does.
    pub fn find() -> Self {
        Self { credence: program("CREDENCE_BIN", "credence") }
    }

    /// `credence-trainer`, which only what really trains needs.
    ///
    /// # Panics
    ///
    /// When it is missing.
    pub fn trainer(&self) -> PathBuf {
        Self::trainer_alone()
    }

    /// As [`trainer`](Self::trainer), for what needs nothing else.
    ///
    /// # Panics
    ///
    /// When it is missing.
    pub fn trainer_alone() -> PathBuf {
        program("CREDENCE_TRAINER_BIN", "credence-trainer")
    }
}

fn program(variable: &str, name: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| profile_folder().join(name), PathBuf::from);
    assert!(
        path.is_file(),
        "`{}` is missing: run these tests with `cargo xtask test`, which builds it, or name it with {variable}",
        path.display()
    );
    path
}

/// `target/PROFILE` of the running test, which lies in `target/PROFILE/deps`, or of a program of this crate.
fn profile_folder() -> PathBuf {
    let own = env::current_exe().expect("the path of the test executable");
    let folder = own.parent().expect("cargo's layout of the target folder");
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    profile.expect("cargo's layout of the target folder").to_owned()
}

/// Root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a folder of the repository")
}
