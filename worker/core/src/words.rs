//! What an agent is told, and what it asks for.

use std::time::Duration;

use common::result::{Checkpoint, MetricRow};
use common::session::{AttemptEnd, AttemptReport, Blob, FromWorker, Launch, Progress, ToWorker};
use common::{AttemptId, Digest};

/// Counts the sessions that an agent asked for, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionNumber(pub u64);

/// Something that reached the agent.
///
/// What is said of a session counts only while it is the newest.
#[derive(Debug)]
pub enum Input {
    /// The coordinator accepted the session's hello.
    SessionOpened(SessionNumber),
    /// The coordinator said something.
    Message(SessionNumber, ToWorker),
    /// The session broke, or was not opened. Nothing is known of the coordinator.
    SessionLost(SessionNumber),
    /// The session was not opened, because the coordinator is down: nobody listens at its address, or it says that it stops or
    /// has no disk space. It gives no lease away, and every worker that it knows has a full one when it is back.
    CoordinatorDown(SessionNumber),
    /// An attempt of this worker said something.
    Attempt(AttemptId, AttemptEvent),
    /// An attempt of an earlier agent on this folder: its logs are being stored, until [`AttemptEvent::ProcessesGone`].
    Remains(AttemptId),
    /// The disk did what [`Action::Spool`] asked for.
    Spool(AttemptId, SpoolEvent),
    /// All that is wrong with the worker now: sentences for an operator, who should mend it before it is given more.
    Faults(Vec<String>),
    /// [`crate::Agent::next_deadline`] has come.
    Timer,
    /// The worker is to stop.
    Shutdown,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open a session; an earlier one is over.
    Dial {
        /// Names it from now on.
        session: SessionNumber,
        /// What its hello says of attempts.
        attempts: Vec<AttemptReport>,
        /// What its hello says is wrong with the worker.
        faults: Vec<String>,
    },
    /// Close the session, or give up opening it.
    HangUp(SessionNumber),
    /// Send a message on the newest session. It may be dropped.
    Send(FromWorker),
    /// Start an attempt on [its slots](crate::Agent::slots_of).
    Start(Box<Launch>),
    /// Tell an attempt that was started.
    Order(AttemptId, AttemptOrder),
    /// Send a log.
    ReadLog(LogRequest),
    /// Fetch blobs that will probably be needed, if that disturbs nothing, until the session is over.
    Prefetch(Vec<Blob>),
    /// Move metric rows of an attempt to its spool, or back. Its answer is an [`Input::Spool`], except to
    /// [`SpoolOrder::Remove`]. There is none with a [`crate::Settings::spool`] of no bytes.
    Spool(AttemptId, SpoolOrder),
    /// Every process is gone, and there is no more to say: say goodbye and end.
    Exit,
}

/// Metric rows that were measured at once.
#[derive(Clone, Debug, PartialEq)]
pub struct RowReport {
    /// Counts the reports of the attempt from 1.
    pub sequence: u64,
    /// The rows.
    pub rows: Vec<MetricRow>,
}

/// What the spool of an attempt is to do. Orders for different pages may be carried out in any order.
#[derive(Clone, Debug, PartialEq)]
pub enum SpoolOrder {
    /// Write reports to a page of their own.
    Write {
        /// The page, which no other had before.
        page: u64,
        /// The reports.
        reports: Vec<RowReport>,
    },
    /// Read a page, and remove it.
    Read {
        /// The page.
        page: u64,
    },
    /// Remove a page. Not answered.
    Remove {
        /// The page.
        page: u64,
    },
}

/// What the spool of an attempt did.
#[derive(Clone, Debug, PartialEq)]
pub enum SpoolEvent {
    /// The page is written.
    Written {
        /// Its size.
        bytes: u64,
    },
    /// The page cannot be written, and nothing of it is left.
    NotWritten {
        /// What it was to hold.
        reports: Vec<RowReport>,
        /// Why.
        message: String,
    },
    /// The page is read and gone.
    Read {
        /// What it held; what was damaged is missing.
        reports: Vec<RowReport>,
    },
}

/// A reader wants the log of a rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// Names the request in the answer.
    pub request: u64,
    /// The attempt.
    pub attempt: AttemptId,
    /// The rank.
    pub rank: u32,
    /// Only the last so many bytes; `None` for all.
    pub tail: Option<u64>,
}

/// What the agent tells an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOrder {
    /// Where rank 0, on another worker, hosts the rendezvous store.
    Rendezvous(String),
    /// Write a checkpoint, then end: the slots are wanted, the work is not to be lost.
    Yield,
    /// Stand still, keeping everything.
    Suspend,
    /// Go on after [`Suspend`](Self::Suspend).
    Resume,
    /// Ranks stand still by themselves at this time of the agent's clock, unless they are told of a later one. So they do
    /// even when the agent is frozen.
    Lease(Duration),
    /// End, whatever it does. What stands still ends at once.
    Stop,
}

/// What an attempt tells the agent.
#[derive(Debug)]
pub enum AttemptEvent {
    /// Rank 0 hosts the rendezvous store.
    Rendezvous(String),
    /// Where it stands.
    Progress(Progress),
    /// Measured values.
    Metrics(Vec<MetricRow>),
    /// A checkpoint is stored.
    Checkpoint(Checkpoint),
    /// A checkpoint that it was to go on from did not load.
    Damaged(Digest, String),
    /// Something that the user should know.
    Note(Note),
    /// The log of a rank is stored.
    Log(u32, Digest, u64),
    /// The last process is gone.
    ProcessesGone,
    /// Everything is stored. The last event.
    Ended(AttemptEnd),
}

/// Something that the user should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// One sentence.
    Warning(String),
    /// A line of a rank's log matched a pattern of the configuration.
    Incident {
        /// The rank.
        rank: u32,
        /// Name of the pattern.
        pattern: String,
        /// The line.
        line: String,
        /// Whether the worker should be given nothing more.
        quarantine: bool,
    },
}
