//! The agent: which launches wait, whether trainers may compute, when a session is opened and when it is given up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use common::session::{AttemptEnd, FromWorker, Launch, ToWorker};
use common::timeouts::Timeouts;
use common::{AttemptId, FailureCause};

use crate::{
    Action, AttemptEvent, AttemptOrder, Input, Lease, Ledger, LogRequest, SessionNumber, Slots, Spool,
};

/// Pause before the first try to dial again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What an operator chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Slots on which launches may run.
    pub slots: u32,
    /// Slots that share one device.
    pub slots_per_device: u32,
    /// Longest pause before another dial, if that is shorter than what the lease asks for.
    pub reconnect_limit: Duration,
    /// How patiently a coordinator is dialled that has not said yet how long its leases are.
    pub timeouts: Timeouts,
    /// What the disk takes of metric rows while the coordinator does not; an attempt's share is that of its slots.
    pub spool: Spool,
}

/// Where the connection stands.
#[derive(Clone, Debug)]
enum Link {
    /// Waits before the next dial.
    Down {
        until: Duration,
        pause: Duration,
    },
    Dialling {
        since: Duration,
        pause: Duration,
    },
    Up(Up),
}

/// An open session.
#[derive(Clone, Debug)]
struct Up {
    /// When its hello was written.
    hello: Duration,
    /// When what was answered last was sent.
    answered: Duration,
    /// Heartbeats that were not answered yet, and when they were sent.
    beats: BTreeMap<u64, Duration>,
    /// When the next one is due.
    next_beat: Duration,
}

/// A worker's agent. All times are of one clock that never runs backwards and counts while the machine sleeps.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    ledger: Ledger,
    slots: Slots,
    lease: Lease,
    link: Link,
    session: SessionNumber,
    heartbeat: Duration,
    /// Heartbeats so far, of all sessions.
    sequence: u64,
    /// Launches whose slots are still held by processes of older attempts, or that wait for a proof of the lease.
    waiting: VecDeque<Launch>,
    /// Attempts that must not compute until the coordinator says that they are current.
    suspended: BTreeSet<AttemptId>,
    /// What is wrong with the worker, as a session is told again and again while it lasts.
    faults: Vec<String>,
    stopping: bool,
}

impl Agent {
    /// An agent that holds nothing and dials at once.
    pub fn new(settings: Settings) -> Self {
        let lease = Lease::guessed(settings.timeouts);
        let of_slot = settings.spool.bytes / u64::from(settings.slots.max(1));
        let spool = Spool { bytes: of_slot, ..settings.spool };
        Self {
            heartbeat: lease.timeouts().heartbeat(),
            slots: Slots::new(settings.slots, settings.slots_per_device),
            settings,
            ledger: Ledger::default().with_spool(spool),
            lease,
            link: Link::Down { until: Duration::ZERO, pause: FIRST_PAUSE },
            session: SessionNumber::default(),
            sequence: 0,
            waiting: VecDeque::new(),
            suspended: BTreeSet::new(),
            faults: Vec::new(),
            stopping: false,
        }
    }

    /// Takes one input at time `now`.
    ///
    /// Before anything else it looks at the lease: an agent that was stopped, with its machine or alone, must not let trainers
    /// compute while it reads what came meanwhile.
    pub fn handle(&mut self, now: Duration, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.fence(now, &mut actions);
        match input {
            Input::SessionOpened(session) => self.opened(now, session),
            Input::Message(session, message) => {
                if session == self.session && matches!(self.link, Link::Up(_)) {
                    self.obey(now, message, &mut actions);
                }
            }
            Input::SessionLost(session) => self.lost(now, session),
            Input::CoordinatorDown(session) => {
                if let Link::Dialling { since, .. } = self.link
                    && session == self.session
                {
                    self.lease.refused(since, now);
                    self.tell_lease(now, &mut actions);
                }
                self.lost(now, session);
            }
            Input::Attempt(attempt, event) => self.hear(now, attempt, event, &mut actions),
            Input::Spool(attempt, event) => self.ledger.spooled(attempt, event),
            Input::Remains(attempt) => self.ledger.admit_remains(attempt),
            Input::Faults(faults) => self.found(now, faults),
            Input::Timer => {}
            Input::Shutdown => self.shut_down(&mut actions),
        }
        self.keep_in_touch(now, &mut actions);
        self.start_waiting(now, &mut actions);
        if let Link::Up(up) = &self.link {
            self.ledger.hurry(now, up.hello);
        }
        actions.extend(self.ledger.spool_orders().map(|(attempt, order)| Action::Spool(attempt, order)));
        if self.stopping && self.ledger.alive().is_empty() {
            actions.push(Action::Exit);
        }
        actions
    }

