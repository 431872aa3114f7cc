//! A driver of the tests' own: `worker/fixtures/driver/nvidia-smi`, with tables in a folder of its own.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::smi::Smi;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/driver/nvidia-smi");

/// Two pairs of GPUs that NVLink joins, each pair at a processor of its own.
pub const TWO_PAIRS: &str = include_str!("../../fixtures/driver/topo-two-pairs");

const GPU_FIELDS: &str = "index,uuid,name,memory.total,memory.used,pci.bus_id,driver_version,mig.mode.current,\
                          ecc.errors.uncorrected.volatile.total,retired_pages.pending";

pub struct Driver(tempfile::TempDir);

impl Driver {
    /// One of `gpus` healthy GPUs with 80 GiB each.
    pub fn new(gpus: usize) -> Self {
        let driver = Self(tempfile::tempdir().unwrap());
        // Not a copy: what was just written cannot be started while another test's child still has it open.
        std::os::unix::fs::symlink(PROGRAM, driver.program()).unwrap();
        driver.gpus(&(0..gpus).map(|index| format!("GPU-{index}")).collect::<Vec<_>>());
        driver.write("compute-apps", "gpu_uuid,pid,used_memory\n");
        driver.write("list", "");
        driver.write("topo", "");
        driver
    }

    /// The driver lists these, by UUID.
    pub fn gpus(&self, uuids: &[String]) {
        let row = |(index, uuid): (usize, &String)| {
            format!(
                "{index}, {uuid}, NVIDIA H100 80GB HBM3, 81559, 4, 00000000:{index:02X}:00.0, 580.65.06, Disabled, 0, [N/A]\n"
            )
        };
        let rows: String = uuids.iter().enumerate().map(row).collect();
        self.write("gpu", &format!("{GPU_FIELDS}\n{rows}"));
        let row = |uuid: &String| format!("{uuid}, No, No\n");
        let rows: String = uuids.iter().map(row).collect();
        self.write("remapped-rows", &format!("gpu_uuid,remapped_rows.pending,remapped_rows.failure\n{rows}"));
    }

    /// Changes a field of a GPU.
    pub fn set(&self, table: &str, uuid: &str, field: &str, value: &str) {
        let text = fs::read_to_string(self.path(table)).unwrap();
        let mut lines = text.lines();
        let head = lines.next().unwrap();
        let column = head.split(',').position(|name| name == field).unwrap();
        let mut changed = format!("{head}\n");
        for line in lines {
            let mut fields: Vec<&str> = line.split(", ").collect();
            if fields.contains(&uuid) {
                fields[column] = value;
            }
            changed.push_str(&(fields.join(", ") + "\n"));
        }
        self.write(table, &changed);
    }

    /// A process holds memory of a GPU.
    pub fn process(&self, uuid: &str, pid: u32, mib: &str) {
        let text = fs::read_to_string(self.path("compute-apps")).unwrap();
        self.write("compute-apps", &format!("{text}{uuid}, {pid}, {mib}\n"));
    }

    pub fn lose(&self, uuid: &str) {
        self.write("lost", uuid);
    }

    pub fn hang(&self, seconds: &str) {
        self.write("hang", seconds);
    }

    pub fn fail(&self, status: i32, message: &str) {
        self.write("fail", &format!("{status}\n{message}"));
    }

    /// Neither hangs nor fails, and all GPUs are there.
    pub fn mend(&self) {
        for file in ["hang", "fail", "lost"] {
            drop(fs::remove_file(self.path(file)));
        }
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn program(&self) -> PathBuf {
        self.path("nvidia-smi")
    }

    pub fn smi(&self, limit: Duration) -> Smi {
        Smi::new(self.program(), limit)
    }
}
