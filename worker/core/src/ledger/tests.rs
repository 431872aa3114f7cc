use super::*;

const A: AttemptId = AttemptId(1);
const B: AttemptId = AttemptId(2);

fn told(ledger: &mut Ledger) -> Vec<FromWorker> {
    let mut messages = Vec::new();
    ledger.tell(|message| {
        messages.push(message);
        true
    });
    messages
}

fn row(step: u64) -> Vec<MetricRow> {
    vec![MetricRow { step, name: "loss".to_owned(), value: 1.0 }]
}

fn checkpoint(step: u64) -> Checkpoint {
    Checkpoint::new(step, Digest::of(&step.to_le_bytes()), 8)
}

fn ended_attempt() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.admit(A, 2);
    ledger.rows(A, row(1));
    ledger.checkpoint(Duration::ZERO, A, checkpoint(1));
    ledger.processes_gone(A);
    ledger.ended(A, Ok(None));
    ledger
}

#[test]
fn the_end_is_told_after_the_checkpoint_and_that_after_its_rows() {
    let messages = told(&mut ended_attempt());
    assert!(matches!(
        messages[..],
        [FromWorker::Metrics { .. }, FromWorker::CheckpointStored { .. }, FromWorker::AttemptEnded { .. }]
    ));
}

#[test]
fn a_new_session_calls_an_ended_attempt_running_until_it_was_told_the_rest() {
    let mut ledger = ended_attempt();
    told(&mut ledger);
    assert!(matches!(ledger.reports()[0].state, AttemptState::Ended(_)));
    let hello = ledger.begin_session();
    assert!(matches!(hello[0].state, AttemptState::Running { .. }));
    assert_eq!(told(&mut ledger).len(), 3);
}

#[test]
fn rows_are_told_again_until_acknowledged() {
    let mut ledger = Ledger::default();
    ledger.admit(A, 1);
    ledger.rows(A, row(1));
    ledger.rows(A, row(2));
    assert_eq!(told(&mut ledger).len(), 2);
    assert_eq!(told(&mut ledger).len(), 0);
    ledger.acknowledge(A, 1);
    ledger.begin_session();
    let again = told(&mut ledger);
    assert!(matches!(again[..], [FromWorker::Metrics { sequence: 2, .. }]), "{again:?}");
}

#[test]
fn a_message_without_room_is_told_next_time() {
    let mut ledger = ended_attempt();
    let mut room = 1;
    ledger.tell(|_| {
        room -= 1;
        room >= 0
    });
    assert_eq!(told(&mut ledger).len(), 2);
}

#[test]
fn slots_are_used_until_the_processes_are_gone() {
    let mut ledger = Ledger::default();
    ledger.admit(A, 2);
    ledger.release(A);
    assert_eq!(ledger.slots_used(), 2);
    assert_eq!(ledger.reports().len(), 1, "a released attempt that still holds slots is reported");
    ledger.processes_gone(A);
    assert_eq!(ledger.slots_used(), 0);
    assert!(ledger.reports().is_empty());
}

#[test]
fn a_released_attempt_is_forgotten_once_its_logs_are_told() {
    let mut ledger = ended_attempt();
    ledger.log(A, 0, Digest::of(b"log"), 3);
    ledger.release(A);
    assert_eq!(ledger.forget(), []);
    let messages = told(&mut ledger);
    assert!(messages.iter().any(|message| matches!(message, FromWorker::LogStored { .. })));
    assert_eq!(ledger.forget(), [A]);
}

#[test]
fn only_the_newest_checkpoint_is_told() {
    let mut ledger = Ledger::default();
    ledger.admit(A, 1);
    ledger.checkpoint(Duration::ZERO, A, checkpoint(1));
    ledger.checkpoint(Duration::ZERO, A, checkpoint(2));
    let messages = told(&mut ledger);
    assert_eq!(messages, [FromWorker::CheckpointStored { attempt: A, checkpoint: checkpoint(2) }]);
}

#[test]
fn remains_are_kept_until_their_logs_are_told_and_never_reported() {
    let mut ledger = Ledger::default();
    ledger.admit_remains(A);
    assert!(ledger.reports().is_empty());
    assert_eq!(ledger.forget(), []);
    ledger.log(A, 0, Digest::of(b"log"), 3);
    ledger.processes_gone(A);
    assert_eq!(ledger.forget(), []);
    assert_eq!(told(&mut ledger).len(), 1);
    assert_eq!(ledger.forget(), [A]);
}

#[test]
fn an_attempt_is_admitted_once() {
    let mut ledger = Ledger::default();
    assert!(ledger.admit(A, 1));
    assert!(!ledger.admit(A, 1));
}

#[test]
fn rows_that_are_measured_after_a_checkpoint_do_not_hold_it_up() {
    let mut ledger = Ledger::default();
    ledger.admit(A, 1);
    ledger.rows(A, row(1));
    ledger.checkpoint(Duration::ZERO, A, checkpoint(1));
    ledger.rows(A, row(2));
    let messages = told(&mut ledger);
    assert!(
        matches!(
            messages[..],
            [
                FromWorker::Metrics { sequence: 1, .. },
                FromWorker::CheckpointStored { .. },
                FromWorker::Metrics { sequence: 2, .. }
            ]
        ),
        "{messages:?}"
    );
}

