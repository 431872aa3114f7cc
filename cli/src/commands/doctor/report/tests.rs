use std::path::PathBuf;

use common::cuda::{CudaInstall, Flaw, NotFound, Rejected, WANTED};
use worker::devices::Inventory;

use super::super::facts::Trainer;
use super::*;

/// A machine without a GPU on which trials run.
fn laptop() -> Facts {
    Facts {
        wanted: DeviceKind::Auto,
        trainer: Ok(Trainer {
            path: "/opt/credence-trainer".into(),
            version: "credence-trainer 0.1.0 (numerics 4)".to_owned(),
        }),
        driver: Driver::Absent("cannot run `nvidia-smi`: No such file".to_owned()),
        cuda: Err(NotFound { rejected: Vec::new() }),
        nccl: Err("/opt/libcredence_nccl.so".into()),
        offer: Ok(Inventory::processor(1, 1)),
        folder: Folder {
            path: "credence-worker".into(),
            refused: None,
            free_mib: Some(90_000),
            wanted_mib: 5120,
        },
        data: ("datasets".into(), vec!["cifar-10", "svhn"]),
        coordinator: ("http://127.0.0.1:7070".to_owned(), None),
    }
}

/// A node of two GPUs.
fn node() -> Facts {
    let gpus =
        [0, 1].map(|i| format!("GPU {i} (GPU-{i}): NVIDIA H100 80GB HBM3, 81559 MiB, at 00000000:0{i}:00.0"));
    Facts {
        driver: Driver::Answers { version: "580.65.06".to_owned(), gpus: gpus.to_vec(), faults: Vec::new() },
        cuda: Ok(CudaInstall {
            lib: "/env/torch/lib".into(),
            version: WANTED.to_owned(),
            nccl: Some("/env/libnccl.so.2".into()),
            nccl_version: Some("2.28.9".to_owned()),
        }),
        nccl: Ok("/opt/libcredence_nccl.so".into()),
        ..laptop()
    }
}

fn text(facts: &Facts) -> String {
    Report::of(facts).to_string()
}

/// The lines of what is missing.
fn gaps(facts: &Facts) -> Vec<String> {
    let report = Report::of(facts);
    let gaps = report.findings.iter().filter(|finding| finding.state == State::Gap);
    let gaps: Vec<String> = gaps.map(|finding| format!("{}: {}", finding.part, finding.found)).collect();
    assert_eq!(gaps.len(), report.gaps());
    gaps
}

#[test]
fn a_machine_without_a_gpu_is_well() {
    let expected = "\
ok      trainer      credence-trainer 0.1.0 (numerics 4), `/opt/credence-trainer`
-       driver       no NVIDIA driver; trials run on the processor
-       cuda         no PyTorch with CUDA
-       nccl         no library for ranks on GPUs
ok      slots        1 slot of kind cpu
ok      folder       `credence-worker`, 90000 MiB free
ok      data sets    cifar-10, svhn in `datasets`
ok      coordinator  http://127.0.0.1:7070 accepts connections

A worker runs here.";
    assert_eq!(text(&laptop()), expected);
}

