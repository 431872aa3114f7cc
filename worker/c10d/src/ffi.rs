//! The one way into the shim: status and message become an [`ErrorKind`], handles free themselves.
//!
//! What the calls mean is decided in the modules that make them.

use std::ffi::{CString, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use tch::Tensor;

use crate::error::{ArgumentFault, ErrorKind};
use crate::sys;

/// Room for a message of libtorch; longer ones are cut.
const MESSAGE_BYTES: usize = 4096;

/// Calls the shim with an error buffer, and names the kind of a failure.
///
/// `timeout` is only told in the error; the deadline itself was given to the store or group.
pub fn call(
    timeout: Duration,
    function: impl FnOnce(*mut c_char, usize) -> sys::Status,
) -> Result<(), ErrorKind> {
    let mut buffer = vec![0_u8; MESSAGE_BYTES];
    let status = function(buffer.as_mut_ptr().cast(), buffer.len());
    if status == sys::OK {
        return Ok(());
    }
    let length = buffer.iter().position(|&byte| byte == 0).unwrap_or(buffer.len());
    let message = String::from_utf8_lossy(&buffer[..length]).trim().to_owned();
    Err(match status {
        sys::TIMEOUT => ErrorKind::Timeout { after: timeout, message },
        sys::PEER_LOST => ErrorKind::PeerLost { message },
        _ => ErrorKind::Other { message },
    })
}

/// Function of the shim that ends the life of a handle.
pub type Free<T> = unsafe extern "C" fn(*mut T, *mut c_char, usize) -> sys::Status;

/// An owned handle of the shim.
pub struct Handle<T> {
    pointer: NonNull<T>,
    free: Free<T>,
}

// SAFETY: the handles hold intrusive pointers with atomic counts to c10d objects, which PyTorch itself
// creates, uses and drops on different threads. They are not `Sync`: calls on one group have to be issued
// in one order, which `&self` from two threads could not keep.
unsafe impl<T> Send for Handle<T> {}

impl<T> Handle<T> {
    /// Calls a constructor of the shim.
    pub fn new(
        timeout: Duration,
        free: Free<T>,
        function: impl FnOnce(*mut *mut T, *mut c_char, usize) -> sys::Status,
    ) -> Result<Self, ErrorKind> {
        let mut pointer = std::ptr::null_mut();
        call(timeout, |err, err_len| function(&raw mut pointer, err, err_len))?;
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Self { pointer, free }),
            None => Err(ErrorKind::Other { message: "the shim returned no handle".to_owned() }),
        }
    }

    pub fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        // A failure leaks what was left; there is nobody to tell, and a drop does not panic.
        let _ = call(Duration::ZERO, |err, err_len| {
            // SAFETY: the pointer came from the constructor that `free` belongs to, and is dropped once.
            unsafe { (self.free)(self.pointer.as_ptr(), err, err_len) }
        });
    }
}

/// The pointer that libtorch knows a tensor by; valid as long as the tensor is.
pub fn pointer_to(tensor: &Tensor) -> sys::Tensor {
    tensor.as_ptr().cast_mut().cast()
}

/// Longest timeout that is passed on: C++ adds it to a clock in nanoseconds, which must not overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whole milliseconds for the shim.
pub fn milliseconds(timeout: Duration) -> Result<i64, ArgumentFault> {
    match i64::try_from(timeout.min(LONGEST).as_millis()) {
        Ok(0) | Err(_) => Err(ArgumentFault::NoTimeout),
        Ok(milliseconds) => Ok(milliseconds),
    }
}

pub fn c_string(text: &str) -> Result<CString, ArgumentFault> {
    CString::new(text).map_err(|_| ArgumentFault::ZeroByte { text: text.escape_debug().to_string() })
}
