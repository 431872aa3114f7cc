//! Folders in which libraries may lie.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder that may hold `libtorch_cuda.so`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub lib: PathBuf,
    /// What says so.
    pub origin: String,
}

/// Folders to look at, in the order of the search.
pub fn candidates(explicit: Option<&Path>, variable: &impl Fn(&str) -> Option<OsString>) -> Vec<Candidate> {
    let named = |path: PathBuf, origin: &str| {
        let place = |lib| Candidate { lib, origin: origin.to_owned() };
        let found: Vec<_> = below(&path).into_iter().map(place).collect();
        // Nothing there: the folder itself is what is named in the refusal.
        if found.is_empty() { vec![Candidate { lib: path, origin: origin.to_owned() }] } else { found }
    };
    if let Some(path) = explicit {
        return named(path.to_owned(), "the configuration");
    }
    if let Some(path) = variable(super::VARIABLE) {
        return named(path.into(), super::VARIABLE);
    }
    let mut found: Vec<Candidate> = Vec::new();
    let mut add = |prefix: PathBuf, origin: &str| {
        for lib in environment(&prefix) {
            if !found.iter().any(|known| known.lib == lib) {
                found.push(Candidate { lib, origin: origin.to_owned() });
            }
        }
    };
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        if let Some(prefix) = variable(name) {
            add(prefix.into(), name);
        }
    }
    let path = variable("PATH").unwrap_or_default();
    let python = std::env::split_paths(&path).find(|folder| folder.join("python3").is_file());
    if let Some(folder) = python {
        // A virtual environment's `python3` is a link to another, whose packages are not its own.
        if let Some(prefix) = folder.parent() {
            add(prefix.to_owned(), "python3 on the PATH");
        }
    }
    found
}

/// The folder that a user may have meant: of the libraries, of PyTorch, of packages, or of a Python environment.
fn below(path: &Path) -> Vec<PathBuf> {
    let near = ["", "lib", "torch/lib"]
        .map(|below| if below.is_empty() { path.to_owned() } else { path.join(below) });
    let holds = |lib: &PathBuf| lib.join(super::ROOTS[0]).is_file();
    match near.into_iter().find(holds) {
        Some(lib) => vec![lib],
        None => environment(path),
    }
}

/// Folders of PyTorch's libraries in a Python environment.
fn environment(prefix: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in ["lib", "lib64", "local/lib"] {
        let Ok(entries) = fs::read_dir(prefix.join(lib)) else { continue };
        let mut pythons: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
            .map(|entry| entry.path())
            .collect();
        pythons.sort();
        for (python, packages) in pythons
            .iter()
            .flat_map(|python| ["site-packages", "dist-packages"].map(|packages| (python, packages)))
        {
            let lib = python.join(packages).join("torch/lib");
            if lib.is_dir() {
                found.push(lib);
            }
        }
    }
    found
}

/// Folders in which the system's loader looks for what no library names a folder for.
pub fn system_folders() -> &'static [PathBuf] {
    static FOLDERS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let arch = std::env::consts::ARCH;
        let usual = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"].map(PathBuf::from);
        let multiarch = ["/lib", "/usr/lib"].map(|lib| PathBuf::from(format!("{lib}/{arch}-linux-gnu")));
        let mut folders: Vec<_> = usual.into_iter().chain(multiarch).collect();
        for file in fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            folders
                .extend(text.lines().map(str::trim).filter(|line| line.starts_with('/')).map(PathBuf::from));
        }
        folders
    })
}
