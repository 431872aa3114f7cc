//! Settings of a worker.

use std::collections::BTreeMap;
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::attempt::Patterns;
use crate::devices::{DeviceError, Inventory, Nccl, Smi, Wanted};

/// The commented defaults; the documentation of every key.
pub const DEFAULT: &str = include_str!("../default.toml");

/// More than any machine has.
const MOST_SLOTS: u32 = 1024;

/// How long the driver may take to list its GPUs. Without persistence mode it starts each of them first.
const DISCOVERY: Duration = Duration::from_secs(60);

/// Settings of a worker. See [`DEFAULT`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// URL of the coordinator.
    pub coordinator: String,
    /// Name for people.
    pub name: String,
    /// Address at which ranks on other workers reach this one.
    pub host: String,
    /// Slots to offer.
    pub slots: Slots,
    /// Slots that share one device.
    pub slots_per_device: u32,
    /// What trials may ask for, and what says which workers are near each other.
    pub labels: BTreeMap<String, String>,
    /// Kind of device of the slots.
    pub device: DeviceKind,
    /// GPUs to use, by number or UUID; all, if none is named.
    pub devices: Vec<String>,
    /// Folder of CUDA's half of libtorch; looked for when it is empty.
    pub cuda_libtorch: PathBuf,
    /// Network interfaces that NCCL takes, with commas between them; it chooses when this is empty.
    pub nccl_interface: String,
    /// How much NCCL logs; as it has it when this is empty.
    pub nccl_debug: String,
    /// The driver's program.
    pub nvidia_smi: PathBuf,
    /// Time between two looks at the GPUs; 0 for none.
    #[serde(with = "humantime_serde")]
    pub gpu_check: Duration,
    /// Memory of a GPU that processes of others may hold, in MiB; 0 for any.
    pub foreign_gpu_memory_mib: u64,
    /// Memory that a rank on one slot may use, in MiB; 0 for no limit.
    pub slot_memory_mib: u64,
    /// Threads of one rank.
    pub threads_per_slot: u32,
    /// Trainers that are kept ready; as many as slots when it is not set.
    pub warm_trainers: Option<u32>,
    /// Lines of a rank's log that say something about the worker.
    pub log_patterns: Vec<LogPattern>,
    /// Folder of the worker.
    pub data_dir: PathBuf,
    /// Folder of the data sets.
    pub datasets_dir: PathBuf,
    /// Program of one rank.
    pub trainer: PathBuf,
    /// Time between SIGTERM and SIGKILL.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// Longest pause between two attempts to reach the coordinator.
    #[serde(with = "humantime_serde")]
    pub reconnect_limit: Duration,
    /// Size of the cache in MiB.
    pub cache_mib: u64,
    /// Disk for metric rows that wait for the coordinator, in MiB; 0 for none.
    pub spool_mib: u64,
    /// What the worker offers, once the settings are validated.
    #[serde(skip)]
    pub inventory: Inventory,
}

/// How many slots a worker offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// As many as fit on the GPUs; one on the processor.
    Auto,
    /// So many.
    Count(u32),
}

impl Slots {
    /// The number, if one was chosen.
    pub fn count(self) -> Option<u32> {
        match self {
            Self::Auto => None,
            Self::Count(count) => Some(count),
        }
    }
}

impl<'de> Deserialize<'de> for Slots {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The environment and the command line have only text, a file may have a number.
        let text = String::deserialize(deserializer)?;
        match (text.as_str(), text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(count)) => Ok(Self::Count(count)),
            (_, Err(_)) => Err(D::Error::custom(format!("`{text}` is neither a number nor \"auto\""))),
        }
    }
}

/// Kind of device of a worker's slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// GPUs where there are some that can be used, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// GPUs, or nothing.
    Cuda,
}

