//! The start and the end of a process that works with libtorch.

use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    /// POSIX `_exit`.
    fn _exit(status: c_int) -> !;
}

/// Ends the process at once, from any thread, without running destructors.
///
/// `std::process::exit` runs those of libtorch's globals while other threads still compute with them, which
/// ends in an abort or in a wait for ever. What was written to files and pipes without a buffer of the
/// process's own is kept.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` takes any number and touches no memory of the process.
    unsafe { _exit(status) }
}

unsafe extern "C" {
    /// POSIX `setenv`.
    fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int;
}

/// What libraries read from the environment when they start, and would otherwise decide in a way that does not fit here.
/// `true`: whatever the user has set, because the program relies on it.
const ENVIRONMENT: [(&CStr, &CStr, bool); 3] = [
    // A collective of NCCL that fails ends its communicator and leaves the process running, which then says what
    // happened; libtorch's own way is to abort the process.
    (c"TORCH_NCCL_ASYNC_ERROR_HANDLING", c"2", true),
    // It would make the host wait for every collective.
    (c"TORCH_NCCL_BLOCKING_WAIT", c"0", true),
    // Without it cuBLAS's products are not deterministic. It has to be set before the first product, when a trial that
    // asks for determinism may not be known yet, and costs 32 MiB of the GPU's memory.
    (c"CUBLAS_WORKSPACE_CONFIG", c":4096:8", false),
];

/// Sets environment variables that libtorch's libraries read. First thing in `main`: a thread that reads the environment
/// meanwhile could read freed memory.
pub fn prepare_environment() {
    for (name, value, overwrite) in ENVIRONMENT {
        // SAFETY: C strings; the caller has no other thread yet. It fails only for lack of memory or for a name that
        // holds `=`.
        unsafe { setenv(name.as_ptr(), value.as_ptr(), c_int::from(overwrite)) };
    }
}
