use common::FailureCause;
use common::session::SessionOrder;
use coordinator_core::{Effect, Event, Input, Millis, Reject, Session, Share, Traits};

use crate::case::*;

fn launch(attempt: common::AttemptId, trial: common::TrialId, share: Share, world_size: u32) -> Effect {
    Effect::Launch { attempt, trial, share, world_size }
}

#[test]
fn a_worker_that_says_hello_is_given_work() {
    let mut case = Case::new();
    let _ = case.submit([train(1, 2)]);
    let step = case.hello(W1, 2, []);
    assert_eq!(outline(&step), ["w1 joined with 2", "a1 of t1 started on w1:2"]);
    assert_eq!(step.effects, [launch(A1, T1, Share { worker: W1, first_rank: 0, ranks: 2 }, 2)]);
    assert_eq!(case.cluster.worker(W1).unwrap().used, 2);
}

#[test]
fn a_new_session_that_reports_everything_changes_nothing() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let step = case.hello(W1, 1, [runs(A1, 3)]);
    assert_eq!((step.events, step.effects), (vec![], vec![]));
}

#[test]
fn an_attempt_that_a_new_session_does_not_report_is_gone() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let step = case.hello(W1, 1, []);
    assert_eq!(outline(&step), ["a1 failed: a worker was lost", "a2 of t1 started on w1:1"]);
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
}

#[test]
fn an_attempt_that_a_heartbeat_does_not_report_is_launched_again_and_not_given_up() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let step = case.heartbeat(W1, []);
    assert_eq!(step.events, []);
    assert_eq!(step.effects, [launch(A1, T1, Share { worker: W1, first_rank: 0, ranks: 1 }, 1)]);
}

#[test]
fn an_attempt_that_nobody_wants_is_released_whoever_reports_it() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 1)]);
    let step = case.heartbeat(W2, [runs(A1, 5), ended(A2, success())]);
    assert_eq!(step.events, []);
    assert_eq!(step.effects, [release(W2, A1), release(W2, A2)]);
}

#[test]
fn a_worker_is_lost_when_its_lease_ends_and_not_before() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    assert_eq!(case.cluster.next_deadline(), Some(Millis(1_050)));
    case.wait(49);
    assert_eq!(case.handle(Input::Tick).events, []);
    case.wait(1);
    assert_eq!(outline(&case.handle(Input::Tick)), ["a1 failed: a worker was lost", "w1 lost"]);
    assert_eq!(case.cluster.next_deadline(), None);
}

#[test]
fn a_heartbeat_extends_the_lease() {
    let mut case = Case::with_workers([1]);
    case.wait(40);
    let _ = case.heartbeat(W1, []);
    case.wait(40);
    assert_eq!(case.handle(Input::Tick).events, []);
    assert_eq!(case.cluster.next_deadline(), Some(Millis(1_090)));
}

#[test]
fn a_lost_worker_must_say_hello_again() {
    let mut case = Case::with_workers([1]);
    case.wait(50);
    let _ = case.handle(Input::Tick);
    let unknown = Reject::UnknownWorker(W1);
    assert_eq!(case.refuse(Input::Heartbeat { worker: W1, attempts: vec![] }), unknown);
    assert_eq!(case.refuse(Input::Ended { worker: W1, attempt: A1, end: success() }), unknown);
    assert_eq!(case.refuse(Input::Disconnected { worker: W1 }), unknown);
    assert_eq!(case.refuse(Input::WorkerLeft { worker: W1 }), unknown);
}

#[test]
fn a_worker_that_comes_back_with_other_slots_lost_its_attempts() {
    let mut case = Case::with_workers([2]);
    let _ = case.submit([train(1, 2)]);
    let step = case.hello(W1, 1, [runs(A1, 5)]);
    assert_eq!(outline(&step), ["a1 failed: a worker was lost", "w1 lost", "w1 joined with 1"]);
    assert!(step.effects.contains(&release(W1, A1)));
}

