//! CUDA, found while the program runs: the same executable works on nodes with and without GPUs.
//!
//! Programs are linked with the CPU half of libtorch alone. Its other half, `libtorch_cuda.so`, comes from an
//! installation of PyTorch; when it is loaded, its initialisers register the kernels for CUDA tensors, and from then on
//! `Device::Cuda` works as in a program that was linked with it. Which installation is taken is the caller's decision,
//! and whether a GPU is used too.

use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::{dynamic, ffi, sys};

/// Version of CUDA that libtorch's pinned build is for: its two halves belong together.
const CUDA: &str = "13.0";

/// Loaded in this order. The rest is found by what these two say about themselves.
const LIBRARIES: [&str; 2] = ["libc10_cuda.so", "libtorch_cuda.so"];

/// Why CUDA is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// The folder is not one of libtorch's libraries, or only a part of one.
    #[error(
        "`{}` has no {}: name the folder `torch/lib` of an installation of PyTorch {} for CUDA {CUDA}",
        folder.display(), missing.join(" and no "), torch_version()
    )]
    Missing {
        /// The folder.
        folder: PathBuf,
        /// Files that are not in it.
        missing: Vec<&'static str>,
    },
    /// An installation of another version, whose halves would not fit ours.
    #[error(
        "`{}` is of PyTorch {found}, and this program needs PyTorch {} for CUDA {CUDA}",
        folder.display(), torch_version()
    )]
    Version {
        /// The folder.
        folder: PathBuf,
        /// What it says about itself.
        found: String,
    },
    /// The loader refused a library: itself, or one that it needs.
    #[error("cannot load `{}`: {message}", library.display())]
    Refused {
        /// The library that was asked for.
        library: PathBuf,
        /// The loader's words, which name the file that is missing or wrong.
        message: String,
    },
    /// The library was loaded and is another than its name says.
    #[error("`{}` was loaded, and brought no kernels for CUDA", library.display())]
    NoKernels {
        /// The library.
        library: PathBuf,
    },
    /// There is no GPU, or its driver does not work.
    #[error("no GPU can be used ({message})")]
    NoDevice {
        /// The words of libtorch.
        message: String,
    },
}

/// Version of libtorch that this program was built with, like `2.11.0`.
#[must_use]
pub fn torch_version() -> &'static str {
    // SAFETY: a C string with static storage.
    let version = unsafe { CStr::from_ptr(sys::c10d_torch_version()) };
    version.to_str().unwrap_or_default()
}

/// Whether CUDA tensors can be computed with, given a GPU.
#[must_use]
pub fn is_loaded() -> bool {
    // SAFETY: reads libtorch's table of operators, which locks itself.
    unsafe { sys::c10d_has_cuda_kernels() != 0 }
}

/// Loads libtorch's CUDA half from `folder`, the `lib` of an installation of PyTorch. Needs no GPU. Does nothing when it
/// is there already, in a program that was linked with it too.
///
/// Call it before the first tensor is made: libtorch asks once what there is, and remembers.
///
/// # Errors
///
/// [`CudaError`] names the file and the way out. A library that was loaded stays, so a process in which loading failed
/// half-way should work on the CPU, or end.
pub fn load(folder: &Path) -> Result<(), CudaError> {
    if is_loaded() {
        return Ok(());
    }
    let missing: Vec<_> = LIBRARIES.into_iter().filter(|name| !folder.join(name).is_file()).collect();
    if !missing.is_empty() {
        return Err(CudaError::Missing { folder: folder.to_owned(), missing });
    }
    check_version(folder)?;
    for name in LIBRARIES {
        let library = folder.join(name);
        dynamic::open(&library).map_err(|message| CudaError::Refused { library, message })?;
    }
    if !is_loaded() {
        return Err(CudaError::NoKernels { library: folder.join(LIBRARIES[1]) });
    }
    Ok(())
}

/// Makes this process's context on the first GPU that it sees. Takes a second or so.
///
/// # Errors
///
/// [`CudaError::NoDevice`] with what libtorch says: no driver, an old one, or no GPU.
pub fn initialise() -> Result<(), CudaError> {
    // SAFETY: the error pointers are valid for writes.
    let made = ffi::call(Duration::ZERO, |err, err_len| unsafe { sys::c10d_cuda_init(err, err_len) });
    made.map_err(|kind| {
        let message = kind.to_string();
        CudaError::NoDevice { message: message.lines().next().unwrap_or_default().trim().to_owned() }
    })
}

/// Refuses what says that it is another version. A folder that says nothing is tried.
fn check_version(folder: &Path) -> Result<(), CudaError> {
    let Some(found) = version_of(folder) else { return Ok(()) };
    let (torch, cuda) = found.split_once('+').unwrap_or((found.as_str(), ""));
    let other_cuda = cuda.strip_prefix("cu").is_some_and(|digits| digits != CUDA.replace('.', ""));
    if torch != torch_version() || other_cuda || cuda == "cpu" {
        return Err(CudaError::Version { folder: folder.to_owned(), found });
    }
    Ok(())
}

/// Version of the installation whose `lib` is `folder`: from `version.py` of a Python package, or from `build-version` of
/// a libtorch archive.
fn version_of(folder: &Path) -> Option<String> {
    let package = folder.parent()?;
    if let Ok(text) = fs::read_to_string(package.join("version.py")) {
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        return Some(line.trim_matches(['\'', '"']).to_owned());
    }
    Some(fs::read_to_string(package.join("build-version")).ok()?.trim().to_owned())
}

/// Memory of a GPU, in bytes, as libtorch's allocator of this process has used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Most that tensors had at one time.
    pub allocated_peak: u64,
    /// Most that was taken from the device at one time; what tensors do not need of it is kept for the next ones.
    pub reserved_peak: u64,
    /// What nobody has taken, of this process and others.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// Memory of the GPU `device`. Waits for nothing on it.
///
/// # Errors
///
/// [`ErrorKind::Other`] when there is no such GPU.
pub fn memory(device: usize) -> Result<Memory, ErrorKind> {
    let mut memory = sys::Memory::default();
    let index = i32::try_from(device).unwrap_or(i32::MAX);
    // SAFETY: the out and error pointers are valid for writes.
    ffi::call(Duration::ZERO, |err, err_len| unsafe {
        sys::c10d_cuda_memory(index, &raw mut memory, err, err_len)
    })?;
    let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(Memory {
        allocated_peak: bytes(memory.allocated_peak),
        reserved_peak: bytes(memory.reserved_peak),
        free: bytes(memory.free),
        total: bytes(memory.total),
    })
}

/// Limits what this process may take of each GPU's memory to this share, above 0 and at most 1: more is out of memory. Takes
/// effect with [`initialise`].
///
/// # Errors
///
/// [`ErrorKind::Other`] for what is no share.
pub fn limit_memory(share: f64) -> Result<(), ErrorKind> {
    // SAFETY: the error pointers are valid for writes.
    ffi::call(Duration::ZERO, |err, err_len| unsafe { sys::c10d_cuda_limit_memory(share, err, err_len) })
}

/// Makes the peaks of [`memory`] those from now on: a process may run several trials.
///
/// # Errors
///
/// [`ErrorKind::Other`] when there is no such GPU.
pub fn forget_peak(device: usize) -> Result<(), ErrorKind> {
    let index = i32::try_from(device).unwrap_or(i32::MAX);
    // SAFETY: the error pointers are valid for writes.
    ffi::call(Duration::ZERO, |err, err_len| unsafe { sys::c10d_cuda_forget_peak(index, err, err_len) })
}