    /// When [`Input::Timer`] is due, unless another input comes first.
    pub fn next_deadline(&self) -> Duration {
        let timeouts = self.lease.timeouts();
        let link = match &self.link {
            Link::Down { until, .. } => *until,
            Link::Dialling { since, .. } => *since + timeouts.silence(),
            Link::Up(up) => up.next_beat.min(up.answered + timeouts.silence()),
        };
        let computes = self.ledger.alive().iter().any(|attempt| !self.suspended.contains(attempt));
        self.lease.ends().filter(|_| computes).map_or(link, |fence| fence.min(link))
    }

    /// Hands what the present session was not told yet to `send`, in order, until `send` has no room (false). Returns the attempts
    /// that are over and forgotten, so that nothing of them need be kept.
    pub fn tell(&mut self, send: impl FnMut(FromWorker) -> bool) -> Vec<AttemptId> {
        match self.link {
            Link::Up(_) => {
                self.ledger.tell(send);
                self.ledger.forget()
            }
            Link::Down { .. } | Link::Dialling { .. } => Vec::new(),
        }
    }

    /// Slots of an attempt that was started and whose processes may be alive, one for each of its ranks here, in their order.
    pub fn slots_of(&self, attempt: AttemptId) -> Vec<u32> {
        self.slots.of(attempt)
    }

    /// Memory that metric rows take, about.
    pub fn rows_memory(&self) -> usize {
        self.ledger.rows_memory()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ledger.is_empty()
    }

    /// Whether an attempt must not compute.
    pub fn is_suspended(&self, attempt: AttemptId) -> bool {
        self.suspended.contains(&attempt)
    }

    /// Until when trainers may compute, as far as is known.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// From the moment at which the lease may have been given away, nothing computes.
    fn fence(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.lease.stands(now) {
            return;
        }
        for attempt in self.ledger.alive() {
            if self.suspended.insert(attempt) && !self.waits(attempt) {
                actions.push(Action::Order(attempt, AttemptOrder::Suspend));
            }
        }
    }

    /// What was sent at `sent` extended the lease, and then the attempts in `current` were current.
    ///
    /// They go on only if this very answer proves the lease. The others stand still until they are released: that they are not
    /// named here may mean that they were launched since.
    fn proven(&mut self, now: Duration, sent: Duration, current: &[AttemptId], actions: &mut Vec<Action>) {
        if !self.lease.answered(sent, now) {
            return;
        }
        let mut go_on = Vec::new();
        for &attempt in current {
            if !self.ledger.is_released(attempt) && self.suspended.remove(&attempt) && !self.waits(attempt) {
                go_on.push(attempt);
            }
        }
        // First: who goes on must know for how long.
        self.tell_lease(now, actions);
        actions.extend(go_on.into_iter().map(|attempt| Action::Order(attempt, AttemptOrder::Resume)));
    }

    /// Tells all that may compute for how long.
    fn tell_lease(&self, now: Duration, actions: &mut Vec<Action>) {
        let Some(until) = self.lease.fences_trainers().filter(|_| self.lease.stands(now)) else { return };
        for attempt in self.ledger.alive() {
            let computes = !self.suspended.contains(&attempt) && !self.waits(attempt);
            if computes && !self.ledger.is_released(attempt) {
                actions.push(Action::Order(attempt, AttemptOrder::Lease(until)));
            }
        }
    }

    /// What is new must be told before what comes of it: trials that fail over it should not be placed here again.
    fn found(&mut self, now: Duration, faults: Vec<String>) {
        if let (Link::Up(up), true) =
            (&mut self.link, faults.iter().any(|fault| !self.faults.contains(fault)))
        {
            up.next_beat = now;
        }
        self.faults = faults;
    }

