//! The beacon of a rank: what it does, in a small record that it overwrites in a file of its folder whenever that changes.
//!
//! Written by the trainer, read by the agent, which takes a rank for hung when its beacon stands still without reason.
//! A record is written in one call and carries its counter at both ends, so that a reader never takes a torn one.

use std::fmt;
use std::time::Duration;

/// Name of the file in a rank's folder.
pub const FILE: &str = "beacon";

/// Size of the record.
pub const BYTES: usize = 40;

/// First byte of every record; a record of another layout has another one.
const FORMAT: u8 = 1;

/// What a rank does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Reads data and checkpoints, builds the network.
    Loading,
    /// Waits for the other ranks to start.
    Rendezvous,
    /// Waits for the images of the next step.
    Batch,
    /// Forward pass.
    Forward,
    /// Backward pass. Ends when the gradients of all ranks are averaged.
    Backward,
    /// Updates the weights.
    Update,
    /// A collective other than that of the gradients.
    Collective,
    /// Copies or writes a checkpoint.
    Checkpoint,
    /// Predicts.
    Evaluating,
    /// Scores and writes results.
    Finishing,
}

impl Phase {
    /// Every phase, in the order in which a rank comes to them.
    pub const ALL: [Self; 10] = [
        Self::Loading,
        Self::Rendezvous,
        Self::Batch,
        Self::Forward,
        Self::Backward,
        Self::Update,
        Self::Collective,
        Self::Checkpoint,
        Self::Evaluating,
        Self::Finishing,
    ];

    /// Place in [`ALL`](Self::ALL).
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether a rank of a gang may stand still in it because another one does.
    pub fn waits_for_others(self) -> bool {
        match self {
            Self::Rendezvous | Self::Backward | Self::Collective => true,
            Self::Loading
            | Self::Batch
            | Self::Forward
            | Self::Update
            | Self::Checkpoint
            | Self::Evaluating
            | Self::Finishing => false,
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loading => "loading",
            Self::Rendezvous => "rendezvous",
            Self::Batch => "waiting for images",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Update => "update",
            Self::Collective => "collective",
            Self::Checkpoint => "checkpoint",
            Self::Evaluating => "evaluating",
            Self::Finishing => "finishing",
        })
    }
}

/// What a rank last said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The step that it is at, counted from 1; batches in an evaluation.
    pub step: u64,
    /// What it does.
    pub phase: Phase,
    /// Counts the records.
    pub count: u64,
    /// The longest of the recent times that it spent in this phase; zero in the first.
    pub usual: Duration,
}

impl Beacon {
    /// The record.
    pub fn encode(&self) -> [u8; BYTES] {
        let mut record = [0; BYTES];
        record[0] = FORMAT;
        record[1] = u8::try_from(self.phase.index()).expect("there are few phases");
        record[8..16].copy_from_slice(&self.count.to_le_bytes());
        record[16..24].copy_from_slice(&self.step.to_le_bytes());
        let usual = u64::try_from(self.usual.as_micros()).unwrap_or(u64::MAX);
        record[24..32].copy_from_slice(&usual.to_le_bytes());
        record[32..40].copy_from_slice(&self.count.to_le_bytes());
        record
    }

    /// Reads a record. `None` for one that is torn, missing or of another layout.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let record: &[u8; BYTES] = record.try_into().ok()?;
        let number = |from: usize| {
            let bytes = record[from..from + 8].try_into().expect("eight bytes of a longer record");
            u64::from_le_bytes(bytes)
        };
        if record[0] != FORMAT || number(8) != number(32) {
            return None;
        }
        let phase = *Phase::ALL.get(usize::from(record[1]))?;
        Some(Self { step: number(16), phase, count: number(8), usual: Duration::from_micros(number(24)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beacon() -> Beacon {
        Beacon { step: 70_000, phase: Phase::Backward, count: 280_001, usual: Duration::from_micros(5_300) }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (index, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase.index(), index);
            let beacon = Beacon { phase, ..beacon() };
            assert_eq!(Beacon::decode(&beacon.encode()), Some(beacon));
        }
    }

    #[test]
    fn a_torn_record_is_no_record() {
        let (old, new) = (beacon().encode(), Beacon { count: 280_002, step: 70_001, ..beacon() }.encode());
        for cut in 9..BYTES - 7 {
            let torn: Vec<u8> = new[..cut].iter().chain(&old[cut..]).copied().collect();
            assert_eq!(Beacon::decode(&torn), None, "cut at byte {cut}");
        }
        assert_eq!(Beacon::decode(&[0; BYTES]), None);
        assert_eq!(Beacon::decode(&new[..BYTES - 1]), None);
        assert_eq!(Beacon::decode(&[]), None);
    }
}
