//! Looks at the GPUs a few times a minute, on a thread of its own: a driver that hangs holds up this thread and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::fault::{Fault, Figures};
use super::smi::{Smi, SmiError};
use super::{Device, csv};
use crate::proc;

/// Times in a row that the driver may say nothing: it is busy for a while when a GPU is reset or another program is looking.
const PATIENCE: u32 = 3;

/// Ancestors of a process that are looked at.
const GENERATIONS: u32 = 16;

/// What was seen of the GPUs at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// All that is wrong.
    pub faults: Vec<Fault>,
    /// Memory that a process holds on all GPUs that it uses, in MiB.
    pub memory: BTreeMap<u32, u64>,
}

/// Memory of a GPU that a process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    gpu: String,
    pid: u32,
    mib: u64,
}

/// Looks until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    /// Its end tells the thread to end, after the look that it may be in.
    _alive: std_mpsc::Sender<()>,
}

impl Monitor {
    /// Starts to look at `devices` every `interval`. Memory of others counts as a fault above `most_foreign_mib`.
    ///
    /// # Errors
    ///
    /// When the system starts no thread.
    pub fn start(
        smi: Smi,
        devices: Vec<Device>,
        interval: Duration,
        most_foreign_mib: u64,
        sights: mpsc::UnboundedSender<Sight>,
    ) -> std::io::Result<Self> {
        let (alive, end) = std_mpsc::channel::<()>();
        let mut watch = Watch { smi, devices, most_foreign_mib, silent: 0, last: Vec::new() };
        std::thread::Builder::new().name("gpu-health".to_owned()).spawn(move || {
            loop {
                if sights.send(watch.look()).is_err() {
                    return;
                }
                match end.recv_timeout(interval) {
                    Err(std_mpsc::RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(std_mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        })?;
        Ok(Self { _alive: alive })
    }
}

/// Looks once.
///
/// # Errors
///
/// What the driver said instead of an answer.
pub fn look_once(smi: Smi, devices: Vec<Device>, most_foreign_mib: u64) -> Result<Vec<Fault>, SmiError> {
    let watch = Watch { smi, devices, most_foreign_mib, silent: 0, last: Vec::new() };
    watch.ask().map(|sight| sight.faults)
}

struct Watch {
    smi: Smi,
    devices: Vec<Device>,
    most_foreign_mib: u64,
    /// Looks in a row at which the driver said nothing.
    silent: u32,
    /// What was wrong with GPUs when it last said something.
    last: Vec<Fault>,
}

impl Watch {
    fn look(&mut self) -> Sight {
        match self.ask() {
            Ok(sight) => {
                self.silent = 0;
                self.last.clone_from(&sight.faults);
                sight
            }
            Err(error) => self.say_nothing(&error),
        }
    }

    fn ask(&self) -> Result<Sight, SmiError> {
        let (figures, lost) = self.figures()?;
        let held = self.held();
        let mut faults = lost;
        for device in self.gpus() {
            faults.extend(figures.get(&device.gpu).map(|figures| figures.faults(device)).unwrap_or_default());
            faults.extend(self.foreign(device, &held));
        }
        let mut memory = BTreeMap::new();
        for Held { pid, mib, .. } in held {
            *memory.entry(pid).or_default() += mib;
        }
        Ok(Sight { faults, memory })
    }

    /// What is known holds until the driver says otherwise.
    fn say_nothing(&mut self, error: &SmiError) -> Sight {
        self.silent += 1;
        let error = proto::status::chain(error);
        tracing::warn!(error, times = self.silent, "nothing is known of the GPUs");
        let mut faults = self.last.clone();
        faults.extend((self.silent >= PATIENCE).then(|| Fault::silent(&error)));
        Sight { faults, memory: BTreeMap::new() }
    }

    /// Each GPU once, whatever it is cut into.
    fn gpus(&self) -> impl Iterator<Item = &Device> {
        let first =
            |index: usize| self.devices[..index].iter().all(|other| other.gpu != self.devices[index].gpu);
        (0..self.devices.len()).filter(move |&index| first(index)).map(|index| &self.devices[index])
    }

    /// What the driver counts of each GPU, and those that it does not reach.
    fn figures(&self) -> Result<(BTreeMap<String, Figures>, Vec<Fault>), SmiError> {
        let fields = [&["uuid"], &Figures::FIELDS[..]].concat();
        let mut lost = Vec::new();
        let rows = match self.smi.query("gpu", &fields) {
            Ok(rows) => rows,
            // One that fell off the bus may hide the others.
            Err(error) if error.says_lost() => self.one_by_one(&fields, &mut lost)?,
            Err(error) => return Err(error),
        };
        let mut figures: BTreeMap<String, Figures> =
            rows.into_iter().map(|row| (row[0].clone(), Figures::read(&row[1..]))).collect();
        for device in self.gpus() {
            let known = figures.contains_key(&device.gpu);
            if !known && !lost.iter().any(|fault: &Fault| fault.gpu.as_ref() == Some(&device.gpu)) {
                lost.push(Fault::lost(device, "the driver does not list it any more"));
            }
        }
        // GPUs without such rows, and older drivers, fail here.
        let fields = [&["gpu_uuid"], &Figures::ROWS[..]].concat();
        match self.smi.query("remapped-rows", &fields) {
            Ok(rows) => {
                for row in rows {
                    if let Some(figures) = figures.get_mut(&row[0]) {
                        figures.read_rows(&row[1..]);
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "remapped rows are not known"),
        }
        Ok((figures, lost))
    }

    fn one_by_one(&self, fields: &[&str], lost: &mut Vec<Fault>) -> Result<Vec<Vec<String>>, SmiError> {
        let mut rows = Vec::new();
        for device in self.gpus() {
            match self.smi.query_one("gpu", fields, &device.gpu) {
                Ok(row) => rows.extend(row),
                Err(SmiError::Failed { message, .. }) => lost.push(Fault::lost(device, &message)),
                Err(error) => return Err(error),
            }
        }
        Ok(rows)
    }

    /// Processes that hold memory, of those whose memory the driver says.
    fn held(&self) -> Vec<Held> {
        let rows =
            self.smi.query("compute-apps", &["gpu_uuid", "pid", "used_memory"]).unwrap_or_else(|error| {
                tracing::debug!(%error, "who holds memory of the GPUs is not known");
                Vec::new()
            });
        let held = |row: &Vec<String>| {
            Some(Held { gpu: row[0].clone(), pid: row[1].parse().ok()?, mib: csv::number(&row[2])? })
        };
        rows.iter().filter_map(held).collect()
    }

    fn foreign(&self, device: &Device, held: &[Held]) -> Option<Fault> {
        let others = held.iter().filter(|held| held.gpu == device.gpu && is_foreign(held.pid) == Some(true));
        let (mut mib, mut holders) = (0, Vec::new());
        for held in others {
            mib += held.mib;
            let name = fs::read_to_string(format!("/proc/{}/comm", held.pid)).unwrap_or_default();
            holders.push(format!("{} ({})", held.pid, name.trim()));
        }
        let counts = self.most_foreign_mib > 0 && mib > self.most_foreign_mib;
        counts.then(|| Fault::held(device, mib, &holders.join(", ")))
    }
}

/// Whether a process is none that this one started. `None` when it cannot be told, because it is gone or the driver numbers
/// processes otherwise than this container does.
fn is_foreign(pid: u32) -> Option<bool> {
    let mut pid = pid;
    for _ in 0..GENERATIONS {
        if pid == std::process::id() {
            return Some(false);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        pid = proc::fields(&stat)?.nth(1)?.parse().ok()?;
        if pid <= 1 {
            return Some(true);
        }
    }
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::super::fake::Driver;
    use super::super::inventory::devices;
    use super::*;

    fn watch(driver: &Driver) -> Watch {
        let smi = driver.smi(Duration::from_secs(20));
        let devices = devices(&smi).unwrap();
        Watch { smi, devices, most_foreign_mib: 1024, silent: 0, last: Vec::new() }
    }

    fn said(sight: &Sight) -> Vec<&str> {
        sight.faults.iter().map(|fault| fault.message.as_str()).collect()
    }

    #[test]
    fn healthy_gpus_give_no_reason_to_worry() {
        assert_eq!(watch(&Driver::new(8)).look(), Sight::default());
    }

    #[test]
    fn each_figure_that_means_harm_is_named_with_index_and_uuid() {
        let driver = Driver::new(4);
        let mut watch = watch(&driver);
        driver.set("gpu", "GPU-0", "ecc.errors.uncorrected.volatile.total", "2");
        driver.set("gpu", "GPU-1", "retired_pages.pending", "Yes");
        driver.set("remapped-rows", "GPU-2", "remapped_rows.pending", "1");
        driver.set("remapped-rows", "GPU-3", "remapped_rows.failure", "Yes");
        let sight = watch.look();
        assert_eq!(
            said(&sight),
            [
                "GPU 0 (GPU-0): 2 uncorrectable memory errors (ECC) since its last reset",
                "GPU 1 (GPU-1): a memory page is to be retired; reset the GPU",
                "GPU 2 (GPU-2): a memory row is to be remapped; reset the GPU",
                "GPU 3 (GPU-3): a memory row cannot be remapped, none is left; replace the GPU",
            ]
        );
        let end: Vec<bool> = sight.faults.iter().map(|fault| fault.ends_ranks).collect();
        assert_eq!(end, [true, false, false, false]);
        driver.set("gpu", "GPU-0", "ecc.errors.uncorrected.volatile.total", "[N/A]");
        assert_eq!(watch.look().faults.len(), 3, "what is mended is said no more");
    }

    #[test]
    fn a_gpu_that_fell_off_the_bus_is_told_from_those_that_did_not() {
        let driver = Driver::new(3);
        let mut watch = watch(&driver);
        driver.set("gpu", "GPU-2", "ecc.errors.uncorrected.volatile.total", "1");
        driver.lose("GPU-1");
        let sight = watch.look();
        assert_eq!(sight.faults.len(), 2, "{sight:?}");
        let lost = "GPU 1 (GPU-1): Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost. Reboot the \
                    system to recover this GPU";
        assert!(sight.faults[0].ends_ranks && sight.faults[0].message == lost, "{sight:?}");
        assert!(
            sight.faults[1].message.starts_with("GPU 2 (GPU-2): 1 uncorrectable memory error (ECC)"),
            "{sight:?}"
        );
    }

    #[test]
    fn a_gpu_that_is_missing_from_the_list_is_lost() {
        let driver = Driver::new(2);
        let mut watch = watch(&driver);
        driver.gpus(&["GPU-0".to_owned()]);
        let sight = watch.look();
        assert_eq!(said(&sight), ["GPU 1 (GPU-1): the driver does not list it any more"]);
        assert!(sight.faults[0].ends_ranks);
    }

    #[test]
    fn a_driver_without_remapped_rows_and_processes_is_no_fault() {
        let driver = Driver::new(1);
        driver.write("remapped-rows", "gpu_uuid\n");
        driver.write("compute-apps", "gpu_uuid\n");
        assert_eq!(watch(&driver).look(), Sight::default());
    }

    #[test]
    fn a_driver_that_says_nothing_is_a_fault_after_a_while_and_what_was_known_holds() {
        let driver = Driver::new(1);
        let mut watch = watch(&driver);
        driver.set("gpu", "GPU-0", "retired_pages.pending", "Yes");
        assert_eq!(watch.look().faults.len(), 1);
        driver.fail(9, "NVIDIA-SMI has failed");
        for expected in [1, 1, 2, 2] {
            assert_eq!(watch.look().faults.len(), expected);
        }
        let sight = watch.look();
        assert!(
            sight.faults[1].message.contains("says nothing of the GPUs") && !sight.faults[1].ends_ranks,
            "{sight:?}"
        );
        driver.mend();
        assert_eq!(watch.look().faults.len(), 1);
        driver.fail(9, "NVIDIA-SMI has failed");
        assert_eq!(watch.look().faults.len(), 1, "counted anew");
    }

    #[test]
    fn memory_that_others_hold_is_a_fault_and_that_of_own_processes_is_measured() {
        let driver = Driver::new(2);
        let mut watch = watch(&driver);
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        driver.process("GPU-0", child.id(), "30000");
        driver.process("GPU-1", child.id(), "[N/A]");
        // Of another container: no process here has that number.
        driver.process("GPU-1", 4_194_400, "50000");
        let sight = watch.look();
        assert_eq!(sight.faults, []);
        assert_eq!(sight.memory[&child.id()], 30_000);
        // This process's own parent is none of those that it started.
        let parent = std::os::unix::process::parent_id();
        driver.process("GPU-1", parent, "1024");
        assert_eq!(watch.look().faults, [], "so little is not worth a word");
        driver.process("GPU-1", parent, "1");
        let sight = watch.look();
        assert_eq!(sight.faults.len(), 1);
        let begin = format!("GPU 1 (GPU-1): 1025 MiB are held by processes of others: {parent} (");
        assert!(sight.faults[0].message.starts_with(&begin) && !sight.faults[0].ends_ranks, "{sight:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
