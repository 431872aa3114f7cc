//! What the agent must not forget: every attempt it holds, and what it has yet to tell the coordinator of each.
//!
//! A session may break at any moment, so nothing counts as told until the attempt is released or, for metric rows,
//! acknowledged. Each new session is told everything again, in an order that the coordinator relies on:
//! the end of an attempt comes after its checkpoints and rows. Until a session was told the end, reports in
//! that session call the attempt running.

use std::collections::{BTreeMap, VecDeque};

use common::result::{Checkpoint, MetricRow};
use common::session::{AttemptEnd, AttemptReport, AttemptState, FromWorker};
use common::{AttemptId, Digest};

/// Rows kept of one attempt while the coordinator is away.
const MAX_UNACKNOWLEDGED_ROWS: usize = 1_000_000;

/// Something true of an attempt that the coordinator must hear. A newer one under the same key replaces an older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FactKey {
    Rendezvous,
    Damaged(Digest),
    Checkpoint,
    Warning(usize),
    Incident(usize),
    Log(u32),
}

#[derive(Debug)]
struct Fact {
    message: FromWorker,
    told: bool,
}

/// An attempt on this worker.
#[derive(Debug)]
struct Held {
    ranks: u32,
    step: u64,
    rendezvous: Option<String>,
    /// Whether processes may be alive; they hold `ranks` slots.
    alive: bool,
    end: Option<AttemptEnd>,
    /// Whether the present session was told the end.
    end_told: bool,
    /// The coordinator wants no more of it.
    released: bool,
    facts: BTreeMap<FactKey, Fact>,
    rows: VecDeque<(u64, Vec<MetricRow>)>,
    unacknowledged_rows: usize,
    next_sequence: u64,
    /// Newest sequence number that the present session was told.
    told_sequence: u64,
}

/// Every attempt that the worker holds.
#[derive(Debug, Default)]
pub struct Ledger {
    held: BTreeMap<AttemptId, Held>,
}

impl Ledger {
    /// Takes an attempt in. Its slots count as used from now on. False if it is known.
    pub fn admit(&mut self, attempt: AttemptId, ranks: u32) -> bool {
        if self.held.contains_key(&attempt) {
            return false;
        }
        let held = Held {
            ranks,
            step: 0,
            rendezvous: None,
            alive: true,
            end: None,
            end_told: false,
            released: false,
            facts: BTreeMap::new(),
            rows: VecDeque::new(),
            unacknowledged_rows: 0,
            next_sequence: 1,
            told_sequence: 0,
        };
        self.held.insert(attempt, held);
        true
    }

    /// Takes in what an earlier agent on this folder left of an attempt: only logs. They are being stored until
    /// [`Self::processes_gone`]; the coordinator is told of them, but not that the attempt is here.
    pub fn admit_remains(&mut self, attempt: AttemptId) {
        self.admit(attempt, 0);
        self.release(attempt);
    }

    /// Slots whose processes may be alive.
    pub fn slots_used(&self) -> u32 {
        self.held.values().filter(|held| held.alive).map(|held| held.ranks).sum()
    }

    /// Attempts whose processes may be alive.
    pub fn alive(&self) -> Vec<AttemptId> {
        self.held
            .iter()
            .filter(|(_, held)| held.alive && held.ranks > 0)
            .map(|(&attempt, _)| attempt)
            .collect()
    }

    /// Attempts whose processes may be alive and that the coordinator did not release.
    pub fn current(&self) -> Vec<AttemptId> {
        let current = self.held.iter().filter(|(_, held)| held.alive && held.ranks > 0 && !held.released);
        current.map(|(&attempt, _)| attempt).collect()
    }

    /// Rank 0 hosts the rendezvous store.
    pub fn rendezvous(&mut self, attempt: AttemptId, address: String) {
        self.with(attempt, |held| held.rendezvous = Some(address.clone()));
        self.fact(attempt, FactKey::Rendezvous, FromWorker::RendezvousOpened { attempt, address });
    }

    /// The attempt made steps.
    pub fn progress(&mut self, attempt: AttemptId, step: u64) {
        self.with(attempt, |held| held.step = held.step.max(step));
    }

    /// A checkpoint is stored.
    pub fn checkpoint(&mut self, attempt: AttemptId, checkpoint: Checkpoint) {
        self.fact(attempt, FactKey::Checkpoint, FromWorker::CheckpointStored { attempt, checkpoint });
    }

    /// A checkpoint did not load.
    pub fn damaged(&mut self, attempt: AttemptId, digest: Digest, message: String) {
        let fact = FromWorker::CheckpointDamaged { attempt, digest, message };
        self.fact(attempt, FactKey::Damaged(digest), fact);
    }

    /// Something that the user should know.
    pub fn warning(&mut self, attempt: AttemptId, message: String) {
        let count = self.held.get(&attempt).map_or(0, |held| held.facts.len());
        self.fact(attempt, FactKey::Warning(count), FromWorker::Warning { attempt, message });
    }

    /// A line of a rank's log matched a pattern.
    pub fn incident(&mut self, attempt: AttemptId, message: FromWorker) {
        let count = self.held.get(&attempt).map_or(0, |held| held.facts.len());
        self.fact(attempt, FactKey::Incident(count), message);
    }

    /// The log of a rank is stored.
    pub fn log(&mut self, attempt: AttemptId, rank: u32, digest: Digest, bytes: u64) {
        self.fact(attempt, FactKey::Log(rank), FromWorker::LogStored { attempt, rank, digest, bytes });
    }

