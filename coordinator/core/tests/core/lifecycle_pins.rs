//! Checkpoints that users want kept.

use common::{Digest, FailureCause};
use coordinator_core::{Effect, Input, Reject};

use crate::case::*;
use crate::support::{evaluate, network};

fn pin(step: u64) -> Input {
    Input::PinCheckpoint { trial: T1, step }
}

fn unpin(step: u64) -> Input {
    Input::UnpinCheckpoint { trial: T1, step }
}

fn delete(text: &str) -> Effect {
    Effect::DeleteBlob { digest: Digest::of(text.as_bytes()) }
}

fn kept(case: &Case) -> Vec<u64> {
    case.cluster.trial(T1).unwrap().checkpoints.iter().map(|held| held.step).collect()
}

fn pinned(case: &Case) -> Vec<u64> {
    case.cluster.pinned(T1).map(|held| held.step).collect()
}

/// A trial that runs, with a pinned checkpoint of step 10 and one of step 20.
fn training() -> Case {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1), evaluate([network(1, 1)])]);
    let _ = case.commit(W1, A1, checkpoint(10, "ten"));
    assert_eq!(outline(&case.handle(pin(10))), ["t1 pinned 10"]);
    let _ = case.commit(W1, A1, checkpoint(20, "twenty"));
    case
}

#[test]
fn a_pinned_checkpoint_is_kept_apart_from_the_last_two() {
    let mut case = training();
    assert_eq!(case.handle(pin(10)).events, []);
    let _ = case.commit(W1, A1, checkpoint(30, "thirty"));
    assert_eq!(kept(&case), [10, 20, 30]);
    let step = case.commit(W1, A1, checkpoint(40, "forty"));
    assert_eq!(step.effects, [delete("twenty")]);
    case.restart();
    let _ = case.hello(W1, 1, [runs(A1, 40)]);
    assert_eq!((kept(&case), pinned(&case)), (vec![10, 30, 40], vec![10]));
}

#[test]
fn a_pinned_checkpoint_survives_success_and_is_not_the_network() {
    let mut case = training();
    let _ = case.commit(W1, A1, checkpoint(30, "thirty"));
    let _ = case.end(W1, A1, success());
    assert_eq!(kept(&case), [10, 30]);
    let network = case.cluster.networks(T2).map(|(_, held)| held.step).collect::<Vec<_>>();
    assert_eq!(network, [30]);
    let step = case.handle(unpin(10));
    assert_eq!(outline(&step), ["t1 unpinned 10", "t1 dropped one: Superseded"]);
    assert_eq!(step.effects, [delete("ten")]);
    assert_eq!(kept(&case), [30]);
}

#[test]
fn the_network_may_be_pinned_too_and_stays_when_it_is_not_any_more() {
    let mut case = training();
    let _ = case.handle(unpin(10));
    let _ = case.handle(pin(20));
    let _ = case.end(W1, A1, success());
    assert_eq!(kept(&case), [20]);
    assert_eq!(outline(&case.handle(unpin(20))), ["t1 unpinned 20"]);
    assert_eq!(kept(&case), [20]);
}

#[test]
fn what_is_not_pinned_any_more_is_kept_as_long_as_any_other() {
    let mut case = training();
    assert_eq!(outline(&case.handle(unpin(10))), ["t1 unpinned 10"]);
    assert_eq!(case.handle(unpin(10)).events, []);
    assert_eq!(kept(&case), [10, 20]);
    let _ = case.commit(W1, A1, checkpoint(30, "thirty"));
    assert_eq!(kept(&case), [20, 30]);
}

#[test]
fn a_damaged_checkpoint_is_worth_no_pin() {
    let mut case = training();
    let digest = Digest::of(b"ten");
    let step = case.handle(Input::CheckpointDamaged { attempt: A1, digest });
    assert_eq!(outline(&step), ["t1 dropped one: Damaged"]);
    assert_eq!((kept(&case), pinned(&case)), (vec![20], vec![]));
    assert_eq!(case.refuse(pin(10)), Reject::NoSuchCheckpoint { trial: T1, step: 10 });
}

#[test]
fn a_trial_goes_on_from_a_pinned_checkpoint_when_newer_ones_are_damaged() {
    let mut case = training();
    let _ = case.end(W1, A1, success());
    assert_eq!(kept(&case), [10, 20]);
    let digest = Digest::of(b"twenty");
    let step = case.handle(Input::CheckpointDamaged { attempt: A2, digest });
    assert_eq!(outline(&step)[1], "t1 reopened");
    assert_eq!(case.cluster.trial(T1).unwrap().restore().next(), Some(&checkpoint(10, "ten")));
    let _ = case.commit(W1, A3, checkpoint(20, "twenty"));
    assert_eq!(outline(&case.end(W1, A3, success()))[0], "t1 succeeded");
    assert_eq!((kept(&case), pinned(&case)), (vec![10, 20], vec![10]));
}

#[test]
fn a_checkpoint_that_the_trainer_cannot_read_goes_with_its_pin() {
    let mut case = training();
    let cause = FailureCause::CheckpointIncompatible { message: "layer conv1 is missing".to_owned() };
    let _ = case.end(W1, A1, Err(cause));
    assert_eq!(kept(&case), [10, 20]);
    let step = case.submit([train(1, 1)]);
    assert_eq!(outline(&step)[..2], ["t1 dropped one: Incompatible", "t1 dropped one: Incompatible"]);
    assert_eq!((kept(&case), pinned(&case)), (vec![], vec![]));
}

#[test]
fn what_is_not_kept_cannot_be_pinned() {
    let mut case = training();
    assert_eq!(case.refuse(pin(15)), Reject::NoSuchCheckpoint { trial: T1, step: 15 });
    assert_eq!(case.refuse(unpin(15)), Reject::NoSuchCheckpoint { trial: T1, step: 15 });
    let unknown = Input::PinCheckpoint { trial: T3, step: 1 };
    assert_eq!(case.refuse(unknown), Reject::UnknownTrial(T3));
}

#[test]
fn checkpoints_of_a_cancelled_trial_can_be_pinned() {
    let mut case = training();
    let _ = case.handle(Input::CancelTrial { trial: T1 });
    let _ = case.handle(pin(20));
    let _ = case.handle(unpin(10));
    assert_eq!((kept(&case), pinned(&case)), (vec![10, 20], vec![20]));
}
