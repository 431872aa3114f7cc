//! The end of a process that has threads inside libtorch.

use std::ffi::c_int;

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
