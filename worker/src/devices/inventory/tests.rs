use std::time::Duration;

use super::super::fake::{Driver, TWO_PAIRS};
use super::*;

/// A folder that passes for CUDA's half of libtorch: this program is a shared library that needs nothing but the C library.
pub fn cuda() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lib")).unwrap();
    std::fs::write(folder.path().join("build-version"), common::cuda::WANTED).unwrap();
    for name in ["libtorch_cuda.so", "libtorch_cuda_linalg.so", "libc10_cuda.so"] {
        std::os::unix::fs::symlink(std::env::current_exe().unwrap(), folder.path().join("lib").join(name))
            .unwrap();
    }
    folder
}

struct Case {
    driver: Driver,
    cuda: tempfile::TempDir,
    kind: DeviceKind,
    slots: Slots,
    per_device: u32,
    names: Vec<String>,
    visible: Option<&'static str>,
    nccl: Nccl<'static>,
}

impl Case {
    fn new(gpus: usize) -> Self {
        let (driver, cuda) = (Driver::new(gpus), cuda());
        let (kind, slots, per_device) = (DeviceKind::Auto, Slots::Auto, 1);
        Self {
            driver,
            cuda,
            kind,
            slots,
            per_device,
            names: Vec::new(),
            visible: None,
            nccl: Nccl::default(),
        }
    }

    fn find(&self) -> Result<Inventory, String> {
        let wanted = Wanted {
            kind: self.kind,
            slots: self.slots,
            per_device: self.per_device,
            names: &self.names,
            visible: self.visible,
            cuda: Some(self.cuda.path()),
            nccl: self.nccl,
            host: "n1",
        };
        Inventory::find(&self.driver.smi(Duration::from_secs(20)), wanted)
            .map_err(|error| proto::status::chain(&error))
    }

    fn uuids(&self) -> Vec<String> {
        self.find().unwrap().devices().iter().map(|device| device.uuid.clone()).collect()
    }
}

#[test]
fn an_interface_that_is_not_there_is_refused_where_there_are_gpus_and_nowhere_else() {
    let nccl = Nccl { interface: "no-such-0", debug: "" };
    let refusal = Case { nccl, ..Case::new(1) }.find().unwrap_err();
    assert!(
        refusal.starts_with("`nccl-interface` names `no-such-0`, which is no network interface"),
        "{refusal}"
    );
    assert_eq!(Case { nccl, kind: DeviceKind::Cpu, ..Case::new(1) }.find().unwrap().nccl(), []);
}

#[test]
fn every_gpu_is_a_slot_with_its_memory_and_sees_itself_alone() {
    let case = Case::new(3);
    let found = case.find().unwrap();
    assert_eq!((found.kind(), found.slots(), found.places()), ("cuda", 3, 3));
    assert_eq!(found.slot_memory_mib(), Some(81_559));
    let Seat { place, device, fraction, .. } = found.seat(2);
    assert_eq!((place, device.unwrap().to_string().as_str(), fraction), (2, "GPU 2 (GPU-2)", None));
    let lib = case.cuda.path().join("lib").into();
    assert_eq!(found.environment(2), [(mask::VARIABLE, "GPU-2".into()), (cuda::VARIABLE, lib)]);
}

#[test]
fn several_slots_share_a_gpu_and_its_memory() {
    let case = Case { per_device: 4, ..Case::new(2) };
    let found = case.find().unwrap();
    assert_eq!((found.slots(), found.slot_memory_mib()), (8, Some(81_559 / 4)));
    let seats: Vec<_> = (0..8).map(|slot| found.seat(slot)).collect();
    assert_eq!(seats.iter().map(|seat| seat.place).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 1, 1]);
    assert!(seats.iter().all(|seat| seat.fraction == Some(0.25)));
}

#[test]
fn a_number_of_slots_takes_as_many_gpus_and_never_more_than_there_are() {
    let case = Case { slots: Slots::Count(2), ..Case::new(3) };
    assert_eq!(case.uuids(), ["GPU-0", "GPU-1"]);
    let case = Case { slots: Slots::Count(9), per_device: 4, ..case };
    assert_eq!(case.find().unwrap().places(), 3);
    let error = Case { slots: Slots::Count(13), ..case }.find().unwrap_err();
    assert_eq!(error, "`slots` is 13; 3 GPUs with 4 slots each (`slots-per-device`) make 12");
}

