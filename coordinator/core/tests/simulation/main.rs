//! Runs the real state machine and the real agents ([`worker_core::Agent`]) in a simulated world: machines, a network, time,
//! trainers, and crashes.
//!
//! Everything is drawn from one seed; a failure prints the seed that shows it. `SIM_SEED` runs one seed,
//! `SIM_RUNS` so many from 0, and with `SIM_TRACE` each message and each event is printed.
//!
//! People: submissions of several projects with weights and quotas, with requirements and elastic trials; they
//! cancel, pause, resume, change priorities, drain, undrain, pin and unpin.
//!
//! Faults: connections that break, lose what is on its way, or hold it up; messages that are dropped for want of room, come
//! twice, or come after the session they belong to, and hellos that come after their sender died, or after the
//! coordinator did; partitions in both directions or
//! one; clocks that drift; crashes of agents, with and without their machine, and agents that are asked to stop; machines that
//! stand still and go on, and agents that do alone; crashes of the coordinator before and after it persisted a step; a coordinator that stands still, or
//! whose disk is slow; blobs that rot; trainers that die, hang, stop at a checkpoint late or never, or meet a loss that is not
//! finite; broken hardware.
//!
//! Checked after every step: the invariants, that the log rebuilds the state, that the log is a legal history
//! ([`oracle`]), that nothing computes on a worker whose lease was given away, that no worker runs more than it has slots for, that
//! an agent starts nothing twice and nothing without a lease, that every blob that a record names is stored, that a result comes
//! with every row that its attempt measured, once and in order, and that every waiting trial is told why. Checked at the end:
//! every trial ends once the faults stop, and no agent holds anything.
//!
//! Simulated are the I/O around both: the driver ([`world`]), the network ([`network`]), the agent's shell and its attempts
//! ([`node`]). The tests of the driver and of the agent run the real ones.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod grid;
mod network;
mod node;
mod oracle;
mod people;
mod world;

use common::WorkerId;
use coordinator_core::Input;
use rand::Rng;

use world::World;

/// Time with faults, in milliseconds; so is all time here, one a tick.
const FAULTY: u64 = 3_000;
/// Time in which everything must have ended after the faults stopped.
const QUIET: u64 = 6_000;
/// Time in which workers hear that the last attempts are over, and in which one that is dead is lost: its last hello may be on
/// its way for 200, and make it a member once more for the time of a lease.
const AFTER: u64 = 500;

#[expect(clippy::print_stdout, reason = "shown when the test fails, and with --nocapture")]
fn run(seed: u64) -> World {
    println!("SIM_SEED={seed}");
    let mut world = World::new(seed);
    while world.now() < FAULTY {
        if world.chance(0.015) {
            let plan = grid::draw(&mut world.rng);
            world.client(Input::Submit { plan, grid: String::new() });
        }
        if world.chance(0.004) {
            let experiment = world.rng.random_range(1..20);
            world.client(Input::CancelExperiment { experiment: common::ExperimentId(experiment) });
        }
        if world.chance(0.004) {
            let trial = world.rng.random_range(1..60);
            world.client(Input::CancelTrial { trial: common::TrialId(trial) });
        }
        world.people();
        world.tick();
    }
    world.stop_faults();
    let deadline = world.now() + QUIET;
    while world.now() < deadline && !world.is_idle() {
        world.settle();
        world.tick();
    }
    assert!(world.is_idle(), "trials are stuck after the faults stopped: {}", world.scene());
    for _ in 0..AFTER {
        world.tick();
    }
    world
}

/// Seeds that once found a mistake, run besides the first ones.
const KNOWN: [u64; 4] = [256, 275, 349, 1842];

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIM_RUNS").unwrap_or(200)).chain(KNOWN).collect(),
    }
}

#[test]
fn every_trial_ends_and_no_worker_holds_anything_once_faults_stop() {
    for seed in seeds() {
        let world = run(seed);
        for (id, node) in world.nodes.iter().filter(|&(&id, _)| id != world::DEAD) {
            assert!(node.is_empty(), "{id} still holds {node:?}");
        }
        let members: Vec<WorkerId> = world.cluster.workers().map(|view| view.id).collect();
        assert!(!members.contains(&world::DEAD), "a worker that never came back is still a member");
    }
}

#[test]
fn the_faults_that_are_meant_to_happen_do() {
    let mut seen = oracle::Seen::default();
    for seed in 0..80 {
        seen.add(run(seed).oracle.seen());
    }
    seen.assert_all();
}
