//! The GPUs of the node: which there are, which slot lies on which, and how they are.
//!
//! What is known of them comes from the driver's own program, `nvidia-smi`, and not from its library: a call into a driver that
//! hangs cannot be taken back, a process can be left to itself, and a GPU that falls off the bus then takes no part of the agent
//! with it. The program's fields are the library's, and a test can take its place.

mod csv;
mod fault;
mod inventory;
mod mask;
mod monitor;
mod nccl;
mod smi;
mod topology;

pub use fault::Fault;
pub use inventory::{DeviceError, Inventory, Seat, Wanted, devices, driver_version};
pub use monitor::{Monitor, Sight, look_once};
pub use nccl::{Nccl, NcclError};
pub use smi::{Smi, SmiError};

/// A GPU, or a MIG instance of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Number of the GPU in the driver's list.
    pub index: u32,
    /// What `CUDA_VISIBLE_DEVICES` calls it, `GPU-…` or `MIG-…`.
    pub uuid: String,
    /// The GPU that it is, or is a part of.
    pub gpu: String,
    /// Product.
    pub name: String,
    /// Memory in MiB; of a MIG instance, what its profile promises.
    pub memory_mib: u64,
    /// Place on the PCI bus.
    pub bus: String,
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GPU {} ({})", self.index, self.uuid)
    }
}

#[cfg(test)]
mod fake;