#[test]
fn what_a_batch_system_left_and_a_configuration_chose_is_offered() {
    let mut case = Case { visible: Some("2,0"), ..Case::new(3) };
    assert_eq!(case.uuids(), ["GPU-2", "GPU-0"]);
    case.names = vec!["GPU-0".to_owned()];
    assert_eq!(case.uuids(), ["GPU-0"]);
    case.names = vec!["1".to_owned()];
    assert!(case.find().unwrap_err().contains("`devices` names `1`, which is not one device"));
}

#[test]
fn without_a_gpu_slots_are_of_the_processor_unless_a_gpu_is_asked_for() {
    let mut case = Case { visible: Some(""), ..Case::new(2) };
    let found = case.find().unwrap();
    assert_eq!((found.kind(), found.slots(), found.slot_memory_mib()), ("cpu", 1, None));
    assert_eq!(found.environment(0), [(mask::VARIABLE, OsString::new())]);
    case.kind = DeviceKind::Cuda;
    assert!(case.find().unwrap_err().contains("no GPU that this worker may use"));
    case.driver.fail(9, "NVIDIA-SMI has failed");
    assert!(case.find().unwrap_err().contains("NVIDIA-SMI has failed"));
    case.kind = DeviceKind::Cpu;
    case.slots = Slots::Count(7);
    assert_eq!(case.find().unwrap().slots(), 7);
}

#[test]
fn a_gpu_that_is_lost_is_no_reason_to_take_the_processor_instead() {
    let mut case = Case::new(2);
    case.driver.lose("GPU-1");
    assert!(case.find().unwrap_err().contains("GPU is lost"));
    case.driver.mend();
    case.driver.fail(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver");
    assert_eq!(case.find().unwrap().kind(), "cpu", "a machine that has the program and no GPU");
    case.kind = DeviceKind::Cuda;
    assert!(case.find().unwrap_err().contains("couldn't communicate"));
}

#[test]
fn gpus_without_cuda_libraries_are_not_offered() {
    let mut case = Case::new(1);
    std::fs::remove_file(case.cuda.path().join("lib/libc10_cuda.so")).unwrap();
    assert_eq!(case.find().unwrap().kind(), "cpu");
    case.kind = DeviceKind::Cuda;
    let error = case.find().unwrap_err();
    assert!(error.contains("missing: libc10_cuda.so"), "{error}");
}

#[test]
fn gpus_that_are_joined_have_labels() {
    let case = Case { names: vec!["2".to_owned(), "3".to_owned()], ..Case::new(4) };
    case.driver.write("topo", TWO_PAIRS);
    let found = case.find().unwrap();
    assert_eq!(found.labels()["nvlink"], "n1/2");
    assert_eq!(found.labels()["numa"], "n1/1");
}

#[test]
fn of_a_gpu_that_is_cut_into_parts_the_parts_are_slots() {
    let case = Case::new(2);
    case.driver.set("gpu", "GPU-1", "mig.mode.current", "Enabled");
    case.driver.write(
        "list",
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1)\n  MIG 3g.40gb     \
         Device  0: (UUID: MIG-c6d4f1ef)\n  MIG 1g.10gb+me  Device  1: (UUID: MIG-0e9f1a2b)\n",
    );
    let found = case.find().unwrap();
    assert_eq!(case.uuids(), ["GPU-0", "MIG-c6d4f1ef", "MIG-0e9f1a2b"]);
    assert_eq!(found.seat(1).memory_mib(), Some(40 * 1024));
    assert_eq!(found.devices()[2].gpu, "GPU-1");
    assert_eq!(found.environment(2)[0].1, "MIG-0e9f1a2b");
}

#[test]
fn an_answer_that_is_not_understood_is_shown() {
    let case = Case { kind: DeviceKind::Cuda, ..Case::new(1) };
    case.driver.set("gpu", "GPU-0", "memory.total", "[Unknown Error]");
    assert!(case.find().unwrap_err().contains("[Unknown Error]"));
}
