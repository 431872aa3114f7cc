//! Decides which libtorch the builds use, and provides it when the user has named none.
//!
//! `LIBTORCH` of the user always wins and is only checked. Otherwise `.libtorch/` of the checkout is
//! filled once; `.cargo/config.toml` points plain cargo commands at it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::wheels::{self, Content, Pins};
use crate::{fetch, prerequisites};

/// Raised when the layout of the folder changes without a change of the pins.
const LAYOUT: u32 = 1;

/// Text that names the layout and the pins that a folder was made from.
pub(crate) const STAMP: &str = "provided-by-credence";

/// Where libtorch comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// The folder of the checkout.
    Checkout(PathBuf),
    /// The folder that the user's LIBTORCH names.
    Folder(PathBuf),
    /// The `torch` package of the user's Python, which torch-sys finds and checks by itself.
    Python,
}

/// Checks the prerequisites and makes sure that a libtorch of the right version is here.
pub fn run(workspace: &Path) -> anyhow::Result<()> {
    libtorch(workspace).map(drop)
}

/// As [`run`]; returns the folder with libtorch's `include`, as far as it is known without asking Python.
pub fn libtorch(workspace: &Path) -> anyhow::Result<Option<PathBuf>> {
    prerequisites::rust()?;
    prerequisites::cxx()?;
    prerequisites::make()?;
    let ours = workspace.join(".libtorch");
    match source(&ours, env::var_os("LIBTORCH").map(PathBuf::from), env::var_os("LIBTORCH_USE_PYTORCH")) {
        Source::Checkout(folder) => provide(workspace, &folder).map(|()| Some(folder)),
        Source::Folder(folder) => check(&folder).map(|()| Some(folder)),
        Source::Python => {
            eprintln!("LIBTORCH_USE_PYTORCH is set: the torch package of `python3` is used");
            Ok(None)
        }
    }
}

/// Chooses by the environment. Cargo itself sets LIBTORCH to `ours` for whatever it runs, by way of
/// `.cargo/config.toml`, so that value is not the user's.
fn source(ours: &Path, libtorch: Option<PathBuf>, use_pytorch: Option<std::ffi::OsString>) -> Source {
    match (use_pytorch, libtorch) {
        (Some(_), _) => Source::Python,
        (None, Some(folder)) if !same_folder(&folder, ours) => Source::Folder(folder),
        (None, _) => Source::Checkout(ours.to_path_buf()),
    }
}

/// Equality that sees through links and `..` where both folders exist.
fn same_folder(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        (_, _) => a == b,
    }
}

/// Fills `folder` from the pinned wheels unless that was done before.
fn provide(workspace: &Path, folder: &Path) -> anyhow::Result<()> {
    let pins = Pins::of_this_machine(Content::Libtorch)?;
    let stamp = stamp(&pins);
    let work = workspace.join(".libtorch-work");
    let is_done = || fs::read_to_string(folder.join(STAMP)).is_ok_and(|text| text == stamp);
    if is_done() {
        // Left behind only when the very last step was interrupted.
        if work.exists() && lock(&work).is_ok() {
            fs::remove_dir_all(&work).with_context(|| format!("cannot remove `{}`", work.display()))?;
        }
        return Ok(());
    }
    prerequisites::pip()?;
    fs::create_dir_all(&work).with_context(|| format!("cannot create `{}`", work.display()))?;
    let _held = lock(&work)?;
    if is_done() {
        return Ok(());
    }
    fetch::provide(&pins, &work, folder, |staging| {
        let write = |name: &str, text: &str| {
            let path = staging.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
        };
        // torch-sys links `-ltorch`; the real libtorch.so would pull in libtorch_cuda.so.
        write("lib/libtorch.so", "INPUT(libtorch_cpu.so)\n")?;
        // torch-sys links `-lgomp`, which clang does not bring along.
        write("lib/libgomp.so", "INPUT(libgomp.so.1)\n")?;
        // torch-sys compares this file with the version that it is written for.
        write("build-version", &wheels::libtorch_version()?)?;
        write(STAMP, &stamp)
    })?;
    eprintln!("libtorch {} is in `{}`", wheels::libtorch_version()?, folder.display());
    Ok(())
}

