//! The agent's decisions, one at a time.

mod slots;
mod support;

use std::collections::VecDeque;
use std::time::Duration;

use common::result::{Checkpoint, MetricRow};
use common::session::{AttemptState, Blob, FromWorker, ToWorker};
use common::{Digest, FailureCause};
use worker_core::{Action, AttemptEvent, AttemptOrder, Input, Note, SpoolEvent, SpoolOrder};

use support::{A, B, C, Case, LEASE, launch};

/// Time after which trainers stand still: by order, and where no order comes.
const FENCE: Duration = Duration::from_millis(8_500);
const OWN_FENCE: Duration = Duration::from_millis(9_000);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_launch_starts_at_once_where_slots_are_free_and_waits_where_processes_hold_them() {
    let mut case = Case::connected(2);
    assert_eq!(case.started(case_launch(A, 2)), [A]);
    assert_eq!(case.started(case_launch(B, 1)), []);
    case.hear(ToWorker::Release { attempt: A });
    assert_eq!(case.started(Input::Timer), [], "its processes are not gone");
    assert_eq!(case.started(Input::Attempt(A, AttemptEvent::ProcessesGone)), [B]);
}

fn case_launch(attempt: common::AttemptId, ranks: u32) -> Input {
    Input::Message(worker_core::SessionNumber(1), ToWorker::Launch(Box::new(launch(attempt, ranks))))
}

#[test]
fn an_attempt_that_is_launched_twice_starts_once() {
    let mut case = Case::connected(2);
    assert_eq!(case.started(case_launch(A, 1)), [A]);
    assert_eq!(case.started(case_launch(A, 1)), []);
}

#[test]
fn an_attempt_that_waits_and_is_released_or_asked_to_give_way_ends_without_being_started() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.hear(ToWorker::Launch(Box::new(launch(B, 1))));
    case.hear(ToWorker::Launch(Box::new(launch(C, 1))));
    assert_eq!(case.hear(ToWorker::Release { attempt: B }), []);
    assert_eq!(case.hear(ToWorker::Preempt { attempt: C }), []);
    // What was released need not be told.
    assert_eq!(case.told(), [FromWorker::AttemptEnded { attempt: C, end: Err(FailureCause::Preempted) }]);
    assert_eq!(case.started(Input::Attempt(A, AttemptEvent::Ended(Ok(None)))), []);
}

#[test]
fn what_will_be_needed_is_fetched_until_the_worker_is_to_stop_and_holds_nothing() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    let blobs = vec![Blob { digest: Digest::of(b"network"), bytes: 7 }];
    let prefetch = ToWorker::Prefetch { blobs: blobs.clone() };
    assert_eq!(case.hear(prefetch.clone()), [Action::Prefetch(blobs)]);
    assert_eq!(case.heartbeat(), None, "it is nothing to report");
    case.handle(Input::Shutdown);
    assert_eq!(case.hear(prefetch), []);
}

#[test]
fn trainers_stand_still_when_the_lease_may_be_over_and_go_on_with_an_answer_that_names_them() {
    let mut case = Case::connected(2);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.hear(ToWorker::Launch(Box::new(launch(B, 1))));
    case.wait(FENCE - ms(1));
    assert_eq!(case.orders(Input::Timer), []);
    case.wait(ms(1));
    assert_eq!(case.orders(Input::Timer), [(A, AttemptOrder::Suspend), (B, AttemptOrder::Suspend)]);
    case.reconnect();
    // It hears for how long before it goes on.
    let until = AttemptOrder::Lease(case.now + OWN_FENCE);
    assert_eq!(case.orders(case.welcome([B])), [(B, until), (B, AttemptOrder::Resume)]);
    assert!(case.agent.is_suspended(A));
    assert_eq!(case.hear(ToWorker::Release { attempt: A }), [Action::Order(A, AttemptOrder::Stop)]);
}

#[test]
fn an_agent_that_slept_over_its_lease_suspends_before_it_does_anything_else() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.wait(LEASE * 100);
    // The answer waited in the socket: it was sent before the sleep.
    let actions = case.hear(ToWorker::HeartbeatAck { sequence: 1, current: vec![A] });
    assert_eq!(actions.first(), Some(&Action::Order(A, AttemptOrder::Suspend)), "{actions:?}");
    assert!(!actions.contains(&Action::Order(A, AttemptOrder::Resume)));
}