/// A line of a rank's log that says something about the worker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogPattern {
    /// Name for people.
    pub name: String,
    /// A regular expression, found anywhere in the line.
    pub regex: String,
    /// Whether the worker should be given nothing more.
    #[serde(default)]
    pub quarantine: bool,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// No slot, or more than any machine has.
    #[error("`slots` is {0}; a worker offers between 1 and {MOST_SLOTS}")]
    Slots(u32),
    /// No slot a device, or slots that do not fill whole devices.
    #[error("`slots-per-device` is {per_device}, which does not divide `slots` ({slots})")]
    SlotsPerDevice {
        /// Slots a device.
        per_device: u32,
        /// Slots in all.
        slots: u32,
    },
    /// More than there can be use for.
    #[error("`warm-trainers` is {warm}; at most two for each of the {slots} slots are of use")]
    WarmTrainers {
        /// Trainers.
        warm: u32,
        /// Slots.
        slots: u32,
    },
    /// An attempt on one slot could keep less than it is worth.
    #[error("`spool-mib` is {spool_mib}; it is 0, or at least 1 for each of the {slots} slots")]
    Spool {
        /// Its size.
        spool_mib: u64,
        /// Slots.
        slots: u32,
    },
    /// The GPUs are not there, or not as the configuration says.
    #[error("{}", proto::status::chain(.0))]
    Devices(Box<DeviceError>),
    /// A pattern is not a regular expression.
    #[error("`log-patterns`: {0}")]
    LogPatterns(#[from] regex::Error),
    /// Not a URL of a host and a port.
    #[error("`coordinator` is `{0}`; expected a URL like http://127.0.0.1:7070")]
    Coordinator(String),
    /// The trainer is not there.
    #[error("no trainer at `{}`; build it with `cargo build -p trainer`, or set `trainer` to its path", .0.display())]
    Trainer(PathBuf),
    /// The program of this process cannot be found, and so not the trainer beside it.
    #[error("cannot tell where this program lies; set `trainer` to the path of credence-trainer")]
    OwnPath(#[source] std::io::Error),
    /// A folder's path cannot be made absolute.
    #[error("`{}` cannot be made an absolute path", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Config {
    /// Checks what one key cannot tell alone, and fills in what was left empty.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] names the key and the way out.
    pub fn validated(mut self) -> Result<Self, InvalidConfig> {
        // Without a number there are as many as fill one device, or all of them.
        let slots = self.slots.count().unwrap_or(self.slots_per_device);
        if self.slots_per_device == 0 || !slots.is_multiple_of(self.slots_per_device) {
            let per_device = self.slots_per_device;
            return Err(InvalidConfig::SlotsPerDevice { per_device, slots });
        }
        if !(1..=MOST_SLOTS).contains(&slots) {
            return Err(InvalidConfig::Slots(slots));
        }
        self.inventory = self.find_devices().map_err(|error| InvalidConfig::Devices(Box::new(error)))?;
        let slots = self.inventory.slots();
        if slots > MOST_SLOTS {
            return Err(InvalidConfig::Slots(slots));
        }
        if let Some(warm) = self.warm_trainers.filter(|&warm| warm > slots * 2) {
            return Err(InvalidConfig::WarmTrainers { warm, slots });
        }
        if self.spool_mib > 0 && self.spool_mib < u64::from(slots) {
            return Err(InvalidConfig::Spool { spool_mib: self.spool_mib, slots });
        }
        Patterns::new(&self.log_patterns)?;
        let Some(authority) = authority(&self.coordinator) else {
            return Err(InvalidConfig::Coordinator(self.coordinator));
        };
        if self.name.is_empty() {
            self.name = host_name();
        }
        if self.host.is_empty() {
            self.host = own_address(authority).unwrap_or_else(|| "127.0.0.1".to_owned());
        }
        if self.threads_per_slot == 0 {
            let cores =
                std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
            self.threads_per_slot = (cores / slots).max(1);
        }
        if self.trainer.as_os_str().is_empty() {
            self.trainer = find_trainer()?;
        }
        if !self.trainer.is_file() {
            return Err(InvalidConfig::Trainer(self.trainer));
        }
        // Trainers run in folders of their own, so every path they are given is absolute.
        for path in [&mut self.trainer, &mut self.data_dir, &mut self.datasets_dir] {
            *path = std::path::absolute(&*path)
                .map_err(|source| InvalidConfig::Path { path: path.clone(), source })?;
        }
        Ok(self)
    }

    /// What the worker offers, of what there is. A label that the configuration sets holds. Blocks for as long as the driver may take.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], when the configuration asks for what is not there.
    pub fn find_devices(&mut self) -> Result<Inventory, DeviceError> {
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let host = host_name();
        let wanted = Wanted {
            kind: self.device,
            slots: self.slots,
            per_device: self.slots_per_device,
            names: &self.devices,
            visible: visible.as_deref(),
            cuda: (!self.cuda_libtorch.as_os_str().is_empty()).then_some(&self.cuda_libtorch),
            nccl: Nccl { interface: &self.nccl_interface, debug: &self.nccl_debug },
            host: &host,
        };
        let inventory = Inventory::find(&Smi::new(&self.nvidia_smi, DISCOVERY), wanted)?;
        for (label, value) in inventory.labels() {
            self.labels.entry(label.clone()).or_insert_with(|| value.clone());
        }
        Ok(inventory)
    }
}

/// `host:port` of an http or https URL.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"))?;
    let authority = rest.split('/').next()?;
    let (host, port) = authority.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then_some(authority)
}

