//! NCCL: collectives between GPUs, by libtorch's own `ProcessGroupNCCL`.
//!
//! Its C++ needs CUDA's headers and refers to `libtorch_cuda.so`, so it is a library of its own, `libcredence_nccl.so`
//! (`csrc/cuda/`), that is loaded where it is needed. Decides when such a library is refused; what is sent, and what
//! becomes of a group whose collectives fail, is said in `group`.

use std::ffi::{CStr, c_void};
use std::mem;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::ffi::{self, Handle};
use crate::group::{GlooOptions, as_int};
use crate::{cuda, dynamic, sys};

/// File name of the library.
#[must_use]
pub const fn nccl_library_name() -> &'static str {
    "libcredence_nccl.so"
}

/// What a rank needs for NCCL beside what it needs for Gloo.
///
/// Which network interfaces NCCL uses, and what it logs, it reads from its own environment variables (`NCCL_SOCKET_IFNAME`,
/// `NCCL_DEBUG`, …).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NcclOptions {
    /// The library [`nccl_library_name`].
    pub library: PathBuf,
    /// GPU of this rank, among those that the process sees.
    pub device: usize,
    /// Whether collectives go before other work that waits for the GPU.
    pub high_priority: bool,
    /// Name of the machine that this rank is to NCCL, where it is not to be the real one: NCCL refuses two ranks that share a
    /// GPU of one machine. Traffic between different machines takes the network.
    pub host_id: Option<String>,
}

/// Why NCCL is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NcclError {
    /// libtorch's CUDA half has to be there first.
    #[error("libtorch's CUDA libraries are not loaded, and NCCL is one of them")]
    NoCuda,
    /// The loader refused it.
    #[error("cannot load `{}`: {message}; `cargo xtask setup --cuda` makes it", library.display())]
    Refused {
        /// The library.
        library: PathBuf,
        /// The loader's words.
        message: String,
    },
    /// It was made for another version of this program, or of libtorch.
    #[error(
        "`{}` was made for {found}, and this program is {expected}: make it anew with `cargo xtask setup --cuda`",
        library.display()
    )]
    Version {
        /// The library.
        library: PathBuf,
        /// What it was made for.
        found: String,
        /// What this program is.
        expected: String,
    },
}

/// The functions of a library that fits.
pub struct NcclLibrary {
    version: sys::nccl::Version,
    attach: sys::nccl::Attach,
}

impl NcclLibrary {
    /// Loads the library, once in the life of a process, and checks that it was made for this program.
    pub fn load(path: &Path) -> Result<Self, NcclError> {
        if !cuda::is_loaded() {
            return Err(NcclError::NoCuda);
        }
        let refused = |message| NcclError::Refused { library: path.to_owned(), message };
        let library = dynamic::open(path).map_err(refused)?;
        let symbol = |name: &CStr| library.symbol(name).map_err(refused);
        // SAFETY: the function of this name has had this type in every version of the library.
        let abi = unsafe { function::<sys::nccl::Abi>(symbol(c"credence_nccl_abi")?) };
        // SAFETY: as above.
        let torch = unsafe { function::<sys::nccl::TorchVersion>(symbol(c"credence_nccl_torch_version")?) };
        // SAFETY: returns a number.
        let abi = unsafe { abi() };
        // SAFETY: returns a C string with static storage.
        let torch = unsafe { CStr::from_ptr(torch()) }.to_string_lossy();
        let describe = |abi, torch: &str| format!("ABI {abi} of libtorch {torch}");
        let (found, expected) = (describe(abi, &torch), describe(sys::ABI, cuda::torch_version()));
        if found != expected {
            return Err(NcclError::Version { library: path.to_owned(), found, expected });
        }
        // SAFETY: a library of this ABI has these functions with these types, as its header says.
        let version = unsafe { function::<sys::nccl::Version>(symbol(c"credence_nccl_version")?) };
        // SAFETY: as above.
        let attach = unsafe { function::<sys::nccl::Attach>(symbol(c"credence_nccl_attach")?) };
        Ok(Self { version, attach })
    }

    /// Gives a Gloo group NCCL for CUDA tensors.
    pub fn attach(
        &self,
        group: &Handle<sys::Group>,
        options: &GlooOptions<'_>,
        nccl: &NcclOptions,
    ) -> Result<(), ErrorKind> {
        let prefix = ffi::c_string(options.prefix)?;
        let host_id = nccl.host_id.as_deref().map(ffi::c_string).transpose()?;
        let options_of_c = sys::NcclOptions {
            prefix: prefix.as_ptr(),
            rank: as_int(options.rank.index()),
            world_size: as_int(options.rank.world_size()),
            timeout_ms: ffi::milliseconds(options.timeout)?,
            device: i32::try_from(nccl.device).unwrap_or(i32::MAX),
            high_priority: u8::from(nccl.high_priority),
            host_id: host_id.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
        };
        let store = options.store.handle.as_ptr();
        ffi::call(options.timeout, |err, err_len| {
            // SAFETY: group, store, options and the strings in them outlive the call, and the error pointers are
            // valid for writes. The library was made for the same objects behind the handles.
            unsafe { (self.attach)(group.as_ptr(), store, &raw const options_of_c, err, err_len) }
        })
    }
}

/// Version of the NCCL that is loaded with libtorch, like `(2, 28, 9)`.
///
/// # Errors
///
/// [`ErrorKind::Nccl`] when the library or NCCL cannot be loaded.
pub fn nccl_version(library: &Path) -> Result<(u32, u32, u32), ErrorKind> {
    let library = NcclLibrary::load(library)?;
    let mut version = 0;
    ffi::call(Duration::ZERO, |err, err_len| {
        // SAFETY: the out and error pointers are valid for writes.
        unsafe { (library.version)(&raw mut version, err, err_len) }
    })?;
    let version = version.unsigned_abs();
    Ok((version / 10_000, version / 100 % 100, version % 100))
}

/// The function at `address`.
///
/// # Safety
///
/// `F` is the type of a function pointer, and that of the function.
unsafe fn function<F: Copy>(address: NonNull<c_void>) -> F {
    const { assert!(size_of::<F>() == size_of::<*const ()>()) };
    // SAFETY: the caller's promise; the sizes are equal.
    unsafe { mem::transmute_copy(&address) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_libtorchs_cuda_half_nothing_is_loaded() {
        let error = NcclLibrary::load(Path::new("/no/such/libcredence_nccl.so")).err().unwrap();
        assert!(matches!(error, NcclError::NoCuda));
    }
}
