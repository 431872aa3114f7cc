//! Where a rank's tensors live. The only place that names a device.

use tch::Device;

/// Device of this rank.
///
/// The CPU: libtorch is linked without its CUDA half. An agent on a GPU node shows each rank its own GPU
/// alone (`CUDA_VISIBLE_DEVICES`), so the answer there does not depend on the rank either.
pub fn of_rank() -> Device {
    Device::cuda_if_available()
}

/// Waits until the device has done what was asked of it, so that a clock read next measures work and not
/// its submission.
pub fn synchronize(device: Device) {
    match device {
        Device::Cuda(index) => tch::Cuda::synchronize(index as i64),
        Device::Cpu | Device::Mps | Device::Vulkan => {}
    }
}
