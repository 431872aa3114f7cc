//! The agent on a node whose driver is the test's own: which rank sees which GPU, and what a GPU that is not well leads to.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::session::{AttemptEnd, FromWorker, ToWorker};
use common::{AttemptId, FailureCause};
use worker::{Config, DeviceKind, Slots};

use crate::fake::{Fake, Node, is_alive, until};
use crate::launch::launch;
use crate::{A, B, FOR_EVER, done, progress, say};

const C: AttemptId = AttemptId(3);

/// A driver that lists GPUs, and libraries that pass for CUDA's half of libtorch.
struct Gpus(tempfile::TempDir);

impl Gpus {
    fn new(count: usize) -> Self {
        let gpus = Self(tempfile::tempdir().unwrap());
        symlink(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/driver/nvidia-smi"),
            gpus.path("nvidia-smi"),
        )
        .unwrap();
        gpus.list(count);
        gpus.write("compute-apps", "gpu_uuid,pid,used_memory\n");
        gpus.write("topo", include_str!("../../fixtures/driver/topo-two-pairs"));
        gpus.write("build-version", common::cuda::WANTED);
        std::fs::create_dir(gpus.path("lib")).unwrap();
        for name in ["libtorch_cuda.so", "libtorch_cuda_linalg.so", "libc10_cuda.so"] {
            // This program is a library that needs nothing but the C library.
            symlink(std::env::current_exe().unwrap(), gpus.path("lib").join(name)).unwrap();
        }
        gpus
    }