    fn opened(&mut self, now: Duration, session: SessionNumber) {
        if let (Link::Dialling { since, .. }, true) = (&self.link, session == self.session) {
            let (hello, next_beat) = (*since, now + self.heartbeat);
            self.link = Link::Up(Up { hello, answered: now, beats: BTreeMap::new(), next_beat });
        }
    }

    fn lost(&mut self, now: Duration, session: SessionNumber) {
        if session != self.session {
            return;
        }
        let pause = match self.link {
            Link::Down { .. } => return,
            Link::Dialling { pause, .. } => pause,
            Link::Up(_) => FIRST_PAUSE,
        };
        self.pause(now, pause);
    }

    fn pause(&mut self, now: Duration, pause: Duration) {
        let longest = self.lease.timeouts().pause().min(self.settings.reconnect_limit);
        let pause = pause.min(longest);
        self.link = Link::Down { until: now + pause, pause: (pause * 2).min(longest) };
    }

    /// Dials, sends heartbeats, and gives up what nobody answers.
    fn keep_in_touch(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let silence = self.lease.timeouts().silence();
        let silent = match &self.link {
            Link::Down { .. } => false,
            Link::Dialling { since, .. } => now >= *since + silence,
            Link::Up(up) => now >= up.answered + silence,
        };
        if silent {
            actions.push(Action::HangUp(self.session));
            self.pause(now, FIRST_PAUSE);
        }
        match &mut self.link {
            Link::Down { until, pause } if *until <= now => {
                let pause = *pause;
                self.session = SessionNumber(self.session.0 + 1);
                self.link = Link::Dialling { since: now, pause };
                let attempts = self.ledger.begin_session();
                actions.push(Action::Dial { session: self.session, attempts, faults: self.faults.clone() });
            }
            Link::Up(up) if up.next_beat <= now => {
                self.sequence += 1;
                up.next_beat = now + self.heartbeat;
                up.beats.insert(self.sequence, now);
                let (sequence, attempts, faults) =
                    (self.sequence, self.ledger.reports(), self.faults.clone());
                actions.push(Action::Send(FromWorker::Heartbeat { sequence, attempts, faults }));
            }
            Link::Down { .. } | Link::Dialling { .. } | Link::Up(_) => {}
        }
    }

    fn obey(&mut self, now: Duration, message: ToWorker, actions: &mut Vec<Action>) {
        match message {
            ToWorker::Welcome { lease, heartbeat, version: _, current } => {
                self.lease.told(lease);
                self.heartbeat = heartbeat;
                if let Link::Up(up) = &mut self.link {
                    up.next_beat = now + heartbeat;
                    up.answered = now;
                    let hello = up.hello;
                    self.proven(now, hello, &current, actions);
                }
            }
            ToWorker::HeartbeatAck { sequence, current } => {
                self.acknowledged(now, sequence, &current, actions)
            }
            ToWorker::Launch(launch) => self.launch(now, *launch),
            ToWorker::Release { attempt } => self.release(attempt, actions),
            ToWorker::Rendezvous { attempt, address } => {
                self.order(attempt, AttemptOrder::Rendezvous(address), actions);
            }
            ToWorker::Preempt { attempt } => self.end(attempt, AttemptOrder::Yield, actions),
            ToWorker::MetricAck { attempt, sequence } => self.ledger.acknowledge(attempt, sequence),
            ToWorker::Prefetch { blobs } => {
                if !self.stopping {
                    actions.push(Action::Prefetch(blobs));
                }
            }
            ToWorker::FetchLog { request, attempt, rank, tail } => {
                actions.push(Action::ReadLog(LogRequest { request, attempt, rank, tail }));
            }
        }
    }

    fn acknowledged(
        &mut self,
        now: Duration,
        sequence: u64,
        current: &[AttemptId],
        actions: &mut Vec<Action>,
    ) {
        let Link::Up(up) = &mut self.link else { return };
        let Some(sent) = up.beats.remove(&sequence) else { return };
        up.beats.retain(|&other, _| other > sequence);
        up.answered = up.answered.max(sent);
        self.proven(now, sent, current, actions);
    }

