//! What an operator asks of the coordinator: pausing, priorities, draining, pins, and why something does not run.

use common::result::Score;
use common::session::{AttemptEnd, FromWorker, Hello, ToWorker};
use common::{AttemptId, FailureCause};
use proto::v1;
use proto::v1::{pause_request, resume_request};
use tonic::Code;

use crate::support::{GRID, Server, Worker, assert_refused, hello};

async fn explain(server: &Server, trial: &str) -> (String, Vec<String>) {
    let response = server.client().explain(v1::ExplainRequest { trial: trial.to_owned() }).await;
    let v1::ExplainResponse { trial, reasons } = response.unwrap().into_inner();
    (format!("{:?}", v1::TrialState::try_from(trial.unwrap().state).unwrap()), reasons)
}

fn pause(trial: &str) -> v1::PauseRequest {
    v1::PauseRequest { target: Some(pause_request::Target::Trial(trial.to_owned())) }
}

fn resume(trial: &str) -> v1::ResumeRequest {
    v1::ResumeRequest { target: Some(resume_request::Target::Trial(trial.to_owned())) }
}

/// Waits for the order to write a checkpoint and end, and follows it.
async fn yields(worker: &mut Worker, attempt: AttemptId) {
    loop {
        if worker.hear().await.unwrap() == (ToWorker::Preempt { attempt }) {
            break;
        }
    }
    let end: AttemptEnd = Err(FailureCause::Preempted);
    worker.say(FromWorker::AttemptEnded { attempt, end }).await;
}

#[tokio::test]
async fn a_paused_trial_writes_a_checkpoint_waits_and_goes_on() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let launch = worker.hear_launch().await;
    let trial =
        server.trials().await.into_iter().find(|trial| trial.key == launch.key.to_string()).unwrap().id;

    let paused = server.client().pause(pause(&trial)).await.unwrap().into_inner();
    assert_eq!((paused.paused, paused.yielding), (1, 1));
    let (state, reasons) = explain(&server, &trial).await;
    assert_eq!(state, "Running");
    assert!(reasons.iter().any(|reason| reason.contains("checkpoint: paused")), "{reasons:?}");
    worker.checkpoint(&server, launch.attempt, 7).await;
    yields(&mut worker, launch.attempt).await;

    // The slot is another trial's.
    let other = worker.hear_launch().await;
    assert_ne!(other.key, launch.key);
    let (state, reasons) = explain(&server, &trial).await;
    assert_eq!(state, "Paused");
    assert!(reasons[0].contains("paused"), "{reasons:?}");
    let resumed = server.client().resume(resume(&trial)).await.unwrap().into_inner();
    assert_eq!(resumed.resumed, 1);
    assert_eq!(explain(&server, &trial).await.0, "Queued");
}

#[tokio::test]
async fn a_drained_worker_is_given_nothing_until_it_is_undrained() {
    let server = Server::start().await;
    let mut worker = Worker::connect(&server, 1, 1).await;
    let drain = |worker: &str| v1::DrainRequest {
        worker: worker.to_owned(),
        now: false,
        reason: "new fans".to_owned(),
    };
    let unknown = server.client().drain(drain("node-7")).await.unwrap_err();
    assert_refused(&unknown, Code::NotFound, &["node-7", "node-1"]);
    server.client().drain(drain("node-1")).await.unwrap();
    server.submit(GRID).await.unwrap();
    let (_, reasons) = explain(&server, "t1").await;
    assert!(
        reasons.iter().any(|reason| reason.contains("node-1") && reason.contains("new fans")),
        "{reasons:?}"
    );
    let listed = server.client().list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.workers[0].held, "drained: new fans");
    server.client().undrain(v1::UndrainRequest { worker: "w1".to_owned() }).await.unwrap();
    worker.hear_launch().await;
}

#[tokio::test]
async fn an_incident_that_blames_the_worker_puts_it_in_quarantine() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let mut other = Worker::connect(&server, 2, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let (pattern, line) = ("ecc".to_owned(), "uncorrectable ECC error".to_owned());
    worker.say(FromWorker::Incident { attempt, rank: 0, pattern, line, quarantine: true }).await;
    let released = loop {
        if let ToWorker::Release { attempt } = worker.hear().await.unwrap() {
            break attempt;
        }
    };
    assert_eq!(released, attempt);
    other.hear_launch().await;
    let listed = server.client().list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner();
    assert!(listed.workers[0].held.contains("uncorrectable ECC error"), "{:?}", listed.workers);
}

#[tokio::test]
async fn a_worker_that_says_it_is_broken_is_given_nothing_with_its_hello_or_after_a_heartbeat() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let faults = |which: &str| vec![format!("GPU {which} is lost")];
    // First: nothing is placed there, though it comes when all is queued.
    let said = Hello { faults: faults("3"), ..hello(1, 1, &[]) };
    let mut broken = Worker::open(&server, FromWorker::Hello(Box::new(said))).await.unwrap();
    assert!(matches!(broken.hear().await.unwrap(), ToWorker::Welcome { .. }));
    let mut worker = Worker::connect(&server, 2, 1).await;
    let attempt = worker.hear_launch().await.attempt;
    let attempts = hello(2, 1, &[attempt]).attempts;
    worker.say(FromWorker::Heartbeat { sequence: 1, attempts, faults: faults("5") }).await;
    assert!(matches!(worker.hear().await.unwrap(), ToWorker::HeartbeatAck { .. }));
    let cause = FailureCause::Unhealthy { message: "GPU 5 is lost".to_owned() };
    worker.say(FromWorker::AttemptEnded { attempt, end: Err(cause) }).await;
    // The trial waits for somebody else.
    Worker::connect(&server, 3, 1).await.hear_launch().await;
    let listed = server.client().list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner();
    let held: Vec<&str> = listed.workers.iter().map(|worker| worker.held.as_str()).collect();
    assert_eq!(held, ["in quarantine: GPU 3 is lost", "in quarantine: GPU 5 is lost", ""]);
    drop(broken);
}