    fn list(&self, count: usize) {
        let head = "index,uuid,name,memory.total,memory.used,pci.bus_id,driver_version,mig.mode.current,\
                    ecc.errors.uncorrected.volatile.total,retired_pages.pending\n";
        let row = |i| {
            format!(
                "{i}, GPU-{i}, NVIDIA H100 80GB HBM3, 81559, 4, 00000000:0{i}:00.0, 580.65.06, Disabled, 0, [N/A]\n"
            )
        };
        self.write("gpu", &(head.to_owned() + &(0..count).map(row).collect::<String>()));
        let row = |i| format!("GPU-{i}, No, No\n");
        let rows = (0..count).map(row).collect::<String>();
        self.write("remapped-rows", &format!("gpu_uuid,remapped_rows.pending,remapped_rows.failure\n{rows}"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// In one step, because the agent may look at any moment.
    fn write(&self, name: &str, text: &str) {
        let part = self.path(&format!("{name}.part"));
        std::fs::write(&part, text).unwrap();
        std::fs::rename(part, self.path(name)).unwrap();
    }

    fn offer(&self, config: &mut Config, per_device: u32) {
        config.device = DeviceKind::Cuda;
        config.slots = Slots::Auto;
        config.slots_per_device = per_device;
        config.nvidia_smi = self.path("nvidia-smi");
        config.cuda_libtorch = self.path("lib");
        // A look may take half of it, on a machine with much else to do.
        config.gpu_check = Duration::from_secs(2);
    }

    async fn node(&self, fake: &Fake, script: &str, per_device: u32) -> Node {
        Node::start_with(fake, 1, script, |config| self.offer(config, per_device)).await
    }
}

/// Writes what each rank sees of GPUs, and the launch file's words on it, into a file of its attempt and rank.
fn seen(rest: &str) -> String {
    format!(
        "at=\"$HOME_OF_TEST/$(basename \"$(dirname \"$PWD\")\")-$(basename \"$PWD\")\"\n\
         {{ echo $CUDA_VISIBLE_DEVICES; echo $CREDENCE_CUDA_LIBTORCH; grep -o '\"device.*' \"$1\"; \
         grep -o '\"shares.*' \"$1\"; echo ${{WARM:-cold}}; echo $$; }} > \"$at.part\"\nmv \"$at.part\" \"$at\"\n{rest}"
    )
}

fn visible(node: &Node, attempt: AttemptId, rank: u32) -> String {
    node.read(&format!("{attempt}-rank-{rank}")).lines().next().unwrap_or_default().to_owned()
}

async fn end_of(fake: &mut Fake, wanted: AttemptId) -> AttemptEnd {
    let ended = |message: &FromWorker| matches!(message, FromWorker::AttemptEnded { attempt, .. } if *attempt == wanted);
    match fake.until(ended).await {
        FromWorker::AttemptEnded { end, .. } => end,
        other => panic!("{other:?}"),
    }
}

/// Launches an attempt and waits until all its ranks wrote what they see.
async fn start(fake: &mut Fake, node: &Node, attempt: AttemptId, ranks: u32) {
    fake.tell(ToWorker::Launch(Box::new(launch(attempt, 0, ranks, ranks)))).await;
    for rank in 0..ranks {
        until("the rank runs", || node.has(&format!("{attempt}-rank-{rank}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rank_of_a_gang_sees_a_gpu_of_its_own_and_the_coordinator_hears_what_there_is() {
    let (mut fake, gpus) = (Fake::start().await, Gpus::new(2));
    let node = gpus.node(&fake, &seen(FOR_EVER), 1).await;
    let hello = fake.hello().await;
    assert_eq!((hello.slots, hello.device.as_str(), hello.slot_memory_mib), (2, "cuda", Some(81_559)));
    let labels: Vec<&str> = hello.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["numa", "nvlink"]);
    assert!(hello.labels["nvlink"].ends_with("/0"), "{:?}", hello.labels);
    assert_eq!(hello.faults, [""; 0]);
    start(&mut fake, &node, A, 2).await;
    assert_eq!([0, 1].map(|rank| visible(&node, A, rank)), ["GPU-0", "GPU-1"]);
    let text = node.read("a1-rank-0");
    assert!(text.contains(gpus.path("lib").to_str().unwrap()), "{text}");
    assert!(text.contains("\"device\": \"cuda:0\"") && text.contains("\"shares_device\": false"), "{text}");
    assert!(!text.contains("fraction"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_share_a_gpu_are_filled_evenly_and_each_is_told_its_share() {
    let (mut fake, gpus) = (Fake::start().await, Gpus::new(2));
    let node = gpus.node(&fake, &seen(FOR_EVER), 2).await;
    let hello = fake.hello().await;
    assert_eq!((hello.slots, hello.slot_memory_mib), (4, Some(81_559 / 2)));
    for attempt in [A, B] {
        start(&mut fake, &node, attempt, 1).await;
    }
    assert_eq!([A, B].map(|attempt| visible(&node, attempt, 0)), ["GPU-0", "GPU-1"]);
    start(&mut fake, &node, C, 2).await;
    assert_eq!([0, 1].map(|rank| visible(&node, C, rank)), ["GPU-0", "GPU-1"]);
    let text = node.read("a3-rank-1");
    assert!(
        text.contains("\"device_memory_fraction\": 0.5") && text.contains("\"shares_device\": false"),
        "{text}"
    );
    for attempt in [A, B, C] {
        fake.tell(ToWorker::Release { attempt }).await;
    }
    let all = AttemptId(4);
    start(&mut fake, &node, all, 4).await;
    assert_eq!([0, 1, 2, 3].map(|rank| visible(&node, all, rank)), ["GPU-0", "GPU-0", "GPU-1", "GPU-1"]);
    assert!(node.read("a4-rank-3").contains("\"shares_device\": true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_trainer_serves_the_gpu_that_it_was_started_for_once_and_is_gone_before_its_slot_is_free() {
    let (mut fake, gpus) = (Fake::start().await, Gpus::new(2));
    let node = Node::start_with(&fake, 1, &seen(&say(&done())), |config| {
        gpus.offer(config, 1);
        config.warm_trainers = Some(2);
    })
    .await;
    fake.hello().await;
    node.wait_for_warm(2).await;
    let waiting = node.warm();
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 2, 2)))).await;
    end_of(&mut fake, A).await.unwrap();
    for rank in [0, 1] {
        assert_eq!(visible(&node, A, rank), format!("GPU-{rank}"));
        let warm: u32 = node.read(&format!("a1-rank-{rank}")).lines().rev().nth(1).unwrap().parse().unwrap();
        assert!(waiting.contains(&warm), "{warm} of {waiting:?}");
        assert!(!is_alive(warm), "what served may still hold memory of the GPU");
    }
}

/// Writes what a rank is told for NCCL.
const TOLD: &str = "echo \"$NCCL_SOCKET_IFNAME $NCCL_DEBUG\" > \"$HOME_OF_TEST/told.$$\"\nmv \"$HOME_OF_TEST/told.$$\" \
                    \"$HOME_OF_TEST/told-${WARM:+warm-}$(basename \"$PWD\")\"";

#[tokio::test(flavor = "multi_thread")]
async fn ranks_on_gpus_cold_or_warm_are_told_what_nccl_takes_and_logs() {
    for (warm, name) in [(0, "told-rank-1"), (2, "told-warm-rank-1")] {
        let (mut fake, gpus) = (Fake::start().await, Gpus::new(2));
        let node = Node::start_with(&fake, 1, &format!("{TOLD}\n{FOR_EVER}"), |config| {
            gpus.offer(config, 1);
            (config.nccl_interface, config.nccl_debug) = ("lo".to_owned(), "INFO".to_owned());
            config.warm_trainers = Some(warm);
        })
        .await;
        fake.hello().await;
        node.wait_for_warm(warm as usize).await;
        fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 2, 2)))).await;
        until("the rank runs", || node.has(name)).await;
        assert_eq!(node.read(name), "=lo INFO");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_on_a_processor_is_told_nothing_of_nccl() {
    let mut fake = Fake::start().await;
    let node = Node::start_with(&fake, 1, &format!("{TOLD}\n{FOR_EVER}"), |config| {
        (config.nccl_interface, config.nccl_debug) = ("lo".to_owned(), "INFO".to_owned());
    })
    .await;
    fake.hello().await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    until("the rank runs", || node.has("told-rank-0")).await;
    assert_eq!(node.read("told-rank-0"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rank_on_a_processor_sees_no_gpu() {
    let mut fake = Fake::start().await;
    let script = format!(
        "[ \"${{CUDA_VISIBLE_DEVICES-unset}}\" = \"\" ] && touch \"$HOME_OF_TEST/none\"\n{}",
        seen(FOR_EVER)
    );
    let node = Node::start(&fake, 1, &script).await;
    fake.hello().await;
    start(&mut fake, &node, A, 1).await;
    let text = node.read("a1-rank-0");
    assert!(text.contains("\"device\": \"cpu\"") && !text.contains("GPU-"), "{text}");
    assert!(node.has("none"), "the variable is set, and empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_that_falls_off_the_bus_ends_its_ranks_after_the_coordinator_heard_and_no_others() {
    let (mut fake, gpus) = (Fake::start().await, Gpus::new(2));
    let script = seen(&format!("{}\n{FOR_EVER}", say(&progress(1))));
    let node = gpus.node(&fake, &script, 1).await;
    fake.hello().await;
    for attempt in [A, B] {
        start(&mut fake, &node, attempt, 1).await;
    }
    gpus.write("lost", "GPU-1");
    let mut heard = false;
    let end = loop {
        match fake.next().await {
            FromWorker::Heartbeat { faults, .. } => {
                heard |= faults.iter().any(|fault| fault.contains("GPU 1 (GPU-1)"))
            }
            FromWorker::AttemptEnded { attempt: B, end } => break end,
            FromWorker::AttemptEnded { attempt, end } => panic!("{attempt} ended: {end:?}"),
            _ => {}
        }
    };
    assert!(heard, "the coordinator must know before it places the trial again");
    let Err(FailureCause::Unhealthy { message }) = end else { panic!("{end:?}") };
    assert!(message.starts_with("rank 0: GPU 1 (GPU-1): ") && message.contains("GPU is lost"), "{message}");
    fake.hang_up();
    let hello = fake.hello().await;
    assert_eq!(hello.faults.len(), 1, "{:?}", hello.faults);
    // It is back, as after a reset.
    std::fs::remove_file(gpus.path("lost")).unwrap();
    fake.until(|message| matches!(message, FromWorker::Heartbeat { faults, .. } if faults.is_empty())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_hangs_holds_up_neither_launches_nor_the_end() {
    let (mut fake, gpus) = (Fake::start().await, Gpus::new(1));
    let mut node = gpus.node(&fake, &seen(&say(&done())), 1).await;
    fake.hello().await;
    gpus.write("hang", "1000");
    let silent = |message: &FromWorker| matches!(message, FromWorker::Heartbeat { faults, .. } if faults.iter().any(|fault| fault.contains("the driver hangs")));
    fake.until(silent).await;
    fake.tell(ToWorker::Launch(Box::new(launch(A, 0, 1, 1)))).await;
    end_of(&mut fake, A).await.unwrap();
    node.ask_to_stop();
    fake.until(|message| matches!(message, FromWorker::Goodbye)).await;
    fake.hang_up();
    tokio::time::timeout(Duration::from_secs(10), node.ended()).await.unwrap().unwrap();
}
