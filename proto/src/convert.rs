//! Between the wire's messages and [`common`]'s types. Nothing else sees both.
//!
//! To the wire every conversion succeeds. From the wire it fails on a missing part, an unknown enum value or a
//! malformed digest, and names the field.

mod result;

use std::time::Duration;

use common::result::{Checkpoint, MetricRow, TrialResult};
use common::session::{
    AttemptEnd, AttemptReport, AttemptState, Blob, FromWorker, Hello, Launch, LogPart, Progress,
    SessionOrder, ToWorker,
};
use common::{AttemptId, Digest, TrialKey, WorkerId};

use crate::status::{ErrorKind, Kind};
use crate::v1;

/// A message that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A part that must be there is not.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// An enum value that this build does not know.
    #[error("`{field}` has the unknown value {value}")]
    UnknownEnum {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i32,
    },
    /// A number that does not fit.
    #[error("`{field}` cannot be {value}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// Not a digest.
    #[error("`{field}` is not a digest")]
    Digest {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: common::digest::ParseDigestError,
    },
    /// Not the JSON of a specification.
    #[error("`{field}` is not understood")]
    Json {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The specification is not the one that the key names.
    #[error("`spec_json` is not the specification that key {0} names")]
    KeyMismatch(TrialKey),
}

impl Kind for ConvertError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

type Converted<T> = Result<T, ConvertError>;

fn required<T>(part: Option<T>, field: &'static str) -> Converted<T> {
    part.ok_or(ConvertError::Missing(field))
}

fn digest(text: &str, field: &'static str) -> Converted<Digest> {
    text.parse().map_err(|source| ConvertError::Digest { field, source })
}

fn narrow<T: TryFrom<i64>>(value: i64, field: &'static str) -> Converted<T> {
    T::try_from(value).map_err(|_| ConvertError::OutOfRange { field, value })
}

fn end_to_wire(end: AttemptEnd) -> v1::AttemptEnd {
    use v1::attempt_end::End;
    let end = match end {
        Ok(result) => End::Succeeded(v1::ShareSucceeded { result: result.map(Into::into) }),
        Err(cause) => End::Failed(cause.into()),
    };
    v1::AttemptEnd { end: Some(end) }
}

fn end_from_wire(wire: v1::AttemptEnd) -> Converted<AttemptEnd> {
    use v1::attempt_end::End;
    Ok(match required(wire.end, "attempt.end")? {
        End::Succeeded(share) => Ok(share.result.map(TrialResult::try_from).transpose()?),
        End::Failed(cause) => Err(cause.try_into()?),
    })
}

fn report_to_wire(report: AttemptReport) -> v1::AttemptReport {
    use v1::attempt_report::State;
    let state = match report.state {
        AttemptState::Running { rendezvous, step } => {
            State::Running(v1::AttemptRunning { rendezvous: rendezvous.unwrap_or_default(), step })
        }
        AttemptState::Ended(end) => State::Ended(end_to_wire(end)),
    };
    v1::AttemptReport { attempt_id: report.attempt.0, state: Some(state) }
}

fn report_from_wire(wire: v1::AttemptReport) -> Converted<AttemptReport> {
    use v1::attempt_report::State;
    let state = match required(wire.state, "attempt.state")? {
        State::Running(running) => AttemptState::Running {
            rendezvous: (!running.rendezvous.is_empty()).then_some(running.rendezvous),
            step: running.step,
        },
        State::Ended(end) => AttemptState::Ended(end_from_wire(end)?),
    };
    Ok(AttemptReport { attempt: AttemptId(wire.attempt_id), state })
}

impl From<Progress> for v1::Progress {
    fn from(progress: Progress) -> Self {
        let Progress { step, total_steps, loss, steps_per_second } = progress;
        Self { step, total_steps, loss, steps_per_second }
    }
}

impl From<v1::Progress> for Progress {
    fn from(wire: v1::Progress) -> Self {
        let v1::Progress { step, total_steps, loss, steps_per_second } = wire;
        Self { step, total_steps, loss, steps_per_second }
    }
}

impl From<Hello> for v1::Hello {
    fn from(hello: Hello) -> Self {
        Self {
            protocol: hello.protocol,
            worker_id: hello.worker.0,
            start: hello.order.start,
            session: hello.order.session,
            name: hello.name,
            host: hello.host,
            slots: hello.slots,
            version: hello.version,
            attempts: hello.attempts.into_iter().map(report_to_wire).collect(),
            labels: hello.labels.into_iter().collect(),
            device: hello.device,
            slot_memory_mib: hello.slot_memory_mib,
            prefetches: hello.prefetches,
            faults: hello.faults,
        }
    }
}

