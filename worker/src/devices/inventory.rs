//! What the worker offers: its devices, and which slot lies where.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use common::cuda::{self, CudaInstall};
use common::report;

use super::nccl::{Nccl, NcclError};
use super::smi::{Smi, SmiError};
use super::topology::Topology;
use super::{Device, csv, mask};
use crate::config::{DeviceKind, Slots};

/// Why the devices cannot be offered as the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver gives no answer.
    #[error("the driver does not say which GPUs there are")]
    Driver(#[from] SmiError),
    /// There is no GPU.
    #[error("`device` is \"cuda\", and there is no GPU that this worker may use")]
    None,
    /// CUDA's half of libtorch is not there.
    #[error("`device` is \"cuda\": {0}")]
    Cuda(#[from] cuda::NotFound),
    /// NCCL cannot be told what the configuration says.
    #[error(transparent)]
    Nccl(#[from] NcclError),
    /// A name of no device.
    #[error("`{origin}` names `{name}`, which is not one device; there is {}", list(found))]
    NoSuch {
        /// The key or variable.
        origin: &'static str,
        /// The name.
        name: String,
        /// What there is.
        found: Vec<String>,
    },
    /// A name that stands twice.
    #[error("`{origin}` names {device} twice")]
    Twice {
        /// The key or variable.
        origin: &'static str,
        /// The device.
        device: String,
    },
    /// More slots than devices have room for.
    #[error("`slots` is {slots}; {devices} GPUs with {per_device} slots each (`slots-per-device`) make {}", devices * per_device)]
    Slots {
        /// Slots.
        slots: u32,
        /// Devices.
        devices: u32,
        /// Slots of each.
        per_device: u32,
    },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join(", ") }
}

/// What a configuration asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Kind of device.
    pub kind: DeviceKind,
    /// Slots in all.
    pub slots: Slots,
    /// Slots of each device.
    pub per_device: u32,
    /// Devices by name; all, if none is named.
    pub names: &'a [String],
    /// `CUDA_VISIBLE_DEVICES` of this process.
    pub visible: Option<&'a str>,
    /// Folder of CUDA's half of libtorch, if one is named.
    pub cuda: Option<&'a Path>,
    /// What NCCL is told.
    pub nccl: Nccl<'a>,
    /// Name of the node, of which the labels of its GPUs speak.
    pub host: &'a str,
}

/// What the worker offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Inventory {
    /// None: slots are shares of the processor.
    devices: Vec<Device>,
    slots: u32,
    per_device: u32,
    labels: BTreeMap<String, String>,
    cuda: Option<CudaInstall>,
    nccl: Vec<(&'static str, OsString)>,
}

impl Default for Inventory {
    /// One slot of the processor.
    fn default() -> Self {
        Self::processor(1, 1)
    }
}

/// Where a rank runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    /// The slot.
    pub slot: u32,
    /// Number of the device among those of this worker; 0 for the processor.
    pub place: usize,
    /// The GPU, if it is one.
    pub device: Option<Device>,
    /// The slot's share of the GPU's memory, where several slots share one.
    pub fraction: Option<f64>,
}

impl Seat {
    /// Kind of its device, in the words of a launch.
    pub fn kind(&self) -> report::Device {
        match self.device {
            Some(_) => report::Device::Cuda,
            None => report::Device::Cpu,
        }
    }

    /// Memory of the GPU that is the slot's, in MiB.
    pub fn memory_mib(&self) -> Option<u64> {
        let device = self.device.as_ref()?;
        let slots = self.fraction.map_or(1.0, f64::recip).round() as u64;
        Some(device.memory_mib / slots.max(1))
    }
}

impl Inventory {
    /// Slots of the processor.
    pub fn processor(slots: u32, per_device: u32) -> Self {
        Self { devices: Vec::new(), slots, per_device, labels: BTreeMap::new(), cuda: None, nccl: Vec::new() }
    }

    /// Looks at what there is. Blocks for as long as the driver may take. What `auto` does not find it does without; a warning
    /// says so where there are GPUs.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], when the configuration asks for what is not there.
    pub fn find(smi: &Smi, wanted: Wanted<'_>) -> Result<Self, DeviceError> {
        let processor =
            || Self::processor(wanted.slots.count().unwrap_or(wanted.per_device), wanted.per_device);
        match (wanted.kind, Self::gpus(smi, wanted)) {
            (DeviceKind::Cpu, _) => Ok(processor()),
            (DeviceKind::Cuda, found) => found,
            (DeviceKind::Auto, Ok(found)) => Ok(found),
            // There are GPUs, and somebody has to mend one: trials of the processor would hide that.
            (DeviceKind::Auto, Err(DeviceError::Driver(error))) if error.says_lost() => Err(error.into()),
            (DeviceKind::Auto, Err(DeviceError::None | DeviceError::Driver(SmiError::Start { .. }))) => {
                Ok(processor())
            }
            (DeviceKind::Auto, Err(error @ (DeviceError::Driver(_) | DeviceError::Cuda(_)))) => {
                let error = proto::status::chain(&error);
                tracing::warn!(
                    error,
                    "slots are of the processor, though there may be GPUs; see `credence doctor`"
                );
                Ok(processor())
            }
            (DeviceKind::Auto, Err(error)) => Err(error),
        }
    }

