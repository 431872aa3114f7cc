use common::Digest;
use common::result::{Artifact, TrialResult};
use coordinator_core::{Effect, Input, Phase, Reject};

use crate::case::*;
use crate::support::{evaluate, network};

fn delete(text: &str) -> Effect {
    Effect::DeleteBlob { digest: Digest::of(text.as_bytes()) }
}

fn restore(case: &Case) -> Vec<u64> {
    case.cluster.trial(T1).unwrap().restore().map(|held| held.step).collect()
}

/// One running train trial on worker 1.
fn training() -> Case {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    case
}

#[test]
fn the_last_two_checkpoints_are_kept_newest_first() {
    let mut case = training();
    assert_eq!(outline(&case.commit(W1, A1, checkpoint(10, "ten"))), ["t1 committed 10"]);
    assert_eq!(outline(&case.commit(W1, A1, checkpoint(20, "twenty"))), ["t1 committed 20"]);
    let step = case.commit(W1, A1, checkpoint(30, "thirty"));
    assert_eq!(outline(&step), ["t1 committed 30", "t1 dropped one: Superseded"]);
    assert_eq!(step.effects, [delete("ten")]);
    assert_eq!(restore(&case), [30, 20]);
}

#[test]
fn a_trial_that_succeeded_keeps_its_last_checkpoint_only() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    let _ = case.commit(W1, A1, checkpoint(20, "twenty"));
    let step = case.end(W1, A1, success());
    assert_eq!(outline(&step), ["t1 succeeded", "t1 dropped one: Superseded"]);
    assert_eq!(step.effects, [release(W1, A1), delete("ten")]);
    assert_eq!(restore(&case), [20]);
}

#[test]
fn a_checkpoint_that_is_not_newer_is_refused() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    for step in [9, 10] {
        let checkpoint = checkpoint(step, "other");
        let stale = Reject::StaleCheckpoint { trial: T1, step, newest: 10 };
        assert_eq!(case.refuse(Input::CheckpointCommitted { worker: W1, attempt: A1, checkpoint }), stale);
    }
}

#[test]
fn a_commit_that_is_sent_again_is_accepted_and_changes_nothing() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    let step = case.commit(W1, A1, checkpoint(10, "ten"));
    assert_eq!((step.events, step.effects), (vec![], vec![]));
}

#[test]
fn checkpoints_of_a_failed_attempt_are_restored_by_the_next_one() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    let _ = case.hello(W1, 1, []);
    assert_eq!(restore(&case), [10]);
    let _ = case.commit(W1, A2, checkpoint(20, "twenty"));
    assert_eq!(restore(&case), [20, 10]);
}

#[test]
fn a_blob_that_another_record_refers_to_is_not_deleted() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit([train(1, 1), train(2, 1)]);
    let _ = case.commit(W1, A1, checkpoint(10, "same"));
    let _ = case.commit(W1, A2, checkpoint(10, "same"));
    let _ = case.commit(W1, A1, checkpoint(20, "twenty"));
    let step = case.commit(W1, A1, checkpoint(30, "thirty"));
    assert_eq!(outline(&step)[1], "t1 dropped one: Superseded");
    assert_eq!(step.effects, []);
    assert!(case.cluster.is_referenced(Digest::of(b"same")));
}

#[test]
fn a_damaged_checkpoint_is_dropped_for_the_one_before_it() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    let _ = case.commit(W1, A1, checkpoint(20, "twenty"));
    let digest = Digest::of(b"twenty");
    let step = case.handle(Input::CheckpointDamaged { attempt: A1, digest });
    assert_eq!(outline(&step), ["t1 dropped one: Damaged"]);
    assert_eq!(step.effects, [delete("twenty")]);
    assert_eq!(restore(&case), [10]);
    assert_eq!(outline(&case.commit(W1, A1, checkpoint(15, "fifteen"))), ["t1 committed 15"]);
}

#[test]
fn a_success_whose_last_checkpoint_was_damaged_is_not_believed_of_the_one_before_it() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    let _ = case.commit(W1, A1, checkpoint(20, "final"));
    let digest = Digest::of(b"final");
    let _ = case.handle(Input::CheckpointDamaged { attempt: A1, digest });
    assert_eq!(outline(&case.end(W1, A1, success()))[0], "a1 failed: a trainer exited with status 0");
    let _ = case.commit(W1, A2, checkpoint(20, "final"));
    assert_eq!(outline(&case.end(W1, A2, success()))[0], "t1 succeeded");
    assert_eq!(restore(&case), [20]);
}

/// Two evaluations of one network, both running.
fn two_evaluations() -> Case {
    let mut case = Case::with_workers([2]);
    let single = evaluate([network(1, 1)]);
    let twice = evaluate([network(1, 1), network(1, 1)]);
    let _ = case.submit([train(1, 1), single, twice]);
    let _ = case.commit(W1, A1, checkpoint(100, "network"));
    let artifact = Artifact { name: "log".to_owned(), digest: Digest::of(b"log"), bytes: 9 };
    let end = Ok(Some(TrialResult { artifacts: vec![artifact], ..result() }));
    let _ = case.end(W1, A1, end);
    case
}

#[test]
fn a_trained_network_that_is_damaged_is_trained_again_and_its_evaluations_wait() {
    let mut case = two_evaluations();
    let digest = Digest::of(b"network");
    let step = case.handle(Input::CheckpointDamaged { attempt: A2, digest });
    assert_eq!(
        outline(&step),
        [
            "t1 dropped one: Damaged",
            "t1 reopened",
            "a2 failed: preempted",
            "a3 failed: preempted",
            "a4 of t1 started on w1:1",
        ]
    );
    let effects = [delete("network"), delete("log"), release(W1, A2), release(W1, A3)];
    assert_eq!(step.effects[..4], effects);
    assert_eq!(case.cluster.trial(T2).unwrap().phase, Phase::Waiting);
    let wanted_by = &case.cluster.trial(T1).unwrap().wanted_by;
    assert_eq!(wanted_by.iter().copied().collect::<Vec<_>>(), [E1]);

    let again = Input::CheckpointDamaged { attempt: A3, digest };
    assert_eq!(case.refuse(again), Reject::StaleAttempt(A3), "one damage costs one training");
    let step = case.finish(W1, common::AttemptId(4), "network");
    assert_eq!(outline(&step)[1..], ["a5 of t2 started on w1:1", "a6 of t3 started on w1:1"]);
}

#[test]
fn evaluations_of_a_network_that_is_lost_for_good_end_too() {
    let mut case = two_evaluations();
    let digest = Digest::of(b"network");
    let _ = case.handle(Input::CheckpointDamaged { attempt: A2, digest });
    let cause = common::FailureCause::NonFiniteLoss { step: 1 };
    let step = case.end(W1, common::AttemptId(4), Err(cause));
    assert_eq!(
        outline(&step)[2..],
        ["t2 needs t1, which ended without success", "t3 needs t1, which ended without success"]
    );
}

#[test]
fn damage_to_a_checkpoint_that_the_attempt_was_not_given_is_refused() {
    let mut case = two_evaluations();
    let digest = Digest::of(b"somebody else's");
    let unknown = Reject::UnknownCheckpoint { attempt: A2, digest };
    assert_eq!(case.refuse(Input::CheckpointDamaged { attempt: A2, digest }), unknown);
}