    /// Rows were measured.
    pub fn rows(&mut self, attempt: AttemptId, rows: Vec<MetricRow>) {
        self.with(attempt, |held| {
            held.unacknowledged_rows += rows.len();
            held.rows.push_back((held.next_sequence, rows));
            held.next_sequence += 1;
            while held.unacknowledged_rows > MAX_UNACKNOWLEDGED_ROWS {
                let Some((sequence, rows)) = held.rows.pop_front() else { break };
                held.unacknowledged_rows -= rows.len();
                tracing::warn!(%attempt, sequence, rows = rows.len(), "the coordinator is away too long: rows are dropped");
            }
        });
    }

    /// The coordinator has every report up to `sequence`.
    pub fn acknowledge(&mut self, attempt: AttemptId, sequence: u64) {
        self.with(attempt, |held| {
            while held.rows.front().is_some_and(|&(first, _)| first <= sequence) {
                if let Some((_, rows)) = held.rows.pop_front() {
                    held.unacknowledged_rows -= rows.len();
                }
            }
        });
    }

    /// The last process is gone: the slots are free.
    pub fn processes_gone(&mut self, attempt: AttemptId) {
        self.with(attempt, |held| held.alive = false);
    }

    /// The attempt is over and everything it left is stored.
    pub fn ended(&mut self, attempt: AttemptId, end: AttemptEnd) {
        self.with(attempt, |held| {
            held.alive = false;
            held.end = Some(end);
        });
    }

    /// The coordinator wants no more of it.
    pub fn release(&mut self, attempt: AttemptId) {
        self.with(attempt, |held| held.released = true);
    }

    /// A session begins: all is to be told again. Returns the state of each attempt, for the hello.
    pub fn begin_session(&mut self) -> Vec<AttemptReport> {
        for held in self.held.values_mut() {
            held.end_told = false;
            held.told_sequence = 0;
            for fact in held.facts.values_mut() {
                fact.told = false;
            }
        }
        self.reports()
    }

    /// State of each attempt that the coordinator still counts on, or that still holds slots.
    pub fn reports(&self) -> Vec<AttemptReport> {
        let shown = self.held.iter().filter(|(_, held)| held.ranks > 0 && (held.alive || !held.released));
        shown
            .map(|(&attempt, held)| {
                let state = match &held.end {
                    Some(end) if held.end_told => AttemptState::Ended(end.clone()),
                    Some(_) | None => {
                        AttemptState::Running { rendezvous: held.rendezvous.clone(), step: held.step }
                    }
                };
                AttemptReport { attempt, state }
            })
            .collect()
    }

    /// Hands what the present session was not told yet to `tell`, in order, until `tell` has no room (false).
    pub fn tell(&mut self, mut tell: impl FnMut(FromWorker) -> bool) {
        for (&attempt, held) in &mut self.held {
            for fact in held.facts.values_mut().filter(|fact| !fact.told) {
                if !tell(fact.message.clone()) {
                    return;
                }
                fact.told = true;
            }
            // What an attempt measured after it was given up is of no use to anyone.
            if held.released {
                continue;
            }
            let told = held.told_sequence;
            for (sequence, rows) in held.rows.iter().filter(|&&(sequence, _)| sequence > told) {
                if !tell(FromWorker::Metrics { attempt, sequence: *sequence, rows: rows.clone() }) {
                    return;
                }
                held.told_sequence = *sequence;
            }
            if let Some(end) = held.end.as_ref().filter(|_| !held.end_told) {
                if !tell(FromWorker::AttemptEnded { attempt, end: end.clone() }) {
                    return;
                }
                held.end_told = true;
            }
        }
    }

    /// Forgets attempts that are released, gone, and told to the end. Returns them.
    pub fn forget(&mut self) -> Vec<AttemptId> {
        let done = |held: &Held| {
            let over = held.end.is_some() || held.ranks == 0;
            held.released && !held.alive && over && held.facts.values().all(|fact| fact.told)
        };
        let gone: Vec<AttemptId> =
            self.held.iter().filter(|(_, held)| done(held)).map(|(&attempt, _)| attempt).collect();
        for attempt in &gone {
            self.held.remove(attempt);
        }
        gone
    }

    fn fact(&mut self, attempt: AttemptId, key: FactKey, message: FromWorker) {
        self.with(attempt, |held| {
            held.facts.insert(key, Fact { message, told: false });
        });
    }

    fn with(&mut self, attempt: AttemptId, change: impl FnOnce(&mut Held)) {
        if let Some(held) = self.held.get_mut(&attempt) {
            change(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AttemptId = AttemptId(1);

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
        Checkpoint { step, digest: Digest::of(&step.to_le_bytes()), bytes: 8 }
    }

    fn ended_attempt() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.admit(A, 2);
        ledger.rows(A, row(1));
        ledger.checkpoint(A, checkpoint(1));
        ledger.processes_gone(A);
        ledger.ended(A, Ok(None));
        ledger
    }

    #[test]
    fn the_end_is_told_after_checkpoint_and_rows() {
        let messages = told(&mut ended_attempt());
        assert!(matches!(
            messages[..],
            [
                FromWorker::CheckpointStored { .. },
                FromWorker::Metrics { .. },
                FromWorker::AttemptEnded { .. }
            ]
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
        ledger.checkpoint(A, checkpoint(1));
        ledger.checkpoint(A, checkpoint(2));
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
}