    fn gpus(smi: &Smi, wanted: Wanted<'_>) -> Result<Self, DeviceError> {
        if wanted.kind == DeviceKind::Cpu {
            return Err(DeviceError::None);
        }
        let per_device = wanted.per_device;
        let visible = mask::visible(devices(smi)?, wanted.visible)?;
        let mut devices = mask::chosen(visible, wanted.names)?;
        if devices.is_empty() {
            return Err(DeviceError::None);
        }
        let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
        let slots = wanted.slots.count().unwrap_or(count.saturating_mul(per_device));
        if slots > count.saturating_mul(per_device) {
            return Err(DeviceError::Slots { slots, devices: count, per_device });
        }
        devices.truncate(slots.div_ceil(per_device) as usize);
        let nccl = wanted.nccl.variables(cuda::environment)?;
        let cuda = cuda::find(wanted.cuda, cuda::environment)?;
        // Labels are a help; without them everything runs.
        let topology = smi.ask(&["topo", "-m"]).map(|text| Topology::parse(&text)).unwrap_or_else(|error| {
            tracing::warn!(%error, "how the GPUs are joined is not known");
            Topology::default()
        });
        let gpus: Vec<u32> = devices.iter().map(|device| device.index).collect();
        let labels = topology.labels(wanted.host, &gpus);
        Ok(Self { devices, slots, per_device, labels, cuda: Some(cuda), nccl })
    }

    /// `cpu` or `cuda`.
    pub fn kind(&self) -> &'static str {
        if self.devices.is_empty() { "cpu" } else { "cuda" }
    }

    /// The GPUs.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Slots in all.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// What says which workers are near this one.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// What NCCL is told by the configuration: variables of ranks on GPUs.
    pub fn nccl(&self) -> &[(&'static str, OsString)] {
        &self.nccl
    }

    /// Memory of the GPU that each slot has at least, in MiB. `None` for the processor.
    pub fn slot_memory_mib(&self) -> Option<u64> {
        (0..self.slots).filter_map(|slot| self.seat(slot).memory_mib()).min()
    }

    /// Devices that processes are started for, the processor being one.
    pub fn places(&self) -> usize {
        self.devices.len().max(1)
    }

    /// Where the rank on a slot runs.
    pub fn seat(&self, slot: u32) -> Seat {
        if self.devices.is_empty() {
            return Seat { slot, place: 0, device: None, fraction: None };
        }
        let place = (slot / self.per_device) as usize;
        let fraction = (self.per_device > 1).then(|| f64::from(self.per_device).recip());
        Seat { slot, place, device: self.devices.get(place).cloned(), fraction }
    }

    /// What a process for a device finds in its environment. A process sees its own GPU and no other, and one for the processor
    /// sees none: what it does not see it cannot take memory of by mistake.
    pub fn environment(&self, place: usize) -> Vec<(&'static str, OsString)> {
        let Some(device) = self.devices.get(place) else {
            return vec![(mask::VARIABLE, OsString::new())];
        };
        let mut variables = vec![(mask::VARIABLE, OsString::from(&device.uuid))];
        variables.extend(self.cuda.as_ref().map(|cuda| (cuda::VARIABLE, cuda.lib.clone().into())));
        variables.extend(self.nccl.iter().cloned());
        variables
    }
}

/// Every device that the driver lists: GPUs, and of those that are cut into MIG instances the instances.
///
/// # Errors
///
/// [`SmiError`].
pub fn devices(smi: &Smi) -> Result<Vec<Device>, SmiError> {
    let fields = ["index", "uuid", "name", "memory.total", "pci.bus_id", "mig.mode.current"];
    let mut devices = Vec::new();
    let mut instances = None;
    for row in smi.query("gpu", &fields)? {
        let [index, uuid, name, memory, bus, mig] = &row[..] else { continue };
        let (Ok(index), Some(memory_mib)) = (index.parse(), csv::number(memory)) else {
            return Err(smi.unclear(&row.join(", ")));
        };
        let (name, bus, gpu) = (name.clone(), bus.clone(), uuid.clone());
        let whole = Device { index, uuid: uuid.clone(), gpu, name, memory_mib, bus };
        if mig == "Enabled" {
            if instances.is_none() {
                instances = Some(smi.ask(&["-L"])?);
            }
            devices.extend(parts(&whole, instances.as_deref().unwrap_or_default()));
        } else {
            devices.push(whole);
        }
    }
    Ok(devices)
}

/// MIG instances of a GPU in the list of `nvidia-smi -L`, where they stand below it.
fn parts(gpu: &Device, list: &str) -> Vec<Device> {
    let uuid = |line: &str| Some(line.split_once("UUID: ")?.1.trim_end_matches(')').to_owned());
    let below = list.lines().skip_while(|line| uuid(line).as_deref() != Some(&gpu.uuid)).skip(1);
    let instances = below.take_while(|line| line.trim_start().starts_with("MIG"));
    let part = |line: &str| {
        let profile = line.split_whitespace().nth(1)?;
        // Of `3g.20gb`, or `1g.10gb+me`, the memory.
        let memory = profile.split_once('.')?.1.split_once("gb")?.0.parse::<u64>().ok()?;
        let name = format!("{} MIG {profile}", gpu.name);
        Some(Device { uuid: uuid(line)?, name, memory_mib: memory * 1024, ..gpu.clone() })
    };
    instances.filter_map(part).collect()
}

/// Version of the driver, as in `580.65.06`.
///
/// # Errors
///
/// [`SmiError`].
pub fn driver_version(smi: &Smi) -> Result<Option<String>, SmiError> {
    let rows = smi.query("gpu", &["driver_version"])?;
    Ok(rows.into_iter().flatten().next())
}

#[cfg(test)]
mod tests;
