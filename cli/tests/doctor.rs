//! `credence doctor` as a process, with a driver and a trainer of the test's own.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its tests do")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A machine: two GPUs, a trainer, and libraries that pass for CUDA's half of libtorch.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../worker/fixtures/driver/nvidia-smi");
        for folder in ["driver", "cuda/lib", "bin", "datasets/cifar-10-batches-bin"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        symlink(driver, machine.path("driver/nvidia-smi")).unwrap();
        let head = "index,uuid,name,memory.total,pci.bus_id,driver_version,mig.mode.current,\
                    ecc.errors.uncorrected.volatile.total,retired_pages.pending\n";
        let row = |i| {
            format!(
                "{i}, GPU-{i}, NVIDIA H100 80GB HBM3, 81559, 00000000:0{i}:00.0, 580.65.06, Disabled, 0, [N/A]\n"
            )
        };
        machine.write("driver/gpu", &(head.to_owned() + &row(0) + &row(1)));
        machine.write("driver/compute-apps", "gpu_uuid,pid,used_memory\n");
        machine.write("driver/remapped-rows", "gpu_uuid,remapped_rows.pending,remapped_rows.failure\n");
        machine.write("driver/topo", "");
        machine.write("cuda/build-version", common::cuda::WANTED);
        for name in ["libtorch_cuda.so", "libtorch_cuda_linalg.so", "libc10_cuda.so"] {
            symlink(std::env::current_exe().unwrap(), machine.path("cuda/lib").join(name)).unwrap();
        }
        // Any program that says something of its version.
        symlink("/bin/ls", machine.path("bin/credence-trainer")).unwrap();
        machine.write("bin/libcredence_nccl.so", "");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn doctor(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_credence"));
        command.env_clear().current_dir(self.0.path());
        command.env("CREDENCE_WORKER_NVIDIA_SMI", self.path("driver/nvidia-smi"));
        command.env("PATH", "/usr/bin:/bin");
        command.env("CREDENCE_WORKER_TRAINER", "bin/credence-trainer");
        command.args(["doctor", "--cuda-libtorch", "cuda"]);
        // A port at which nobody listens.
        command.args(["--coordinator", "http://127.0.0.1:9"]).args(more);
        command.output().unwrap()
    }

    /// The findings by part, and the exit status.
    fn findings(&self, more: &[&str]) -> (Vec<(String, String, String)>, i32) {
        let output = self.doctor(&[more, &["--json"]].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
        let findings = json["findings"].as_array().unwrap().iter();
        let list: Vec<_> = findings.map(|f| (text(f, "part"), text(f, "state"), text(f, "found"))).collect();
        let gaps = list.iter().filter(|(_, state, _)| state == "gap").count();
        assert_eq!(json["gaps"], gaps);
        (list, output.status.code().unwrap())
    }
}

fn state<'a>(findings: &'a [(String, String, String)], part: &str) -> (&'a str, &'a str) {
    let (_, state, found) = findings.iter().find(|(other, ..)| other == part).unwrap();
    (state, found)
}

#[test]
fn a_node_where_all_is_there_is_well_and_its_offer_is_shown() {
    let (findings, status) = Machine::new().findings(&[]);
    assert_eq!(status, 0, "{findings:?}");
    assert_eq!(state(&findings, "slots"), ("ok", "2 slots of kind cuda, 81559 MiB each"));
    assert_eq!(state(&findings, "driver"), ("ok", "580.65.06, which runs CUDA 13.0"));
    assert!(state(&findings, "cuda").1.starts_with("PyTorch 2.11.0+cu130"), "{findings:?}");
    assert_eq!(state(&findings, "coordinator").0, "warning");
    assert!(state(&findings, "data sets").1.starts_with("cifar-10 in"), "{findings:?}");
}

#[test]
fn what_nccl_is_told_is_shown_and_an_interface_that_is_not_there_is_a_gap() {
    let machine = Machine::new();
    machine.write("worker.toml", "nccl-interface = \"lo\"\nnccl-debug = \"INFO\"\n");
    let (findings, status) = machine.findings(&["--config", "worker.toml"]);
    assert_eq!(status, 0, "{findings:?}");
    let (state_of_nccl, found) = state(&findings, "nccl");
    assert_eq!(state_of_nccl, "ok");
    assert!(found.ends_with("libcredence_nccl.so`, NCCL_SOCKET_IFNAME==lo, NCCL_DEBUG=INFO"), "{found}");
    machine.write("worker.toml", "nccl-interface = \"no-such-0\"\n");
    let (findings, status) = machine.findings(&["--config", "worker.toml"]);
    assert_eq!((status, state(&findings, "slots").0), (1, "gap"), "{findings:?}");
    assert!(state(&findings, "slots").1.contains("there is ") && state(&findings, "slots").1.contains("lo"));
}

#[test]
fn each_gap_is_counted_and_the_status_says_so() {
    let machine = Machine::new();
    machine.write("cuda/build-version", "2.10.0+cu128");
    fs::remove_file(machine.path("bin/libcredence_nccl.so")).unwrap();
    machine.write("driver/lost", "GPU-1");
    let output = machine.doctor(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("it is PyTorch 2.10.0+cu128; 2.11.0+cu130 is needed"), "{text}");
    assert!(text.contains("trials of several ranks do not run on GPUs"), "{text}");
    assert!(text.contains("GPU is lost"), "{text}");
    let (findings, status) = machine.findings(&["--device", "cpu"]);
    assert_eq!((status, state(&findings, "slots").1), (0, "1 slot of kind cpu"), "{findings:?}");
}

#[test]
fn without_a_driver_a_gpu_that_is_asked_for_is_a_gap() {
    let machine = Machine::new();
    fs::remove_file(machine.path("driver/nvidia-smi")).unwrap();
    let (findings, status) = machine.findings(&[]);
    assert_eq!((status, state(&findings, "driver").0), (0, "absent"), "{findings:?}");
    let (findings, status) = machine.findings(&["--device", "cuda"]);
    assert_eq!(status, 1);
    assert_eq!([state(&findings, "driver").0, state(&findings, "slots").0], ["gap"; 2], "{findings:?}");
}

#[test]
fn a_trainer_that_does_not_start_and_a_kind_that_does_not_exist_are_named() {
    let machine = Machine::new();
    let (findings, status) = machine.findings(&["--trainer", "bin/libcredence_nccl.so"]);
    assert_eq!((status, state(&findings, "trainer").0), (1, "gap"), "{findings:?}");
    let output = machine.doctor(&["--device", "tpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tpu"));
}