#[tokio::test]
async fn a_higher_priority_goes_first_and_a_label_decides_where() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let urgent = GRID.replace("name = \"small\"", "name = \"urgent\"").replace("epochs = 1", "epochs = 2");
    let urgent = server.submit(&urgent).await.unwrap();
    let request = v1::SetPriorityRequest { experiment: "urgent".to_owned(), priority: 3 };
    server.client().set_priority(request).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let first = worker.hear_launch().await.key.to_string();
    assert!(urgent.trials.iter().any(|trial| trial.key == first));

    let run = "[run]\nrequires = { labels = { rack = \"r7\" } }\n[[method]]";
    let picky = GRID.replace("name = \"small\"", "name = \"picky\"").replace("epochs = 1", "epochs = 3");
    let picky = server.submit(&picky.replacen("[[method]]", run, 1)).await.unwrap();
    let labels = [("rack".to_owned(), "r7".to_owned())].into();
    let mut labelled =
        Worker::open(&server, FromWorker::Hello(Box::new(Hello { labels, ..hello(2, 1, &[]) })))
            .await
            .unwrap();
    assert!(matches!(labelled.hear().await.unwrap(), ToWorker::Welcome { .. }));
    let launched = labelled.hear_launch().await.key.to_string();
    // Urgent ones may run there, too; what needs the label waits for it and for nothing else.
    let wanted = |trials: &[v1::PlannedTrial]| trials.iter().any(|trial| trial.key == launched);
    assert!(wanted(&urgent.trials) || wanted(&picky.trials));
    let request = v1::ListTrialsRequest { experiment: "picky".to_owned() };
    let trials = server.client().list_trials(request).await.unwrap().into_inner().trials;
    let (_, reasons) = explain(&server, &trials[0].id).await;
    assert!(reasons.iter().any(|reason| reason.contains("rack = r7")), "{reasons:?}");
}

#[tokio::test]
async fn the_best_checkpoint_is_kept_and_named_with_its_score() {
    let server = Server::start().await;
    let data = "[data.digits]\nvalidation = 100\n[run]\nkeep-best = true\n[[method]]";
    let grid = GRID.replace("data = [\"digits\"]", "").replacen("[[method]]", data, 1);
    server.submit(&grid).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let launch = worker.hear_launch().await;
    assert!(launch.policy.keep_best.is_some());
    for (step, score) in [(5, 0.7), (10, 0.4), (15, 0.6), (20, 0.5)] {
        worker.scored_checkpoint(&server, launch.attempt, step, Score::new(score)).await;
    }
    worker.rows(launch.attempt, 1, &[(20, "held-out-nll", 0.5)]).await;
    let trial = v1::GetTrialRequest { trial: launch.key.to_string() };
    let details = server.client().get_trial(trial).await.unwrap().into_inner();
    let kept: Vec<_> =
        details.checkpoints.iter().map(|checkpoint| (checkpoint.step, checkpoint.score)).collect();
    assert_eq!(kept, [(10, Some(0.4)), (15, Some(0.6)), (20, Some(0.5))]);
    assert_eq!(details.best_step, Some(10));
}

#[tokio::test]
async fn a_pinned_checkpoint_is_listed_and_one_that_is_not_there_is_refused() {
    let server = Server::start().await;
    server.submit(GRID).await.unwrap();
    let mut worker = Worker::connect(&server, 1, 1).await;
    let launch = worker.hear_launch().await;
    let trial =
        server.trials().await.into_iter().find(|trial| trial.key == launch.key.to_string()).unwrap().id;
    worker.checkpoint(&server, launch.attempt, 5).await;
    worker.rows(launch.attempt, 1, &[(5, "loss", 1.0)]).await;
    let pin = |step, pinned| v1::PinCheckpointRequest { trial: trial.clone(), step, pinned };
    let refused = server.client().pin_checkpoint(pin(6, true)).await.unwrap_err();
    assert_refused(&refused, Code::NotFound, &["6"]);
    server.client().pin_checkpoint(pin(5, true)).await.unwrap();
    for step in [10, 15, 20] {
        worker.checkpoint(&server, launch.attempt, step).await;
    }
    worker.rows(launch.attempt, 2, &[(20, "loss", 1.0)]).await;
    let details = server.client().get_trial(v1::GetTrialRequest { trial: trial.clone() }).await.unwrap();
    let details = details.into_inner();
    let steps: Vec<u64> = details.checkpoints.iter().map(|checkpoint| checkpoint.step).collect();
    assert_eq!((steps, details.pinned_steps), (vec![5, 15, 20], vec![5]));
}
