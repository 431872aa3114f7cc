use common::FailureCause;
use common::result::{Artifact, Score};

use super::*;

fn there_and_back(message: &FromWorker) -> FromWorker {
    v1::FromWorker::from(message.clone()).try_into().unwrap()
}

#[test]
fn every_failure_cause_survives_the_wire() {
    let message = || "why".to_owned();
    let causes = [
        FailureCause::WorkerLost,
        FailureCause::Preempted,
        FailureCause::TrainerExit { code: -3 },
        FailureCause::TrainerSignal { signal: 9 },
        FailureCause::LaunchFailed { message: message() },
        FailureCause::OutOfMemory,
        FailureCause::Stalled,
        FailureCause::Hung {
            rank: 1,
            worker: "w".to_owned(),
            step: 7,
            phase: "forward".to_owned(),
            silent_ms: 2500,
        },
        FailureCause::StorageFull { message: message() },
        FailureCause::Unhealthy { message: message() },
        FailureCause::CollectiveFailed { rank: 1 },
        FailureCause::NonFiniteLoss { step: 77 },
        FailureCause::SpecRejected { message: message() },
        FailureCause::DataMissing { message: message() },
        FailureCause::CheckpointIncompatible { message: message() },
    ];
    for cause in causes {
        let ended = FromWorker::AttemptEnded { attempt: AttemptId(4), end: Err(cause) };
        assert_eq!(there_and_back(&ended), ended);
    }
}

#[test]
fn a_hello_survives_the_wire() {
    let result = TrialResult {
        metrics: [("accuracy".to_owned(), 0.97)].into(),
        artifacts: vec![Artifact { name: "p".to_owned(), digest: Digest::of(b"p"), bytes: 1 }],
    };
    let report = |id, state| AttemptReport { attempt: AttemptId(id), state };
    let hello = FromWorker::Hello(Box::new(Hello {
        protocol: 1,
        worker: WorkerId(9),
        order: SessionOrder { start: 5, session: 3 },
        name: "n".to_owned(),
        host: "h".to_owned(),
        slots: 2,
        labels: [("rack".to_owned(), "a".to_owned())].into(),
        device: "cuda".to_owned(),
        slot_memory_mib: Some(4096),
        prefetches: true,
        faults: vec!["GPU 3 is lost".to_owned()],
        version: "0.1.0".to_owned(),
        attempts: vec![
            report(1, AttemptState::Running { rendezvous: None, step: 3 }),
            report(2, AttemptState::Running { rendezvous: Some("h:1".to_owned()), step: 0 }),
            report(3, AttemptState::Ended(Ok(Some(result)))),
            report(4, AttemptState::Ended(Ok(None))),
        ],
    }));
    assert_eq!(there_and_back(&hello), hello);
}

#[test]
fn a_prefetch_survives_the_wire() {
    let blobs =
        vec![Blob { digest: Digest::of(b"a"), bytes: 3 }, Blob { digest: Digest::of(b"b"), bytes: 0 }];
    let prefetch = ToWorker::Prefetch { blobs };
    let wire = v1::ToWorker::from(prefetch.clone());
    assert_eq!(ToWorker::try_from(wire).unwrap(), prefetch);
}

#[test]
fn a_message_without_content_is_refused() {
    let error = FromWorker::try_from(v1::FromWorker { message: None }).unwrap_err();
    assert_eq!(error.to_string(), "`message` is missing");
}

#[test]
fn an_unspecified_failure_is_refused() {
    let wire = v1::FailureCause::default();
    assert!(matches!(FailureCause::try_from(wire), Err(ConvertError::UnknownEnum { value: 0, .. })));
}

#[test]
fn a_checkpoint_survives_the_wire_with_its_score_and_without() {
    for score in [None, Score::new(0.1)] {
        let checkpoint = Checkpoint::new(7, Digest::of(b"w"), 3).scored(score);
        let stored = FromWorker::CheckpointStored { attempt: AttemptId(4), checkpoint };
        assert_eq!(there_and_back(&stored), stored);
    }
    let digest = Digest::of(b"w").to_string();
    let wire = v1::Checkpoint { step: 7, digest, bytes: 3, score: Some(f64::NAN) };
    assert_eq!(Checkpoint::try_from(wire).unwrap().score, None, "what is not finite says nothing");
}