    /// One that comes while the lease is in doubt waits for an answer that names it.
    fn launch(&mut self, now: Duration, launch: Launch) {
        if self.stopping || !self.ledger.admit(launch.attempt, launch.ranks) {
            return;
        }
        if !self.lease.stands(now) {
            self.suspended.insert(launch.attempt);
        }
        self.waiting.push_back(launch);
    }

    fn release(&mut self, attempt: AttemptId, actions: &mut Vec<Action>) {
        self.ledger.release(attempt);
        self.end(attempt, AttemptOrder::Stop, actions);
    }

    fn over(&mut self, attempt: AttemptId, end: AttemptEnd) {
        self.suspended.remove(&attempt);
        self.ledger.ended(attempt, end);
    }

    /// Ends an attempt by `order`; what was not started has nothing to save and just goes.
    fn end(&mut self, attempt: AttemptId, order: AttemptOrder, actions: &mut Vec<Action>) {
        if self.withdraw(attempt) {
            self.over(attempt, Err(FailureCause::Preempted));
        } else {
            self.order(attempt, order, actions);
        }
    }

    /// Takes back what waits to be started. Returns whether it did.
    fn withdraw(&mut self, attempt: AttemptId) -> bool {
        let waiting = self.waiting.len();
        self.waiting.retain(|launch| launch.attempt != attempt);
        self.waiting.len() < waiting
    }

    /// Tells an attempt that was started and has not ended.
    fn order(&self, attempt: AttemptId, order: AttemptOrder, actions: &mut Vec<Action>) {
        if self.ledger.is_open(attempt) && !self.waits(attempt) {
            actions.push(Action::Order(attempt, order));
        }
    }

    fn waits(&self, attempt: AttemptId) -> bool {
        self.waiting.iter().any(|launch| launch.attempt == attempt)
    }

    fn hear(&mut self, now: Duration, attempt: AttemptId, event: AttemptEvent, actions: &mut Vec<Action>) {
        match event {
            AttemptEvent::Rendezvous(address) => self.ledger.rendezvous(attempt, address),
            AttemptEvent::Progress(progress) => {
                self.ledger.progress(attempt, progress.step);
                if let Link::Up(_) = self.link {
                    actions.push(Action::Send(FromWorker::Progress { attempt, progress }));
                }
            }
            AttemptEvent::Metrics(rows) => self.ledger.rows(attempt, rows),
            AttemptEvent::Checkpoint(checkpoint) => self.ledger.checkpoint(now, attempt, checkpoint),
            AttemptEvent::Damaged(digest, message) => self.ledger.damaged(attempt, digest, message),
            AttemptEvent::Note(note) => self.ledger.note(attempt, note),
            AttemptEvent::Log(rank, digest, bytes) => self.ledger.log(attempt, rank, digest, bytes),
            AttemptEvent::ProcessesGone => self.ledger.processes_gone(attempt),
            AttemptEvent::Ended(end) => self.over(attempt, end),
        }
    }

    /// Starts what waits, in the order it came, while slots are free and the lease stands. What waits to be confirmed holds up
    /// nobody.
    fn start_waiting(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let Some(until) = self.lease.fences_trainers().filter(|_| self.lease.stands(now)) else { return };
        // Free is what no process holds any more, whatever else is still to be done for its owner.
        self.slots.keep(&self.ledger.alive());
        let confirmed = |launch: &Launch| !self.suspended.contains(&launch.attempt);
        while let Some(index) = self.waiting.iter().position(confirmed) {
            let Launch { attempt, ranks, .. } = self.waiting[index];
            if !self.slots.take(attempt, ranks) {
                return;
            }
            if let Some(launch) = self.waiting.remove(index) {
                let attempt = launch.attempt;
                actions.push(Action::Start(Box::new(launch)));
                actions.push(Action::Order(attempt, AttemptOrder::Lease(until)));
            }
        }
    }

    fn shut_down(&mut self, actions: &mut Vec<Action>) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for launch in std::mem::take(&mut self.waiting) {
            self.over(launch.attempt, Err(FailureCause::Preempted));
        }
        for attempt in self.ledger.alive() {
            actions.push(Action::Order(attempt, AttemptOrder::Stop));
        }
    }
}