#[test]
fn an_answer_extends_the_lease_from_when_the_heartbeat_was_sent() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.wait(LEASE / 5);
    let sequence = case.heartbeat().unwrap();
    let sent = case.now;
    case.wait(LEASE / 5);
    case.hear(ToWorker::HeartbeatAck { sequence, current: vec![A] });
    assert_eq!(case.agent.lease().ends(), Some(sent + FENCE));
    case.hear(ToWorker::HeartbeatAck { sequence: sequence + 100, current: vec![A] });
    assert_eq!(case.agent.lease().ends(), Some(sent + FENCE), "it was never sent");
}

#[test]
fn trainers_are_told_at_their_start_and_with_each_answer_until_when_they_may_compute() {
    let mut case = Case::connected(2);
    let until = AttemptOrder::Lease(case.now + OWN_FENCE);
    let actions = case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    assert!(
        matches!(actions[..], [Action::Start(_), Action::Order(A, ref order)] if *order == until),
        "{actions:?}"
    );
    case.wait(LEASE / 5);
    let sequence = case.heartbeat().unwrap();
    let sent = case.now;
    case.wait(ms(300));
    // It was launched after the heartbeat was sent, so the answer does not name it.
    let until = AttemptOrder::Lease(sent + OWN_FENCE);
    let answer = case.message(ToWorker::HeartbeatAck { sequence, current: vec![] });
    assert_eq!(case.orders(answer), [(A, until)]);
    case.hear(ToWorker::Release { attempt: A });
    case.wait(LEASE / 5);
    let sequence = case.heartbeat().unwrap();
    let answer = case.message(ToWorker::HeartbeatAck { sequence, current: vec![] });
    assert_eq!(case.orders(answer), [], "it is to end, not to go on");
}

#[test]
fn an_attempt_that_comes_while_the_lease_is_in_doubt_waits_until_it_is_named() {
    let mut case = Case::connected(1);
    case.wait(LEASE);
    let input = case.message(ToWorker::Launch(Box::new(launch(A, 1))));
    assert_eq!(case.started(input), []);
    case.reconnect();
    assert_eq!(case.started(case.welcome([])), []);
    case.wait(LEASE / 5);
    let sequence = case.heartbeat().unwrap();
    let ack = case.message(ToWorker::HeartbeatAck { sequence, current: vec![A] });
    assert_eq!(case.started(ack), [A]);
}

#[test]
fn what_waits_to_be_named_holds_up_nobody() {
    let mut case = Case::connected(1);
    case.wait(LEASE);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.reconnect();
    case.handle(case.welcome([]));
    let input = case.message(ToWorker::Launch(Box::new(launch(B, 1))));
    assert_eq!(case.started(input), [B]);
}

#[test]
fn a_coordinator_that_is_down_costs_nobody_a_trainer_however_long() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    let mut dials = 0;
    case.handle(Input::SessionLost(case.session()));
    let end = case.now + LEASE * 50;
    while case.now < end {
        let actions = case.handle_due();
        let orders = |action: &Action| matches!(action, Action::Order(_, AttemptOrder::Suspend));
        assert!(!actions.iter().any(orders), "{actions:?}");
        if actions.iter().any(|action| matches!(action, Action::Dial { .. })) {
            dials += 1;
            // A full lease begins when it is back, so trainers need not stop either.
            let until = AttemptOrder::Lease(case.now + OWN_FENCE);
            assert_eq!(case.orders(Input::CoordinatorDown(case.session())), [(A, until)]);
        }
    }
    assert!(dials >= 50 * 5, "{dials} dials in 50 leases");
}

#[test]
fn a_coordinator_that_cannot_be_reached_is_no_coordinator_that_is_down() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.handle(Input::SessionLost(case.session()));
    let mut orders = Vec::new();
    let end = case.now + LEASE;
    while case.now < end {
        let actions = case.handle_due();
        let dialled = actions.iter().any(|action| matches!(action, Action::Dial { .. }));
        orders.extend(actions.into_iter().filter(|action| matches!(action, Action::Order(..))));
        if dialled {
            case.handle(Input::SessionLost(case.session()));
        }
    }
    assert_eq!(orders, [Action::Order(A, AttemptOrder::Suspend)]);
}