#[test]
fn a_worker_that_changed_only_its_host_keeps_its_attempts() {
    let mut case = Case::with_workers([1]);
    let _ = case.submit([train(1, 1)]);
    let attempts = vec![runs(A1, 5)];
    let (name, host) = (name(W1), "10.0.0.7".to_owned());
    let step = case.handle(Input::Hello {
        order: SessionOrder::default(),
        worker: W1,
        name,
        host,
        slots: 1,
        traits: Traits::default(),
        attempts,
    });
    assert_eq!(outline(&step), ["w1 joined with 1"]);
    assert_eq!(case.cluster.worker(W1).unwrap().worker.host, "10.0.0.7");
    assert!(case.cluster.is_current(A1, W1));
}

#[test]
fn a_worker_that_leaves_takes_its_gangs_with_it_at_no_charge() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 2)]);
    let step = case.handle(Input::WorkerLeft { worker: W2 });
    assert_eq!(outline(&step), ["a1 failed: a worker was lost", "w2 left"]);
    assert_eq!(step.effects, [release(W1, A1), release(W2, A1)]);
    assert_eq!(case.cluster.trial(T1).unwrap().failures[0].cause, FailureCause::WorkerLost);
    assert_eq!(case.cluster.trial(T1).unwrap().counted_failures, 0);
}

#[test]
fn after_a_restart_every_member_has_a_full_lease_and_nothing_new_until_it_says_hello() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 1)]);
    case.wait(500);
    case.restart();
    assert_eq!(case.cluster.next_deadline(), Some(Millis(1_550)));
    assert_eq!(outline(&case.submit([train(2, 1)])), ["t2 submitted", "e2 submitted"]);
    let heartbeat = Input::Heartbeat { worker: W2, attempts: vec![] };
    assert_eq!(case.refuse(heartbeat), Reject::UnknownWorker(W2));

    assert_eq!(case.hello(W1, 1, [runs(A1, 9)]).events, []);
    assert_eq!(outline(&case.hello(W2, 1, [])), ["a2 of t2 started on w2:1"]);
}

#[test]
fn an_attempt_that_a_crash_kept_from_being_launched_is_made_good_by_the_next_hello() {
    let mut case = Case::with_workers([1]);
    let lost = case.submit([train(1, 1)]);
    assert_eq!(lost.effects.len(), 1);
    case.restart();
    let step = case.hello(W1, 1, []);
    assert_eq!(outline(&step), ["a1 failed: a worker was lost", "a2 of t1 started on w1:1"]);
}

#[test]
fn nothing_new_is_placed_on_a_worker_whose_session_broke() {
    let mut case = Case::with_workers([1, 1]);
    let _ = case.submit([train(1, 1)]);
    let step = case.handle(Input::Disconnected { worker: W1 });
    assert_eq!((step.events, step.effects), (vec![], vec![]));
    assert_eq!(case.cluster.worker(W1).unwrap().session, Session::Awaited);
    assert!(case.cluster.is_current(A1, W1), "a broken session proves nothing about the attempt");

    let step = case.submit([train(2, 2)]);
    assert!(!step.events.iter().any(|event| matches!(event, Event::AttemptStarted { .. })));
    assert_eq!(
        outline(&case.hello(W1, 1, [ended(A1, Err(FailureCause::Preempted))]))[1],
        "a2 of t1 started on w1:1"
    );
}

#[test]
fn a_hello_that_a_later_one_overtook_is_refused_also_after_a_restart() {
    let mut case = Case::new();
    let hello = |start, session| {
        let (order, name, host) = (SessionOrder { start, session }, name(W1), name(W1));
        Input::Hello { worker: W1, order, name, host, slots: 1, traits: Traits::default(), attempts: vec![] }
    };
    assert_eq!(outline(&case.handle(hello(7, 2))), ["w1 opened 7.2", "w1 joined with 1"]);
    assert_eq!(outline(&case.handle(hello(7, 2))), [""; 0], "the same one, that the network doubled");
    let _ = case.handle(Input::WorkerLeft { worker: W1 });
    for _ in 0..2 {
        for (start, session) in [(6, 9), (7, 1)] {
            assert_eq!(case.refuse(hello(start, session)), Reject::Overtaken(W1));
        }
        case.restart();
    }
    assert_eq!(outline(&case.handle(hello(8, 1))), ["w1 opened 8.1", "w1 joined with 1"]);
    // Agents of older builds do not say which of their hellos it is.
    assert_eq!(outline(&case.handle(hello(0, 0))), [""; 0]);
}
