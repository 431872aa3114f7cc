//! libtorch's settings: how exactly it computes, and how repeatably.

use std::time::Duration;

use tch::{Device, Tensor};

use crate::error::ErrorKind;
use crate::{ffi, sys};

/// Settings of the whole process. libtorch's own defaults are not taken: they differ between operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Products of floats on tensor cores, which round their inputs to 10 bits of mantissa. On GPUs only.
    pub tf32: bool,
    /// Convolutions are tried in all ways at each new shape, and the fastest one is kept. On GPUs only.
    pub benchmark: bool,
    /// Operations that have a deterministic algorithm use it; one that has none fails.
    pub deterministic: bool,
}

impl Settings {
    /// Makes these the settings of the process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`] when libtorch refuses.
    pub fn apply(self) -> Result<(), ErrorKind> {
        let settings = sys::Settings {
            tf32: u8::from(self.tf32),
            benchmark: u8::from(self.benchmark),
            deterministic: u8::from(self.deterministic),
        };
        // SAFETY: the error pointers are valid for writes. libtorch reads its settings without a lock; callers
        // set them before they compute.
        ffi::call(Duration::ZERO, |err, err_len| unsafe { sys::c10d_settings_set(settings, err, err_len) })
    }

    /// The settings of the process.
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: reads three flags.
        let settings = unsafe { sys::c10d_settings_get() };
        Self {
            tf32: settings.tf32 != 0,
            benchmark: settings.benchmark != 0,
            deterministic: settings.deterministic != 0,
        }
    }
}

/// Element type of mixed precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// bfloat16: range of a float, 7 bits of mantissa.
    BFloat16,
    /// IEEE half precision: 10 bits of mantissa, and a range that gradients leave unless the loss is scaled.
    Float16,
}

/// Until it is dropped, products and convolutions on this thread compute in half precision, or (see [`full`]) no longer do.
///
/// Gradients of what was computed meanwhile are in the precision of the forward pass, whether backward runs within or not.
///
/// [`full`]: Autocast::full
#[must_use = "it ends when it is dropped"]
pub struct Autocast {
    device: sys::DeviceType,
    before: sys::Autocast,
    // Mixed precision is a setting of the thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Autocast {
    /// Mixed precision on `device`.
    pub fn half(device: Device, half: Half) -> Self {
        Self::set(
            device,
            match half {
                Half::BFloat16 => sys::BFLOAT16,
                Half::Float16 => sys::FLOAT16,
            },
        )
    }

    /// No mixed precision on `device`, within a part that needs all digits.
    pub fn full(device: Device) -> Self {
        Self::set(device, sys::FULL)
    }

    fn set(device: Device, precision: sys::Autocast) -> Self {
        let device = if device.is_cuda() { sys::CUDA } else { sys::CPU };
        // SAFETY: sets values of this thread, which `drop` sets back.
        let before = unsafe { sys::c10d_autocast_enter(device, precision) };
        Self { device, before, _not_send: std::marker::PhantomData }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: the one `leave` that belongs to the `enter` of `set`, on the same thread.
        unsafe { sys::c10d_autocast_leave(self.device, self.before) }
    }
}

/// Lays the elements of a tensor of four axes out so that those of a pixel lie together, in place. Its values, shape and
/// gradient stay; tensors of other shapes are left alone. What shares its storage does not follow.
///
/// # Errors
///
/// [`ErrorKind::Other`] when libtorch refuses, as for lack of memory.
pub fn channels_last(tensor: &Tensor) -> Result<(), ErrorKind> {
    let pointer = ffi::pointer_to(tensor);
    // SAFETY: the tensor outlives the call, and the error pointers are valid for writes.
    ffi::call(Duration::ZERO, |err, err_len| unsafe { sys::c10d_channels_last(pointer, err, err_len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because the settings are those of the process.
    #[test]
    fn settings_are_what_was_set_last_and_none_of_libtorchs_own_is_left() {
        let all = [false, true];
        for tf32 in all {
            for (benchmark, deterministic) in [(false, false), (true, false), (false, true), (true, true)] {
                let settings = Settings { tf32, benchmark, deterministic };
                settings.apply().unwrap();
                assert_eq!(Settings::current(), settings);
            }
        }
        Settings::default().apply().unwrap();
        // PyTorch allows TF32 in convolutions.
        assert_eq!(Settings::current(), Settings { tf32: false, benchmark: false, deterministic: false });
    }
}
