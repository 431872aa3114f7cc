//! Where CUDA's half of libtorch lies: found at run time, so that no build and no machine without a GPU needs it.
//!
//! `credence doctor` says what it found, and `credence-trainer` loads it. Files are looked at and never loaded or run, so what
//! is damaged, partial or of another version is named before the system's loader could end the process over it.

mod elf;
mod place;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use elf::Dynamic;

/// The version of PyTorch whose CUDA libraries fit the libtorch that trainers are linked with.
pub const WANTED: &str = "2.11.0+cu130";

/// Names the folder of CUDA's half of libtorch, or one above it, where no configuration does.
pub const VARIABLE: &str = "CREDENCE_CUDA_LIBTORCH";

/// Libraries that a trainer on a GPU loads. The second is loaded at the first linear-algebra routine.
const ROOTS: [&str; 3] = ["libtorch_cuda.so", "libtorch_cuda_linalg.so", "libc10_cuda.so"];

/// What every program that runs has, and those of libtorch that a trainer is linked with.
const PRESENT: [&str; 11] = [
    "ld-linux",
    "libc.so",
    "libdl.so",
    "libgcc_s.so",
    "libm.so",
    "libpthread.so",
    "librt.so",
    "libstdc++.so",
    "libc10.so",
    "libtorch_cpu.so",
    "libgomp.so",
];

/// An installation of PyTorch with CUDA that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaInstall {
    /// Folder of `libtorch_cuda.so`.
    pub lib: PathBuf,
    /// Its version, [`WANTED`].
    pub version: String,
    /// NCCL's library, which it needs.
    pub nccl: Option<PathBuf>,
    /// Version of NCCL, where its package says so.
    pub nccl_version: Option<String>,
}

/// Why a folder is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No `libtorch_cuda.so`: a PyTorch for processors only, or none.
    Absent,
    /// It says no version, or another one.
    Version(Option<String>),
    /// Libraries are missing or damaged.
    Partial(Vec<String>),
}

/// A folder that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The folder.
    pub lib: PathBuf,
    /// What says that it should be looked at.
    pub origin: String,
    /// Why not.
    pub flaw: Flaw,
}

/// Why no installation was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// Folders that were looked at, the most telling first: none when nothing says where to look.
    pub rejected: Vec<Rejected>,
}

/// The variables of this process, for [`find`].
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Looks for CUDA's half of libtorch: in `explicit`, else in [`VARIABLE`], else in the active Python environments
/// (`VIRTUAL_ENV`, `CONDA_PREFIX`, `python3` on the `PATH`). A place that is named is the only one that is looked at.
///
/// # Errors
///
/// [`NotFound`] names each folder, and what is missing there.
pub fn find(
    explicit: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<CudaInstall, NotFound> {
    let library_path = variable("LD_LIBRARY_PATH");
    let library_path: Vec<_> = library_path.iter().flat_map(std::env::split_paths).collect();
    let mut rejected = Vec::new();
    for place::Candidate { lib, origin } in place::candidates(explicit, &variable) {
        match inspect(&lib, &library_path) {
            Ok(install) => return Ok(install),
            Err(flaw) => rejected.push(Rejected { lib, origin, flaw }),
        }
    }
    // What is nearly right says more than what is not there.
    rejected.sort_by_key(|rejected| match rejected.flaw {
        Flaw::Partial(_) => 0,
        Flaw::Version(_) => 1,
        Flaw::Absent => 2,
    });
    Err(NotFound { rejected })
}

/// Looks at one folder.
fn inspect(lib: &Path, library_path: &[PathBuf]) -> Result<CudaInstall, Flaw> {
    if !lib.join(ROOTS[0]).is_file() {
        return Err(Flaw::Absent);
    }
    let version = match version(lib) {
        Some(version) if version == WANTED => version,
        other => return Err(Flaw::Version(other)),
    };
    let mut loader = Loader { library_path, seen: BTreeSet::new(), missing: Vec::new(), nccl: None };
    for root in ROOTS {
        loader.load(root, None, std::slice::from_ref(&lib.to_owned()));
    }
    let Loader { missing, nccl, .. } = loader;
    if !missing.is_empty() {
        return Err(Flaw::Partial(missing));
    }
    let nccl_version = nccl.as_deref().and_then(nccl_version);
    Ok(CudaInstall { lib: lib.to_owned(), version, nccl, nccl_version })
}

/// Follows what libraries need, as the system's loader will.
struct Loader<'a> {
    library_path: &'a [PathBuf],
    seen: BTreeSet<String>,
    missing: Vec<String>,
    nccl: Option<PathBuf>,
}