#[test]
fn a_refusal_after_the_lease_was_in_doubt_lets_nobody_go_on() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.wait(LEASE);
    case.reconnect_dialled();
    assert_eq!(case.orders(Input::CoordinatorDown(case.session())), []);
    assert!(case.agent.is_suspended(A));
}

#[test]
fn a_session_on_which_nothing_is_answered_is_given_up_for_another() {
    let mut case = Case::connected(1);
    case.wait(LEASE / 2);
    let actions = case.handle(Input::Timer);
    assert!(actions.contains(&Action::HangUp(worker_core::SessionNumber(1))), "{actions:?}");
    case.wait(LEASE / 10);
    assert!(case.handle(Input::Timer).iter().any(|action| matches!(action, Action::Dial { .. })));
    let late = worker_core::SessionNumber(1);
    let input = Input::Message(late, ToWorker::Launch(Box::new(launch(A, 1))));
    assert_eq!(case.handle(input), [], "what an old session says counts no more");
}

#[test]
fn a_dial_that_is_not_answered_is_given_up() {
    let mut case = Case::new(1);
    case.handle(Input::Timer);
    case.wait(case.agent.next_deadline());
    let actions = case.handle(Input::Timer);
    assert!(matches!(actions[..], [Action::HangUp(_)]), "{actions:?}");
}

#[test]
fn the_pause_before_a_dial_grows_and_stays_short() {
    let mut case = Case::connected(1);
    case.handle(Input::SessionLost(case.session()));
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let due = case.agent.next_deadline();
        pauses.push(due - case.now);
        case.now = due;
        case.handle(Input::Timer);
        case.handle(Input::SessionLost(case.session()));
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!(pauses.first(), Some(&ms(50)));
    assert_eq!(pauses.last(), Some(&(LEASE / 10).min(ms(1_000))));
}

#[test]
fn a_new_session_is_told_what_is_held_and_an_incident_that_nobody_heard() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.handle(Input::SessionLost(case.session()));
    let (pattern, line) = ("ecc".to_owned(), "uncorrectable".to_owned());
    let incident = AttemptEvent::Note(Note::Incident { rank: 0, pattern, line, quarantine: true });
    case.handle(Input::Attempt(A, incident));
    assert_eq!(case.told(), []);
    let hello = case.reconnect();
    assert!(matches!(hello[..], [ref report] if report.attempt == A
        && matches!(report.state, AttemptState::Running { .. })));
    case.handle(case.welcome([A]));
    assert!(matches!(case.told()[..], [FromWorker::Incident { attempt: A, quarantine: true, .. }]));
}

#[test]
fn an_agent_that_is_asked_to_stop_ends_when_its_processes_are_gone() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.hear(ToWorker::Launch(Box::new(launch(B, 1))));
    assert_eq!(case.handle(Input::Shutdown), [Action::Order(A, AttemptOrder::Stop)]);
    assert_eq!(case.hear(ToWorker::Launch(Box::new(launch(C, 1)))), []);
    assert_eq!(case.handle(Input::Attempt(A, AttemptEvent::ProcessesGone)), [Action::Exit]);
}

fn rows(count: usize) -> Input {
    let row = |step| MetricRow { step: step as u64, name: "loss".to_owned(), value: 0.5 };
    Input::Attempt(A, AttemptEvent::Metrics((0..count).map(row).collect()))
}

/// Lets the attempt report so many rows; returns what the disk was asked to write.
fn spooled(case: &mut Case, reports: usize) -> Vec<SpoolOrder> {
    let mut orders = Vec::new();
    for _ in 0..reports {
        let mut actions = case.handle(rows(100));
        while let Some(Action::Spool(A, order)) = actions.pop() {
            if let SpoolOrder::Write { .. } = order {
                actions.extend(case.handle(Input::Spool(A, SpoolEvent::Written { bytes: 1 })));
            }
            orders.push(order);
        }
    }
    orders
}

