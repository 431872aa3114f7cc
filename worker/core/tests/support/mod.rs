//! An agent, and a clock that the test sets.

mod launch;

use std::time::Duration;

use common::AttemptId;
use common::session::{AttemptReport, FromWorker, Launch, ToWorker};
use common::timeouts::Timeouts;
use worker_core::{Action, Agent, AttemptOrder, Input, SessionNumber, Settings, Spool};

pub const A: AttemptId = AttemptId(1);
pub const B: AttemptId = AttemptId(2);
pub const C: AttemptId = AttemptId(3);
pub const LEASE: Duration = Duration::from_secs(10);

pub struct Case {
    pub agent: Agent,
    pub now: Duration,
    session: SessionNumber,
}

impl Case {
    pub fn new(slots: u32) -> Self {
        Self::with_spool(slots, 0)
    }

    /// One that may keep so many bytes of rows on the disk.
    fn with_spool(slots: u32, bytes: u64) -> Self {
        let (timeouts, spool) = (Timeouts::default(), Spool::of(bytes));
        let (reconnect_limit, slots_per_device) = (Duration::from_secs(5), 1);
        let settings = Settings { slots, slots_per_device, reconnect_limit, timeouts, spool };
        Self { agent: Agent::new(settings), now: Duration::ZERO, session: SessionNumber::default() }
    }

    /// One that was just welcomed.
    pub fn connected(slots: u32) -> Self {
        Self::new(slots).welcomed()
    }

    /// One that was just welcomed, with so much of the disk for rows.
    pub fn connected_with_spool(slots: u32, bytes: u64) -> Self {
        Self::with_spool(slots, bytes).welcomed()
    }

    fn welcomed(mut self) -> Self {
        self.reconnect_dialled();
        self.handle(Input::SessionOpened(self.session));
        self.handle(self.welcome([]));
        self
    }

    pub fn session(&self) -> SessionNumber {
        self.session
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn handle(&mut self, input: Input) -> Vec<Action> {
        let actions = self.agent.handle(self.now, input);
        for action in &actions {
            if let Action::Dial { session, .. } = action {
                self.session = *session;
            }
        }
        actions
    }

    /// Waits for what is due next.
    pub fn handle_due(&mut self) -> Vec<Action> {
        self.now = self.now.max(self.agent.next_deadline());
        self.handle(Input::Timer)
    }

    pub fn message(&self, message: ToWorker) -> Input {
        Input::Message(self.session, message)
    }

    pub fn hear(&mut self, message: ToWorker) -> Vec<Action> {
        self.handle(self.message(message))
    }

    pub fn welcome(&self, current: impl IntoIterator<Item = AttemptId>) -> Input {
        self.message(ToWorker::Welcome {
            lease: LEASE,
            heartbeat: LEASE / 5,
            version: String::new(),
            current: current.into_iter().collect(),
        })
    }

    /// Loses the session and waits until another one is dialled. Returns what its hello says.
    pub fn reconnect_dialled(&mut self) -> Vec<AttemptReport> {
        let mut actions = self.handle(Input::SessionLost(self.session));
        loop {
            let hello = actions.into_iter().find_map(|action| match action {
                Action::Dial { attempts, .. } => Some(attempts),
                Action::HangUp(_)
                | Action::Send(_)
                | Action::Start(_)
                | Action::Order(..)
                | Action::ReadLog(_)
                | Action::Prefetch(_)
                | Action::Spool(..)
                | Action::Exit => None,
            });
            if let Some(hello) = hello {
                return hello;
            }
            actions = self.handle_due();
        }
    }

    /// As [`Self::reconnect_dialled`], and the session opens.
    pub fn reconnect(&mut self) -> Vec<AttemptReport> {
        let hello = self.reconnect_dialled();
        self.handle(Input::SessionOpened(self.session));
        hello
    }

    /// The heartbeat that is due now.
    pub fn heartbeat(&mut self) -> Option<u64> {
        self.handle(Input::Timer).into_iter().find_map(|action| match action {
            Action::Send(FromWorker::Heartbeat { sequence, .. }) => Some(sequence),
            Action::Send(_)
            | Action::Dial { .. }
            | Action::HangUp(_)
            | Action::Start(_)
            | Action::Order(..)
            | Action::ReadLog(_)
            | Action::Prefetch(_)
            | Action::Spool(..)
            | Action::Exit => None,
        })
    }

    pub fn started(&mut self, input: Input) -> Vec<AttemptId> {
        let actions = self.handle(input).into_iter();
        let started = actions.filter_map(|action| match action {
            Action::Start(launch) => Some(launch.attempt),
            Action::Send(_)
            | Action::Dial { .. }
            | Action::HangUp(_)
            | Action::Order(..)
            | Action::ReadLog(_)
            | Action::Prefetch(_)
            | Action::Spool(..)
            | Action::Exit => None,
        });
        started.collect()
    }

    pub fn orders(&mut self, input: Input) -> Vec<(AttemptId, AttemptOrder)> {
        let actions = self.handle(input).into_iter();
        let orders = actions.filter_map(|action| match action {
            Action::Order(attempt, order) => Some((attempt, order)),
            Action::Send(_)
            | Action::Dial { .. }
            | Action::HangUp(_)
            | Action::Start(_)
            | Action::ReadLog(_)
            | Action::Prefetch(_)
            | Action::Spool(..)
            | Action::Exit => None,
        });
        orders.collect()
    }

    pub fn told(&mut self) -> Vec<FromWorker> {
        let mut told = Vec::new();
        self.agent.tell(|message| {
            told.push(message);
            true
        });
        told
    }
}

/// A launch of a whole gang of `ranks` ranks here.
pub fn launch(attempt: AttemptId, ranks: u32) -> Launch {
    launch::launch(attempt, 0, ranks, ranks)
}