/// The address from which packets to `target` would leave. Nothing is sent.
fn own_address(target: &str) -> Option<String> {
    let target = target.to_socket_addrs().ok()?.next()?;
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "worker".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The trainer beside this program, else on the `PATH`.
///
/// # Errors
///
/// When it is in neither place.
pub fn find_trainer() -> Result<PathBuf, InvalidConfig> {
    let own = std::env::current_exe().map_err(InvalidConfig::OwnPath)?;
    let beside = own.parent().unwrap_or(Path::new(".")).join("credence-trainer");
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path =
        std::env::split_paths(&path).map(|folder| folder.join("credence-trainer")).find(|p| p.is_file());
    on_path.ok_or(InvalidConfig::Trainer(beside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_without_a_port_is_refused() {
        for url in ["", "http://", "http://host", "host:7070", "ftp://host:1", "http://:7070", "http://h:x"] {
            assert_eq!(authority(url), None, "{url}");
        }
        assert_eq!(authority("https://host:7070/"), Some("host:7070"));
    }

    /// A configuration of a file's text and the command line.
    fn load(file: &str, overrides: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("worker.toml");
        std::fs::write(&path, file).unwrap();
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let env_prefix = "CREDENCE_TEST_OF_NO_VARIABLE";
        let layers =
            common::config::Layers { default: DEFAULT, file: Some(&path), env_prefix, overrides: &overrides };
        common::config::load(layers).map_err(|error| proto::status::chain(&error))
    }

    #[test]
    fn slots_and_devices_are_numbers_or_words_in_a_file_and_on_the_command_line() {
        let default = load("", &[]).unwrap();
        assert_eq!(
            (default.slots, default.device, default.devices.len()),
            (Slots::Auto, DeviceKind::Auto, 0)
        );
        let file = load("slots = 3\ndevice = \"cuda\"\ndevices = [0, \"GPU-5d5b\"]", &[]).unwrap();
        assert_eq!((file.slots, file.device), (Slots::Count(3), DeviceKind::Cuda));
        assert_eq!(file.devices, ["0", "GPU-5d5b"]);
        let line = load("slots = 3", &[("slots", "auto"), ("device", "cpu")]).unwrap();
        assert_eq!((line.slots, line.device), (Slots::Auto, DeviceKind::Cpu));
        assert_eq!(load("", &[("slots", "8")]).unwrap().slots, Slots::Count(8));
        let error = load("slots = \"many\"", &[]).unwrap_err();
        assert!(error.contains("`many` is neither a number nor \"auto\""), "{error}");
        assert!(load("", &[("device", "tpu")]).unwrap_err().contains("tpu"));
    }

    #[test]
    fn slots_that_no_device_holds_are_refused_by_the_key_that_is_wrong() {
        let refused =
            |file: &str| load(file, &[("device", "cpu")]).unwrap().validated().unwrap_err().to_string();
        assert!(refused("slots = 0").starts_with("`slots` is 0"));
        assert!(refused("slots = 2000").starts_with("`slots` is 2000"));
        assert!(refused("slots = 3\nslots-per-device = 2").starts_with("`slots-per-device` is 2"));
        assert!(refused("slots-per-device = 0").starts_with("`slots-per-device` is 0"));
    }

    #[test]
    fn the_own_address_towards_loopback_is_loopback() {
        assert_eq!(own_address("127.0.0.1:7070").as_deref(), Some("127.0.0.1"));
    }
}