impl Loader<'_> {
    fn load(&mut self, name: &str, needed_by: Option<&str>, folders: &[PathBuf]) {
        if PRESENT.iter().any(|present| name.starts_with(present)) || !self.seen.insert(name.to_owned()) {
            return;
        }
        let by = needed_by.map_or_else(String::new, |by| format!(" (needed by {by})"));
        let system = place::system_folders();
        let all = folders.iter().chain(self.library_path).chain(system);
        let Some(path) = all.map(|folder| folder.join(name)).find(|path| path.is_file()) else {
            self.missing.push(format!("{name}{by}"));
            return;
        };
        if name.starts_with("libnccl.so") {
            self.nccl = Some(path.clone());
        }
        match Dynamic::read(&path) {
            Ok(Dynamic { needed, folders: own }) => {
                let origin = path.parent().unwrap_or(Path::new("/"));
                let expand = |folder: &String| {
                    let origin = &origin.to_string_lossy();
                    PathBuf::from(folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin))
                };
                // The folders of who needs a library are searched for what that one needs, too.
                let mut next: Vec<_> = own.iter().map(expand).collect();
                next.extend(
                    folders.iter().filter(|folder| !next.contains(folder)).cloned().collect::<Vec<_>>(),
                );
                for library in &needed {
                    self.load(library, Some(name), &next);
                }
            }
            Err(error) => self.missing.push(format!("{name}{by}: damaged: {error}")),
        }
    }
}

/// Version of the PyTorch whose `lib` folder this is.
fn version(lib: &Path) -> Option<String> {
    let root = lib.parent()?;
    if let Ok(text) = fs::read_to_string(root.join("version.py")) {
        let value = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        return Some(value.trim().trim_matches(['\'', '"']).to_owned());
    }
    // The layout of the download without Python.
    Some(fs::read_to_string(root.join("build-version")).ok()?.trim().to_owned())
}

/// Version of NCCL by the package that holds it, which lies beside it, or by the name of its file.
fn nccl_version(library: &Path) -> Option<String> {
    let packages = library.ancestors().nth(4).and_then(|packages| fs::read_dir(packages).ok());
    let named = packages.into_iter().flatten().flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let name = name.strip_prefix("nvidia_nccl_cu")?.strip_suffix(".dist-info")?;
        Some(name.split_once('-')?.1.to_owned())
    });
    let by_file = || {
        let target = fs::canonicalize(library).ok()?;
        let version = target.file_name()?.to_str()?.strip_prefix("libnccl.so.")?;
        version.contains('.').then(|| version.to_owned())
    };
    named.or_else(by_file)
}

impl fmt::Display for Flaw {
    /// Completes "… is not used: ".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "it holds no {}", ROOTS[0]),
            Self::Version(Some(found)) => write!(f, "it is PyTorch {found}; {WANTED} is needed"),
            Self::Version(None) => write!(f, "it does not say its version; PyTorch {WANTED} is needed"),
            Self::Partial(names) => write!(f, "missing: {}", names.join(", ")),
        }
    }
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no PyTorch {WANTED} with CUDA was found")?;
        for (index, Rejected { lib, origin, flaw }) in self.rejected.iter().enumerate() {
            let mark = if index == 0 { ": " } else { "; " };
            write!(f, "{mark}`{}` ({origin}): {flaw}", lib.display())?;
        }
        write!(f, "; install it with `pip install torch==2.11.0`, or set {VARIABLE} to its folder")
    }
}

impl std::error::Error for NotFound {}

#[cfg(test)]
mod tests;