impl TryFrom<v1::Hello> for Hello {
    type Error = ConvertError;

    fn try_from(wire: v1::Hello) -> Converted<Self> {
        Ok(Self {
            protocol: wire.protocol,
            worker: WorkerId(wire.worker_id),
            order: SessionOrder { start: wire.start, session: wire.session },
            name: wire.name,
            host: wire.host,
            slots: wire.slots,
            labels: wire.labels.into_iter().collect(),
            device: wire.device,
            slot_memory_mib: wire.slot_memory_mib,
            version: wire.version,
            prefetches: wire.prefetches,
            faults: wire.faults,
            attempts: wire.attempts.into_iter().map(report_from_wire).collect::<Converted<_>>()?,
        })
    }
}

impl From<FromWorker> for v1::FromWorker {
    fn from(message: FromWorker) -> Self {
        use v1::from_worker::Message as Wire;
        let message = match message {
            FromWorker::Hello(hello) => Wire::Hello((*hello).into()),
            FromWorker::Heartbeat { sequence, attempts, faults } => Wire::Heartbeat(v1::Heartbeat {
                sequence,
                faults,
                attempts: attempts.into_iter().map(report_to_wire).collect(),
            }),
            FromWorker::RendezvousOpened { attempt, address } => {
                Wire::RendezvousOpened(v1::RendezvousOpened { attempt_id: attempt.0, address })
            }
            FromWorker::AttemptEnded { attempt, end } => {
                Wire::AttemptEnded(v1::AttemptEnded { attempt_id: attempt.0, end: Some(end_to_wire(end)) })
            }
            FromWorker::CheckpointStored { attempt, checkpoint } => {
                Wire::CheckpointStored(v1::CheckpointStored {
                    attempt_id: attempt.0,
                    checkpoint: Some(checkpoint.into()),
                })
            }
            FromWorker::CheckpointDamaged { attempt, digest, message } => {
                let digest = digest.to_string();
                Wire::CheckpointDamaged(v1::CheckpointDamaged { attempt_id: attempt.0, digest, message })
            }
            FromWorker::Progress { attempt, progress } => {
                Wire::Progress(v1::AttemptProgress { attempt_id: attempt.0, progress: Some(progress.into()) })
            }
            FromWorker::Metrics { attempt, sequence, rows } => Wire::Metrics(v1::MetricReport {
                attempt_id: attempt.0,
                sequence,
                rows: rows.into_iter().map(|row| row_to_wire(row, attempt)).collect(),
            }),
            FromWorker::Warning { attempt, message } => {
                Wire::Warning(v1::AttemptWarning { attempt_id: attempt.0, message })
            }
            FromWorker::Incident { attempt, rank, pattern, line, quarantine } => {
                Wire::Incident(v1::Incident { attempt_id: attempt.0, rank, pattern, line, quarantine })
            }
            FromWorker::LogStored { attempt, rank, digest, bytes } => {
                let digest = digest.to_string();
                Wire::LogStored(v1::LogStored { attempt_id: attempt.0, rank, digest, bytes })
            }
            FromWorker::LogData { request, part } => Wire::LogData(part_to_wire(request, part)),
            FromWorker::Goodbye => Wire::Goodbye(v1::Goodbye {}),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::FromWorker> for FromWorker {
    type Error = ConvertError;

    fn try_from(wire: v1::FromWorker) -> Converted<Self> {
        use v1::from_worker::Message as Wire;
        Ok(match required(wire.message, "message")? {
            Wire::Hello(hello) => Self::Hello(Box::new(hello.try_into()?)),
            Wire::Heartbeat(heartbeat) => Self::Heartbeat {
                sequence: heartbeat.sequence,
                faults: heartbeat.faults,
                attempts: heartbeat.attempts.into_iter().map(report_from_wire).collect::<Converted<_>>()?,
            },
            Wire::RendezvousOpened(opened) => {
                Self::RendezvousOpened { attempt: AttemptId(opened.attempt_id), address: opened.address }
            }
            Wire::AttemptEnded(ended) => Self::AttemptEnded {
                attempt: AttemptId(ended.attempt_id),
                end: end_from_wire(required(ended.end, "attempt_ended.end")?)?,
            },
            Wire::CheckpointStored(stored) => Self::CheckpointStored {
                attempt: AttemptId(stored.attempt_id),
                checkpoint: required(stored.checkpoint, "checkpoint_stored.checkpoint")?.try_into()?,
            },
            Wire::CheckpointDamaged(damaged) => Self::CheckpointDamaged {
                attempt: AttemptId(damaged.attempt_id),
                digest: digest(&damaged.digest, "checkpoint_damaged.digest")?,
                message: damaged.message,
            },
            Wire::Progress(progress) => Self::Progress {
                attempt: AttemptId(progress.attempt_id),
                progress: required(progress.progress, "progress.progress")?.into(),
            },
            Wire::Metrics(report) => Self::Metrics {
                attempt: AttemptId(report.attempt_id),
                sequence: report.sequence,
                rows: report.rows.into_iter().map(row_from_wire).collect(),
            },
            Wire::Warning(warning) => {
                Self::Warning { attempt: AttemptId(warning.attempt_id), message: warning.message }
            }
            Wire::Incident(v1::Incident { attempt_id, rank, pattern, line, quarantine }) => {
                Self::Incident { attempt: AttemptId(attempt_id), rank, pattern, line, quarantine }
            }
            Wire::LogStored(stored) => Self::LogStored {
                attempt: AttemptId(stored.attempt_id),
                rank: stored.rank,
                digest: digest(&stored.digest, "log_stored.digest")?,
                bytes: stored.bytes,
            },
            Wire::LogData(data) => Self::LogData { request: data.request_id, part: part_from_wire(data) },
            Wire::Goodbye(v1::Goodbye {}) => Self::Goodbye,
        })
    }
}

/// A row as a client sees it.
pub fn row_to_wire(row: MetricRow, attempt: AttemptId) -> v1::MetricRow {
    v1::MetricRow { step: row.step, name: row.name, value: row.value, attempt_id: attempt.to_string() }
}

fn row_from_wire(wire: v1::MetricRow) -> MetricRow {
    MetricRow { step: wire.step, name: wire.name, value: wire.value }
}

fn part_to_wire(request: u64, part: LogPart) -> v1::LogData {
    let (data, end, error) = match part {
        LogPart::Data(data) => (data, false, String::new()),
        LogPart::End => (Vec::new(), true, String::new()),
        LogPart::Unreadable(error) => (Vec::new(), true, error),
    };
    v1::LogData { request_id: request, data, end, error }
}

fn part_from_wire(wire: v1::LogData) -> LogPart {
    if !wire.error.is_empty() {
        LogPart::Unreadable(wire.error)
    } else if wire.end {
        LogPart::End
    } else {
        LogPart::Data(wire.data)
    }
}

impl From<Launch> for v1::Launch {
    fn from(launch: Launch) -> Self {
        Self {
            attempt_id: launch.attempt.0,
            trial_key: launch.key.to_string(),
            spec_json: launch.spec.to_json(),
            policy_json: serde_json::to_string(&launch.policy)
                .expect("a policy holds only numbers, so it has a JSON form"),
            first_rank: launch.first_rank,
            ranks: launch.ranks,
            world_size: launch.world_size,
            restore: launch.restore.into_iter().map(Into::into).collect(),
            networks: launch
                .networks
                .into_iter()
                .map(|(key, checkpoint)| v1::NetworkCheckpoint {
                    trial_key: key.to_string(),
                    checkpoint: Some(checkpoint.into()),
                })
                .collect(),
            label: launch.label,
        }
    }
}

impl TryFrom<v1::Launch> for Launch {
    type Error = ConvertError;

    fn try_from(wire: v1::Launch) -> Converted<Self> {
        let key = TrialKey(digest(&wire.trial_key, "launch.trial_key")?);
        let spec: common::spec::TrialSpec = serde_json::from_str(&wire.spec_json)
            .map_err(|source| ConvertError::Json { field: "launch.spec_json", source })?;
        if spec.key() != key {
            return Err(ConvertError::KeyMismatch(key));
        }
        let networks = wire.networks.into_iter().map(|network| {
            let key = TrialKey(digest(&network.trial_key, "launch.networks.trial_key")?);
            Ok((key, required(network.checkpoint, "launch.networks.checkpoint")?.try_into()?))
        });
        Ok(Self {
            attempt: AttemptId(wire.attempt_id),
            key,
            label: wire.label,
            spec,
            policy: serde_json::from_str(&wire.policy_json)
                .map_err(|source| ConvertError::Json { field: "launch.policy_json", source })?,
            first_rank: wire.first_rank,
            ranks: wire.ranks,
            world_size: wire.world_size,
            restore: wire.restore.into_iter().map(Checkpoint::try_from).collect::<Converted<_>>()?,
            networks: networks.collect::<Converted<_>>()?,
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl From<Blob> for v1::Blob {
    fn from(blob: Blob) -> Self {
        Self { digest: blob.digest.to_string(), bytes: blob.bytes }
    }
}

impl TryFrom<v1::Blob> for Blob {
    type Error = ConvertError;

    fn try_from(wire: v1::Blob) -> Converted<Self> {
        Ok(Self { digest: digest(&wire.digest, "prefetch.digest")?, bytes: wire.bytes })
    }
}

impl From<ToWorker> for v1::ToWorker {
    fn from(message: ToWorker) -> Self {
        use v1::to_worker::Message as Wire;
        let message = match message {
            ToWorker::Welcome { lease, heartbeat, version, current } => Wire::Welcome(v1::Welcome {
                lease_ms: millis(lease),
                heartbeat_ms: millis(heartbeat),
                version,
                current_attempt_ids: current.into_iter().map(|attempt| attempt.0).collect(),
            }),
            ToWorker::Launch(launch) => Wire::Launch((*launch).into()),
            ToWorker::Release { attempt } => Wire::Release(v1::Release { attempt_id: attempt.0 }),
            ToWorker::Rendezvous { attempt, address } => {
                Wire::Rendezvous(v1::Rendezvous { attempt_id: attempt.0, address })
            }
            ToWorker::Preempt { attempt } => Wire::Preempt(v1::Preempt { attempt_id: attempt.0 }),
            ToWorker::HeartbeatAck { sequence, current } => Wire::HeartbeatAck(v1::HeartbeatAck {
                sequence,
                current_attempt_ids: current.into_iter().map(|attempt| attempt.0).collect(),
            }),
            ToWorker::MetricAck { attempt, sequence } => {
                Wire::MetricAck(v1::MetricAck { attempt_id: attempt.0, sequence })
            }
            ToWorker::Prefetch { blobs } => {
                Wire::Prefetch(v1::Prefetch { blobs: blobs.into_iter().map(v1::Blob::from).collect() })
            }
            ToWorker::FetchLog { request, attempt, rank, tail } => Wire::FetchLog(v1::FetchLog {
                request_id: request,
                attempt_id: attempt.0,
                rank,
                tail_bytes: tail.unwrap_or(0),
            }),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::ToWorker> for ToWorker {
    type Error = ConvertError;

    fn try_from(wire: v1::ToWorker) -> Converted<Self> {
        use v1::to_worker::Message as Wire;
        Ok(match required(wire.message, "message")? {
            Wire::Welcome(welcome) => Self::Welcome {
                lease: Duration::from_millis(welcome.lease_ms),
                heartbeat: Duration::from_millis(welcome.heartbeat_ms),
                version: welcome.version,
                current: welcome.current_attempt_ids.into_iter().map(AttemptId).collect(),
            },
            Wire::Launch(launch) => Self::Launch(Box::new(launch.try_into()?)),
            Wire::Release(release) => Self::Release { attempt: AttemptId(release.attempt_id) },
            Wire::Rendezvous(rendezvous) => {
                Self::Rendezvous { attempt: AttemptId(rendezvous.attempt_id), address: rendezvous.address }
            }
            Wire::Preempt(preempt) => Self::Preempt { attempt: AttemptId(preempt.attempt_id) },
            Wire::HeartbeatAck(ack) => Self::HeartbeatAck {
                sequence: ack.sequence,
                current: ack.current_attempt_ids.into_iter().map(AttemptId).collect(),
            },
            Wire::MetricAck(ack) => {
                Self::MetricAck { attempt: AttemptId(ack.attempt_id), sequence: ack.sequence }
            }
            Wire::Prefetch(prefetch) => Self::Prefetch {
                blobs: prefetch.blobs.into_iter().map(Blob::try_from).collect::<Converted<_>>()?,
            },
            Wire::FetchLog(fetch) => Self::FetchLog {
                request: fetch.request_id,
                attempt: AttemptId(fetch.attempt_id),
                rank: fetch.rank,
                tail: (fetch.tail_bytes > 0).then_some(fetch.tail_bytes),
            },
        })
    }
}

#[cfg(test)]
mod tests;
