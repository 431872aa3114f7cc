//! Gangs are placed whole or not at all, and what waits says why.

use system_tests::{Cluster, Grid, Lease, PATIENCE, TrainerProcess, until};

fn four_ranks() -> Grid {
    Grid::new("four-ranks").method("kind = \"deterministic\"\nslots = 4")
}

#[test]
fn a_trial_that_is_too_wide_says_so_and_runs_when_a_worker_is_added() {
    let mut cluster = Cluster::with_workers(Lease::Long, &["alpha", "beta"]);
    cluster.submit(&four_ranks());
    let experiment = cluster.experiment("four-ranks");
    let train = experiment.trial(&["train"]);
    assert_eq!((train.state.as_str(), train.attempts), ("queued", 0));
    assert_eq!(train.reason, "needs 4 slots, the cluster offers 2");
    for arguments in [["status", "four-ranks"], ["status", train.id.as_str()]] {
        let shown = cluster.run(&arguments).ok();
        assert!(shown.contains("needs 4 slots, the cluster offers 2"), "{shown}");
    }
    // It does not hold up others.
    cluster.submit(&Grid::new("one-rank").method("kind = \"deterministic\"").recipe("epochs = 1"));
    cluster.finish("one-rank");

    cluster.add_worker("gamma", 2);
    let experiment = cluster.finish("four-ranks");
    let train = cluster.trial(&experiment.trial(&["train"]).id);
    assert_eq!((train.slots, train.attempts), (4, 1));
    let mut workers = train.history[0].workers.clone();
    workers.sort();
    assert_eq!(workers, ["alpha", "beta", "gamma×2"]);
    cluster.stop();
}

#[test]
fn a_trial_without_any_worker_says_so() {
    let mut cluster = Cluster::start(Lease::Long);
    cluster.submit(&four_ranks());
    let reason = |cluster: &Cluster| cluster.experiment("four-ranks").trial(&["train"]).reason.clone();
    assert_eq!(reason(&cluster), "no worker is connected");
    cluster.add_worker("alpha", 1);
    cluster.wait_connected("alpha");
    assert_eq!(reason(&cluster), "needs 4 slots, the cluster offers 1");
    cluster.stop();
}

#[test]
fn slots_in_use_never_exceed_slots_offered() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha", "beta"]);
    let grid = Grid::new("crowd")
        .seeds(&[0, 1, 2])
        .method("kind = \"deterministic\"\nslots = 2")
        .method("kind = \"mc-dropout\"");
    cluster.submit(&grid);
    until("the experiment ends", PATIENCE, || {
        for worker in cluster.workers() {
            assert!(worker.slots_used <= worker.slots, "{worker:?}");
        }
        let trainers = alive_at_once(&cluster);
        for name in ["alpha", "beta"] {
            let own: Vec<_> = trainers.iter().filter(|trainer| trainer.worker == name).collect();
            assert!(own.len() <= 1, "more than one trainer on one slot: {own:?}");
        }
        (cluster.experiment("crowd").state == "succeeded").then_some(())
    });
    cluster.stop();
}

/// A look at all processes takes time, in which one may end and the next begin. Those of two looks lived together.
fn alive_at_once(cluster: &Cluster) -> Vec<TrainerProcess> {
    let first = cluster.trainers();
    cluster.trainers().into_iter().filter(|trainer| first.contains(trainer)).collect()
}