#[test]
fn a_node_that_lacks_much_is_told_what_to_do_about_each_thing() {
    let facts = Facts {
        trainer: Err("`/opt/credence-trainer` does not start (exit status: 127): libtorch_cpu.so: not found"
            .to_owned()),
        driver: Driver::Answers {
            version: "570.86.15".to_owned(),
            gpus: vec!["GPU 0 (GPU-a): NVIDIA A100, 40960 MiB, at 00000000:3B:00.0".to_owned()],
            faults: vec![
                "GPU 0 (GPU-a): 2 uncorrectable memory errors (ECC) since its last reset".to_owned(),
            ],
        },
        cuda: Err(NotFound {
            rejected: vec![Rejected {
                lib: "/env/torch/lib".into(),
                origin: "VIRTUAL_ENV".to_owned(),
                flaw: Flaw::Partial(vec!["libnccl.so.2 (needed by libtorch_cuda.so)".to_owned()]),
            }],
        }),
        folder: Folder {
            path: "credence-worker".into(),
            refused: None,
            free_mib: Some(100),
            wanted_mib: 5120,
        },
        data: ("datasets".into(), Vec::new()),
        coordinator: ("http://10.0.0.1:7070".to_owned(), Some("connection refused".to_owned())),
        ..laptop()
    };
    let expected = "\
GAP     trainer      `/opt/credence-trainer` does not start (exit status: 127): libtorch_cpu.so: not found
                     -> build it with `cargo xtask setup` and `cargo build --release -p trainer`; where it was copied to, its libtorch belongs into `../lib` beside it
GAP     driver       570.86.15 is too old for CUDA 13.0, which PyTorch 2.11.0+cu130 is built for
                     -> install NVIDIA's driver, 580 or newer
ok      gpus         GPU 0 (GPU-a): NVIDIA A100, 40960 MiB, at 00000000:3B:00.0
GAP     health       GPU 0 (GPU-a): 2 uncorrectable memory errors (ECC) since its last reset
                     -> reset it (`nvidia-smi --gpu-reset`), end who holds it, or leave it out with `devices`; a worker that offers it is in quarantine
GAP     cuda         no PyTorch 2.11.0+cu130 with CUDA
                     `/env/torch/lib` (VIRTUAL_ENV): missing: libnccl.so.2 (needed by libtorch_cuda.so)
                     -> `pip install torch==2.11.0` into a Python environment, and activate it or name it in `cuda-libtorch` or CREDENCE_CUDA_LIBTORCH
warning nccl         no `/opt/libcredence_nccl.so`: trials of several ranks do not run on GPUs
                     -> compile it with `cargo xtask setup --cuda`, which needs no GPU, and copy it there; or name it in CREDENCE_NCCL
ok      slots        1 slot of kind cpu
warning folder       `credence-worker` has 100 MiB free; `cache-mib` and `spool-mib` allow 5120
                     -> make space, or lower them
warning data sets    none but the bundled digits in `datasets`
                     -> `credence data fetch NAME --to datasets`; `credence data list` names them
warning coordinator  http://10.0.0.1:7070: connection refused
                     -> start it with `credence coordinator`, or name it with --coordinator

4 gaps: a worker does not run here as its configuration asks.";
    assert_eq!(text(&facts), expected);
}

#[test]
fn a_node_of_gpus_is_well_when_nothing_is_missing() {
    assert_eq!(gaps(&node()), [""; 0]);
    let text = text(&node());
    assert!(text.contains("580.65.06, which runs CUDA 13.0") && text.contains("with NCCL 2.28.9"), "{text}");
}

#[test]
fn what_is_missing_for_gpus_is_a_gap_only_where_gpus_are_wanted() {
    for (wanted, expected) in [(DeviceKind::Cpu, 0), (DeviceKind::Auto, 0), (DeviceKind::Cuda, 2)] {
        assert_eq!(gaps(&Facts { wanted, ..laptop() }).len(), expected, "{wanted:?}");
    }
    let bare = |wanted| Facts { wanted, cuda: laptop().cuda, nccl: laptop().nccl, ..node() };
    for (wanted, expected) in [(DeviceKind::Cpu, 0), (DeviceKind::Auto, 2), (DeviceKind::Cuda, 2)] {
        assert_eq!(gaps(&bare(wanted)).len(), expected, "{wanted:?}");
    }
    let silent = |wanted| Facts { wanted, driver: Driver::Silent("the driver hangs".to_owned()), ..node() };
    for (wanted, expected) in [(DeviceKind::Cpu, 0), (DeviceKind::Auto, 1), (DeviceKind::Cuda, 1)] {
        assert_eq!(gaps(&silent(wanted)).len(), expected, "{wanted:?}");
    }
}

#[test]
fn an_offer_that_is_refused_and_a_folder_that_cannot_be_written_are_gaps() {
    let folder = Folder { refused: Some("`/var`: permission denied".to_owned()), ..node().folder };
    let facts = Facts { offer: Err("`slots` is 9; 2 GPUs".to_owned()), folder, ..node() };
    assert_eq!(
        gaps(&facts),
        [
            "slots: `slots` is 9; 2 GPUs",
            "folder: `credence-worker` cannot be written: `/var`: permission denied"
        ]
    );
}

#[test]
fn the_json_has_each_finding_with_its_state_and_the_number_of_gaps() {
    let facts = Facts { trainer: Err("it is not there".to_owned()), ..laptop() };
    let json = serde_json::to_value(Report::of(&facts)).unwrap();
    assert_eq!(json["gaps"], 1);
    assert_eq!(json["findings"][0]["state"], "gap");
    assert_eq!(json["findings"][1]["state"], "absent");
    assert!(json["findings"][0]["remedy"].is_string() && json["findings"][1].get("remedy").is_none());
    assert_eq!(PathBuf::from("/opt/libcredence_nccl.so"), facts.nccl.unwrap_err());
}