pub(crate) fn stamp(pins: &Pins) -> String {
    let digest = Sha256::digest(pins.requirements.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("layout {LAYOUT}\nsha256 of the requirements {hex}\n")
}

/// Keeps a second `cargo xtask setup` out of the work folder; released with the process.
pub(crate) fn lock(work: &Path) -> anyhow::Result<Flock<fs::File>> {
    let handle = fs::File::open(work).with_context(|| format!("cannot open `{}`", work.display()))?;
    Flock::lock(handle, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        anyhow::Error::new(error)
            .context(format!("another `cargo xtask` is fetching into `{}`; wait for it", work.display()))
    })
}

/// Refuses a libtorch of the user's that has another version.
fn check(folder: &Path) -> anyhow::Result<()> {
    let needed = wheels::libtorch_version()?;
    let Some(found) = version_of(folder) else {
        bail!(
            "LIBTORCH names `{}`, which holds no libtorch (neither `build-version` nor \
             `include/torch/headeronly/version.h`); Credence needs libtorch {needed}. \
             Unset LIBTORCH to have it fetched",
            folder.display()
        );
    };
    let plain = found.split('+').next().unwrap_or_default();
    ensure!(
        plain == needed,
        "LIBTORCH names `{}`, which is libtorch {found}; Credence needs libtorch {needed}. \
         Unset LIBTORCH to have it fetched, or name a folder of that version",
        folder.display()
    );
    Ok(())
}

/// Version of a libtorch folder: `build-version` in the zip files of pytorch.org, a header in the `torch`
/// folder of a Python environment.
fn version_of(folder: &Path) -> Option<String> {
    if let Ok(text) = fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let headers = ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];
    headers.into_iter().find_map(|header| version_in(&fs::read_to_string(folder.join(header)).ok()?))
}

/// Reads `#define TORCH_VERSION_MAJOR 2` and its two companions.
fn version_in(header: &str) -> Option<String> {
    let part = |name: &str| {
        let after = header.split(&format!("#define TORCH_VERSION_{name} ")).nth(1)?;
        after.lines().next()?.trim().parse::<u32>().ok()
    };
    Some(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_libtorch_wins_and_cargos_own_value_is_not_the_users() {
        let ours = Path::new("/checkout/.libtorch");
        let theirs = PathBuf::from("/opt/libtorch");
        assert_eq!(source(ours, None, None), Source::Checkout(ours.to_path_buf()));
        assert_eq!(source(ours, Some(ours.to_path_buf()), None), Source::Checkout(ours.to_path_buf()));
        assert_eq!(source(ours, Some(theirs.clone()), None), Source::Folder(theirs.clone()));
        assert_eq!(source(ours, Some(theirs), Some("1".into())), Source::Python);
    }

    #[test]
    fn a_libtorch_of_another_version_is_refused_by_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("build-version"), "2.5.1+cpu\n").unwrap();
        let refusal = check(folder.path()).unwrap_err().to_string();
        assert!(refusal.contains("2.5.1+cpu"), "{refusal}");
        assert!(refusal.contains("2.11.0"), "{refusal}");
    }

    #[test]
    fn the_right_version_is_accepted_with_and_without_a_build_suffix() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["2.11.0", "2.11.0+cu130\n"] {
            fs::write(folder.path().join("build-version"), version).unwrap();
            check(folder.path()).unwrap();
        }
    }

    #[test]
    fn the_torch_folder_of_a_python_environment_tells_its_version_by_a_header() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(version_of(folder.path()), None);
        let include = folder.path().join("include/torch/headeronly");
        fs::create_dir_all(&include).unwrap();
        let header = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n\
                      #define TORCH_VERSION_PATCH 0\n";
        fs::write(include.join("version.h"), header).unwrap();
        assert_eq!(version_of(folder.path()).as_deref(), Some("2.11.0"));
    }

    #[test]
    fn a_folder_without_libtorch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = check(folder.path()).unwrap_err().to_string();
        assert!(refusal.contains("holds no libtorch"), "{refusal}");
    }

    #[test]
    fn the_pinned_version_is_the_one_that_the_locked_torch_sys_is_written_for() {
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        let lock = fs::read_to_string(lock).unwrap();
        assert!(lock.contains("name = \"torch-sys\"\nversion = \"0.24.0\"\n"), "pin another libtorch too");
        assert_eq!(wheels::libtorch_version().unwrap(), "2.11.0");
    }
}
