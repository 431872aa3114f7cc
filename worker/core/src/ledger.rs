//! What the agent must not forget: every attempt it holds, and what it has yet to tell the coordinator of each.
//!
//! A session may break at any moment, so nothing counts as told until the attempt is released or, for metric rows,
//! acknowledged. Each new session is told everything again, in an order that the coordinator relies on:
//! the end of an attempt comes after its checkpoints and rows. Until a session was told the end, reports in
//! that session call the attempt running.
//!
//! A checkpoint comes after the rows that were measured before it. So whoever goes on from a checkpoint that was committed leaves no
//! gap in the curves, though this agent, or its machine, is lost with what it has not told. But it does not wait long for
//! them: after days without a coordinator there are rows for minutes, and what was computed is worth more than its curves.

use std::collections::BTreeMap;
use std::time::Duration;

use common::result::{Checkpoint, MetricRow};
use common::session::{AttemptEnd, AttemptReport, AttemptState, FromWorker};
use common::timeouts::ranks::CHECKPOINT_BEHIND_ROWS;
use common::{AttemptId, Digest};

use crate::notes::Notes;
use crate::rows::{RowQueue, Spool};
use crate::{Note, SpoolEvent, SpoolOrder};

/// Reports of rows, of all attempts together, that a session is told before one of them is acknowledged. What is more urgent, like a
/// heartbeat, waits behind so many at most, however many rows there are. A coordinator queues twice as many messages for a session, so
/// no acknowledgement is dropped.
const WINDOW: usize = 128;

/// Something true of an attempt that the coordinator must hear. A newer one under the same key replaces an older.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FactKey {
    Rendezvous,
    Damaged(Digest),
    Log(u32),
}

#[derive(Debug)]
struct Fact {
    message: FromWorker,
    told: bool,
}

/// The newest checkpoint of an attempt.
#[derive(Debug)]
struct Saved {
    checkpoint: Checkpoint,
    /// Newest report of rows that were measured before it.
    rows: u64,
    /// Since when one has waited to be told.
    since: Duration,
    /// It waits for its rows no longer.
    overdue: bool,
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
    notes: Notes,
    rows: RowQueue,
    saved: Option<Saved>,
}

/// Every attempt that the worker holds.
#[derive(Debug, Default)]
pub struct Ledger {
    held: BTreeMap<AttemptId, Held>,
    /// What the disk takes of the rows of an attempt, for each of its ranks.
    spool: Spool,
}

impl Ledger {
    /// One that may keep rows on the disk: so much for each rank.
    pub fn with_spool(self, spool: Spool) -> Self {
        Self { spool, ..self }
    }

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
            notes: Notes::default(),
            rows: RowQueue::new(Spool {
                bytes: self.spool.bytes.saturating_mul(u64::from(ranks)),
                ..self.spool
            }),
            saved: None,
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

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether the attempt is held and has not ended.
    pub fn is_open(&self, attempt: AttemptId) -> bool {
        self.held.get(&attempt).is_some_and(|held| held.end.is_none())
    }