#[test]
fn rows_go_to_the_disk_only_where_there_is_a_spool_and_the_coordinator_does_not_take_them() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    assert_eq!(spooled(&mut case, 1_000), []);

    let mut case = Case::connected_with_spool(1, 1 << 30);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    for sequence in 1..=1_000 {
        assert_eq!(spooled(&mut case, 1), []);
        assert!(matches!(case.told()[..], [FromWorker::Metrics { .. }]));
        case.hear(ToWorker::MetricAck { attempt: A, sequence });
    }
    case.handle(Input::SessionLost(case.session()));
    let orders = spooled(&mut case, 1_000);
    assert!(orders.len() > 3, "{} pages", orders.len());
    assert!(orders.iter().all(|order| matches!(order, SpoolOrder::Write { .. })));
    assert!(case.agent.rows_memory() < 2 << 20, "{} bytes", case.agent.rows_memory());
}

#[test]
fn an_attempt_has_the_share_of_the_disk_that_its_slots_are_of_the_workers() {
    for (ranks, pages) in [(1, 2), (3, 6)] {
        let mut case = Case::connected_with_spool(4, 8);
        case.hear(ToWorker::Launch(Box::new(launch(A, ranks))));
        // Each page takes 1.
        let orders = spooled(&mut case, 2_000);
        let written = orders.iter().filter(|order| matches!(order, SpoolOrder::Write { .. })).count();
        let removed = orders.iter().filter(|order| matches!(order, SpoolOrder::Remove { .. })).count();
        assert!(written > pages && written - removed == pages, "{written} written, {removed} removed");
    }
}

#[test]
fn a_checkpoint_whose_rows_take_long_is_told_in_a_session_that_is_up() {
    let mut case = Case::connected(1);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    for _ in 0..1_000 {
        case.handle(rows(1));
    }
    let checkpoint = Checkpoint::new(1, Digest::of(b""), 0);
    case.handle(Input::Attempt(A, AttemptEvent::Checkpoint(checkpoint)));
    let is_checkpoint = |message: &FromWorker| matches!(message, FromWorker::CheckpointStored { .. });
    let until = case.now + LEASE * 3;
    let mut told = case.told();
    while case.now < until {
        assert!(!told.iter().any(is_checkpoint), "it comes after its rows");
        if let Some(sequence) = case.heartbeat() {
            case.hear(ToWorker::HeartbeatAck { sequence, current: vec![A] });
        }
        told = case.told();
        if told.iter().any(is_checkpoint) {
            return;
        }
        case.now = case.agent.next_deadline();
    }
    panic!("it was not told");
}

#[test]
fn rows_of_a_long_absence_are_told_once_and_in_order_and_the_end_after_them() {
    let mut case = Case::connected_with_spool(1, 1 << 30);
    case.hear(ToWorker::Launch(Box::new(launch(A, 1))));
    case.handle(Input::SessionLost(case.session()));
    let mut disk = VecDeque::new();
    let mut memory = 0;
    let mut input = |case: &mut Case, input| {
        let mut actions = case.handle(input);
        while let Some(Action::Spool(A, order)) = actions.pop() {
            let event = match order {
                SpoolOrder::Write { reports, .. } => {
                    disk.push_back(reports);
                    SpoolEvent::Written { bytes: 1 }
                }
                SpoolOrder::Read { .. } => SpoolEvent::Read { reports: disk.pop_front().unwrap() },
                SpoolOrder::Remove { .. } => panic!("there is space for all"),
            };
            actions.extend(case.handle(Input::Spool(A, event)));
        }
        memory = memory.max(case.agent.rows_memory());
        disk.len()
    };
    const REPORTS: u64 = 5_000;
    for _ in 0..REPORTS {
        input(&mut case, rows(100));
    }
    let pages = input(&mut case, Input::Attempt(A, AttemptEvent::Ended(Ok(None))));
    assert!(pages > 30, "{pages} pages");

    case.reconnect();
    let welcome = case.welcome([A]);
    input(&mut case, welcome);
    let mut expected = 1;
    loop {
        let told = case.told();
        assert!(!told.is_empty(), "{expected} of {REPORTS} are told");
        for message in told {
            if let FromWorker::Metrics { sequence, .. } = message {
                assert_eq!(sequence, expected);
                expected += 1;
                let ack = case.message(ToWorker::MetricAck { attempt: A, sequence });
                input(&mut case, ack);
            } else {
                assert_eq!(message, FromWorker::AttemptEnded { attempt: A, end: Ok(None) });
                assert_eq!(expected, REPORTS + 1, "the end comes last");
                assert!(memory < 2 << 20, "{memory} bytes");
                return;
            }
        }
    }
}
