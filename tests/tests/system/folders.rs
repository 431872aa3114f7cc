//! Folders belong to one process at a time.

use std::time::Duration;

use nix::sys::signal::Signal;
use system_tests::{Cluster, Lease};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_second_coordinator_on_the_same_folder_is_refused() {
    let cluster = Cluster::start(Lease::Long);
    let arguments = cluster.coordinator_arguments("127.0.0.1:0");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let second = cluster.start_command_alone(&arguments, "second.log");
    let status = second.wait(SOON);
    let log = std::fs::read_to_string(cluster.path("second.log")).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    let folder = cluster.data_dir().display().to_string();
    for words in [folder.as_str(), "in use by the coordinator with process id", "another data-dir"] {
        assert!(log.contains(words), "no `{words}` in:\n{log}");
    }
    // The first one has not noticed.
    assert!(cluster.workers().is_empty());
    cluster.stop();
}

#[test]
fn a_second_agent_on_the_same_folder_is_refused() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let arguments = cluster.worker_arguments("alpha", 1);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let second = cluster.start_command_alone(&arguments, "second.log");
    let status = second.wait(SOON);
    let log = std::fs::read_to_string(cluster.path("second.log")).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    let folder = cluster.worker_dir("alpha").display().to_string();
    for words in [folder.as_str(), "used by another agent", "data-dir"] {
        assert!(log.contains(words), "no `{words}` in:\n{log}");
    }
    assert!(cluster.workers().iter().all(|worker| worker.connected), "the first one is still connected");
    cluster.stop();
}

#[test]
fn a_folder_is_free_when_its_coordinator_is_gone() {
    let mut cluster = Cluster::start(Lease::Long);
    cluster.kill_coordinator();
    cluster.start_coordinator();
    let coordinator = cluster.take_coordinator();
    coordinator.signal(Signal::SIGINT);
    assert!(coordinator.wait(SOON).success());
    cluster.start_coordinator();
    cluster.stop();
}