    /// Whether the coordinator wants no more of the attempt.
    pub fn is_released(&self, attempt: AttemptId) -> bool {
        self.held.get(&attempt).is_some_and(|held| held.released)
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

    /// A checkpoint is stored, at time `now`.
    pub fn checkpoint(&mut self, now: Duration, attempt: AttemptId, checkpoint: Checkpoint) {
        self.with(attempt, |held| {
            // One that takes the place of another has waited as long, or frequent ones would never be told.
            let waits = held.saved.as_ref().filter(|saved| !saved.told);
            let (since, overdue) = waits.map_or((now, false), |saved| (saved.since, saved.overdue));
            held.saved = Some(Saved { checkpoint, rows: held.rows.newest(), since, overdue, told: false });
        });
    }

    /// It is `now`, in a session that began at `begun`.
    pub fn hurry(&mut self, now: Duration, begun: Duration) {
        for saved in self.held.values_mut().filter_map(|held| held.saved.as_mut()) {
            saved.overdue |= now >= saved.since.max(begun) + CHECKPOINT_BEHIND_ROWS;
        }
    }

    /// A checkpoint did not load.
    pub fn damaged(&mut self, attempt: AttemptId, digest: Digest, message: String) {
        let fact = FromWorker::CheckpointDamaged { attempt, digest, message };
        self.fact(attempt, FactKey::Damaged(digest), fact);
    }

    /// Something that the user should know.
    pub fn note(&mut self, attempt: AttemptId, note: Note) {
        self.with(attempt, |held| held.notes.push(note));
    }

    /// The log of a rank is stored.
    pub fn log(&mut self, attempt: AttemptId, rank: u32, digest: Digest, bytes: u64) {
        self.fact(attempt, FactKey::Log(rank), FromWorker::LogStored { attempt, rank, digest, bytes });
    }

    /// Rows were measured.
    pub fn rows(&mut self, attempt: AttemptId, rows: Vec<MetricRow>) {
        self.with(attempt, |held| held.rows.push(rows));
    }

    /// The coordinator has every report up to `sequence`.
    pub fn acknowledge(&mut self, attempt: AttemptId, sequence: u64) {
        self.with(attempt, |held| held.rows.acknowledge(sequence));
    }

    /// The disk did what [`Self::spool_orders`] asked for.
    pub fn spooled(&mut self, attempt: AttemptId, event: SpoolEvent) {
        self.with(attempt, |held| held.rows.hear(event));
    }

    /// What the disk is to do for attempts' rows.
    pub fn spool_orders(&mut self) -> impl Iterator<Item = (AttemptId, SpoolOrder)> {
        self.held.iter_mut().flat_map(|(&attempt, held)| {
            std::iter::from_fn(move || held.rows.order()).map(move |order| (attempt, order))
        })
    }

    /// Memory that metric rows take, about.
    pub fn rows_memory(&self) -> usize {
        self.held.values().map(|held| held.rows.memory()).sum()
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
        self.with(attempt, |held| {
            held.released = true;
            // What an attempt measured after its last checkpoint is measured again. Rows before one that was told come before it,
            // unless it was in a hurry.
            let kept = held.saved.as_ref().filter(|saved| saved.told).map_or(0, |saved| saved.rows);
            held.rows.give_up(kept);
        });
    }

    /// A session begins: all is to be told again. Returns the state of each attempt, for the hello.
    pub fn begin_session(&mut self) -> Vec<AttemptReport> {
        for held in self.held.values_mut() {
            held.end_told = false;
            held.notes.begin_session();
            held.rows.begin_session();
            for fact in held.facts.values_mut() {
                fact.told = false;
            }
            if let Some(saved) = &mut held.saved {
                (saved.told, saved.overdue) = (false, false);
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
            if !held.tell_news(attempt, &mut tell) {
                return;
            }
        }
        let telling = self.held.values().filter(|held| held.rows.first_untold().is_some()).count();
        let share = (WINDOW / telling.max(1)).max(1);
        let mut in_flight: usize = self.held.values().map(|held| held.rows.in_flight()).sum();
        for (&attempt, held) in self.held.iter_mut().filter(|(_, held)| !held.released) {
            let before = held.rows.in_flight();
            let window = share.min(before + WINDOW.saturating_sub(in_flight));
            if !held.tell_results(attempt, window, &mut tell) {
                return;
            }
            in_flight += held.rows.in_flight() - before;
        }
    }

    /// Forgets attempts that are released, gone, and told to the end. Returns them.
    pub fn forget(&mut self) -> Vec<AttemptId> {
        let done = |held: &Held| {
            let over = held.end.is_some() || held.ranks == 0;
            // What the disk still writes would outlive the attempt's folder.
            held.released && !held.alive && over && held.rows.is_idle() && !held.has_news()
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

impl Held {
    /// Whether something is to be told beside rows, checkpoint and end.
    fn has_news(&self) -> bool {
        let over = self.end.is_some();
        self.facts.values().any(|fact| !fact.told) || self.notes.is_due(over) || self.rows.has_warning(over)
    }

    /// Tells everything but rows, checkpoint and end. False when `tell` has no room.
    fn tell_news(&mut self, attempt: AttemptId, tell: &mut impl FnMut(FromWorker) -> bool) -> bool {
        for fact in self.facts.values_mut().filter(|fact| !fact.told) {
            if !tell(fact.message.clone()) {
                return false;
            }
            fact.told = true;
        }
        let over = self.end.is_some();
        self.notes.tell(attempt, over, tell)
            && self.rows.warn_of_losses(over, |message| tell(FromWorker::Warning { attempt, message }))
    }

    /// Tells rows, at most `window` reports ahead of what is acknowledged, then checkpoint and end. False when `tell` has no room.
    fn tell_results(
        &mut self,
        attempt: AttemptId,
        window: usize,
        tell: &mut impl FnMut(FromWorker) -> bool,
    ) -> bool {
        loop {
            let untold = self.rows.first_untold();
            let rows_told = |saved: &Saved| untold.is_none_or(|untold| untold > saved.rows);
            if let Some(saved) = self.saved.as_mut().filter(|saved| !saved.told)
                && (saved.overdue || rows_told(saved))
            {
                if !tell(FromWorker::CheckpointStored { attempt, checkpoint: saved.checkpoint.clone() }) {
                    return false;
                }
                saved.told = true;
            }
            let Some(report) = self.rows.next(window) else { break };
            let (sequence, rows) = (report.sequence, report.rows.clone());
            if !tell(FromWorker::Metrics { attempt, sequence, rows }) {
                return false;
            }
            self.rows.told(sequence);
        }
        // What lies on the disk, or behind the window, comes first.
        if let Some(end) = self.end.as_ref().filter(|_| !self.end_told && self.rows.first_untold().is_none())
        {
            if !tell(FromWorker::AttemptEnded { attempt, end: end.clone() }) {
                return false;
            }
            self.end_told = true;
        }
        true
    }
}

#[cfg(test)]
mod tests;