/// A ledger whose window is full of rows that nobody acknowledges, and a checkpoint at `at` that comes after more.
fn busy_ledger(at: Duration) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.admit(A, 1);
    for step in 1..=2 * WINDOW as u64 {
        ledger.rows(A, row(step));
    }
    ledger.checkpoint(at, A, checkpoint(2));
    assert_eq!(told(&mut ledger).len(), WINDOW);
    ledger
}

#[test]
fn a_checkpoint_waits_for_its_rows_but_not_for_long() {
    let mut ledger = busy_ledger(Duration::ZERO);
    let begun = Duration::from_secs(100);
    ledger.hurry(begun + CHECKPOINT_BEHIND_ROWS - Duration::from_millis(1), begun);
    assert_eq!(told(&mut ledger), []);
    ledger.hurry(begun + CHECKPOINT_BEHIND_ROWS, begun);
    assert_eq!(told(&mut ledger), [FromWorker::CheckpointStored { attempt: A, checkpoint: checkpoint(2) }]);
    ledger.begin_session();
    assert_eq!(told(&mut ledger).len(), WINDOW, "the next session has patience again");
}

#[test]
fn a_checkpoint_that_takes_the_place_of_one_that_waits_has_waited_as_long() {
    let mut ledger = busy_ledger(Duration::ZERO);
    ledger.checkpoint(CHECKPOINT_BEHIND_ROWS / 2, A, checkpoint(3));
    ledger.hurry(CHECKPOINT_BEHIND_ROWS, Duration::ZERO);
    assert_eq!(told(&mut ledger), [FromWorker::CheckpointStored { attempt: A, checkpoint: checkpoint(3) }]);
}

#[test]
fn the_end_waits_for_rows_behind_the_window() {
    let mut ledger = busy_ledger(Duration::ZERO);
    ledger.ended(A, Ok(None));
    ledger.acknowledge(A, 1);
    assert_eq!(told(&mut ledger).len(), 1, "rows, and no end");
    ledger.acknowledge(A, WINDOW as u64);
    assert!(matches!(
        told(&mut ledger)[..],
        [.., FromWorker::CheckpointStored { .. }, FromWorker::AttemptEnded { .. }]
    ));
}

#[test]
fn an_attempt_with_many_rows_does_not_hold_up_another_and_all_together_fill_one_window() {
    let mut ledger = busy_ledger(Duration::ZERO);
    ledger.admit(B, 1);
    ledger.rendezvous(B, "host:1".to_owned());
    ledger.rows(B, row(1));
    ledger.rows(B, row(2));
    ledger.ended(B, Ok(None));
    let messages = told(&mut ledger);
    assert!(matches!(messages[..], [FromWorker::RendezvousOpened { attempt: B, .. }]), "{messages:?}");
    // Room that is made by either goes to the one that has told less.
    ledger.acknowledge(A, 2);
    let messages = told(&mut ledger);
    assert!(
        matches!(
            messages[..],
            [
                FromWorker::Metrics { attempt: B, sequence: 1, .. },
                FromWorker::Metrics { attempt: B, sequence: 2, .. },
                FromWorker::AttemptEnded { attempt: B, .. }
            ]
        ),
        "{messages:?}"
    );
}

#[test]
fn an_attempt_is_not_forgotten_while_the_disk_writes_its_rows() {
    let mut ledger = Ledger::default().with_spool(Spool::of(u64::MAX));
    ledger.admit(A, 1);
    let order = (0..100_000).find_map(|step| {
        ledger.rows(A, row(step));
        ledger.spool_orders().next()
    });
    let Some((A, SpoolOrder::Write { reports, .. })) = order else { panic!("{order:?}") };
    ledger.release(A);
    ledger.ended(A, Err(common::FailureCause::Preempted));
    assert_eq!(ledger.forget(), []);
    ledger.spooled(A, SpoolEvent::NotWritten { reports, message: String::new() });
    assert_eq!(ledger.forget(), [A]);
}

#[test]
fn an_attempt_that_warns_in_a_loop_takes_no_more_memory_and_says_how_often_before_it_ends() {
    let mut ledger = Ledger::default();
    ledger.admit(A, 1);
    for number in 0..10_000 {
        ledger.note(A, Note::Warning(number.to_string()));
    }
    let before = told(&mut ledger).len();
    assert!(before < 200, "{before} warnings");
    ledger.note(A, Note::Warning("the last".to_owned()));
    ledger.ended(A, Ok(None));
    let messages = told(&mut ledger);
    assert!(
        matches!(&messages[..], [FromWorker::Warning { message, .. }, FromWorker::AttemptEnded { .. }]
            if message == "the last (the newest of 9901 more)"),
        "{messages:?}"
    );
}

#[test]
fn rows_of_a_checkpoint_that_did_not_wait_for_them_are_counted_when_their_attempt_is_given_up() {
    for in_a_hurry in [false, true] {
        let mut ledger = busy_ledger(Duration::ZERO);
        if in_a_hurry {
            ledger.hurry(CHECKPOINT_BEHIND_ROWS, Duration::ZERO);
            assert_eq!(told(&mut ledger).len(), 1, "the checkpoint");
        }
        ledger.release(A);
        let warning = format!(
            "{WINDOW} metric rows were dropped: the attempt was given up before the coordinator took them"
        );
        let expected = FromWorker::Warning { attempt: A, message: warning };
        assert_eq!(told(&mut ledger), in_a_hurry.then_some(expected).into_iter().collect::<Vec<_>>());
    }
}
