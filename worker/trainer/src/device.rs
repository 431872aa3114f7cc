//! Where a rank's tensors live, and how exactly that device computes. The only place that names a device.
//!
//! The same program runs on nodes with and without GPUs: CUDA's half of libtorch is looked for and loaded when a launch asks for
//! a GPU, or an agent means a warm process for one, and not otherwise.

use std::sync::atomic::{AtomicBool, Ordering};

use c10d::{CudaError, ErrorKind, Half, Settings, cuda};
use common::cuda::NotFound;
use common::report::{self, Launch};
use common::spec::Precision;
use tch::Device;

use crate::error::chain;

/// GPUs that CUDA shows to this process; an empty list hides all.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Why a rank has no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No installation of PyTorch with CUDA is whole.
    #[error("the rank is to compute on a GPU, and {0}")]
    NotFound(NotFound),
    /// A warm trainer that was started for the CPU.
    #[error(
        "the rank is to compute on a GPU, and its process was started for the CPU: {} was not named to it",
        common::cuda::VARIABLE
    )]
    TooLate,
    /// It cannot be loaded, or finds no GPU.
    #[error("the rank is to compute on a GPU, and cannot")]
    Cuda(#[from] CudaError),
    /// libtorch refuses a setting.
    #[error("libtorch refuses its settings")]
    Settings(#[source] ErrorKind),
}

/// Whether this process has computed without CUDA. libtorch asks once what devices there are, with the first backward pass at the
/// latest, so it would not find a GPU afterwards.
static COMPUTED_WITHOUT: AtomicBool = AtomicBool::new(false);

/// To be called before a process computes whose launch is not known yet: loads CUDA where the agent means the process for a
/// GPU, and names libraries and device. No GPU is touched.
pub fn before_first_launch() {
    let of_gpu = std::env::var_os(VISIBLE).is_none_or(|devices| !devices.is_empty());
    let named = common::cuda::environment(common::cuda::VARIABLE).is_some();
    if of_gpu && named {
        // The launch tries again, and says why it cannot.
        if let Err(error) = load() {
            tracing::warn!(error = chain(&error), "CUDA is not loaded ahead of the first launch");
        }
    }
    COMPUTED_WITHOUT.store(!cuda::is_loaded(), Ordering::Relaxed);
}

fn load() -> Result<(), DeviceError> {
    if cuda::is_loaded() {
        return Ok(());
    }
    if COMPUTED_WITHOUT.load(Ordering::Relaxed) {
        return Err(DeviceError::TooLate);
    }
    let install = common::cuda::find(None, common::cuda::environment).map_err(DeviceError::NotFound)?;
    tracing::info!(folder = %install.lib.display(), version = install.version, "loading CUDA");
    Ok(cuda::load(&install.lib)?)
}

/// Makes the device of a launch ready. A GPU is the only one that the process sees (`CUDA_VISIBLE_DEVICES`), so it is the
/// first one whatever the rank.
///
/// # Errors
///
/// [`DeviceError`] says what is missing, and how to get it.
pub fn of_launch(launch: &Launch) -> Result<Device, DeviceError> {
    match launch.device {
        report::Device::Cpu => Ok(Device::Cpu),
        report::Device::Cuda => {
            load()?;
            if let Some(share) = launch.device_memory_fraction {
                cuda::limit_memory(share).map_err(DeviceError::Settings)?;
            }
            cuda::initialise()?;
            // The peaks are those of the trial to come. What cannot be asked for is not shown either.
            if let Err(error) = cuda::forget_peak(0) {
                tracing::debug!(%error, "cannot reset the peak of the GPU's memory");
            }
            Ok(Device::Cuda(0))
        }
    }
}

/// Sets how libtorch computes in this process: for training in `precision`, or, without one, for predictions, which are in
/// single precision.
///
/// # Errors
///
/// [`DeviceError::Settings`] when libtorch refuses.
pub fn configure(launch: &Launch, device: Device, precision: Option<Precision>) -> Result<(), DeviceError> {
    let deterministic = launch.policy.deterministic;
    let settings = Settings {
        tf32: precision == Some(Precision::Tf32),
        // What is tried first is not the same each time, nor is what wins.
        benchmark: device.is_cuda() && precision.is_some() && !deterministic,
        deterministic,
    };
    settings.apply().map_err(DeviceError::Settings)
}

/// Element type of products and convolutions, where it is not single precision.
pub fn half(precision: Precision) -> Option<Half> {
    match precision {
        Precision::Fp32 | Precision::Tf32 => None,
        Precision::Bf16 => Some(Half::BFloat16),
        Precision::Fp16 => Some(Half::Float16),
    }
}

/// Waits until the device has done what was asked of it, so that a clock read next measures work and not
/// its submission.
pub fn synchronize(device: Device) {
    match device {
        // sync: the whole point; before a clock is read, once a trial or a checkpoint's score.
        Device::Cuda(index) => tch::Cuda::synchronize(index as i64),
        Device::Cpu | Device::Mps | Device::Vulkan => {}
    }
}

/// Most bytes that tensors had on the device at one time of this launch; `None` for a CPU, whose memory the agent watches.
pub fn peak_bytes(device: Device) -> Option<u64> {
    match device {
        Device::Cuda(index) => cuda::memory(index).ok().map(|memory| memory.allocated_peak),
        Device::Cpu | Device::Mps | Device::Vulkan => None,
    }
}
