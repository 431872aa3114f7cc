//! Trainers as the operating system sees them.

use std::path::Path;

/// The process of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainerProcess {
    /// Process id.
    pub pid: u32,
    /// Name of the worker whose folder it works in.
    pub worker: String,
    /// Attempt, like `a12`.
    pub attempt: String,
    /// Rank.
    pub rank: u32,
}

impl TrainerProcess {
    /// Reads what the command line of a trainer names: `…/WORKER/attempts/ATTEMPT/rank-RANK.json`.
    pub(super) fn of((pid, command): (u32, String)) -> Option<Self> {
        let launch = Path::new(command.split(' ').next_back()?);
        let rank =
            launch.file_name()?.to_str()?.strip_prefix("rank-")?.strip_suffix(".json")?.parse().ok()?;
        let folder = |level| Some(launch.ancestors().nth(level)?.file_name()?.to_str()?.to_owned());
        Some(Self { pid, worker: folder(3)?, attempt: folder(1)?, rank })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trainer_is_told_from_other_processes_by_its_launch_file() {
        let command = "/t/credence-trainer /tmp/x/workers/alpha/attempts/a12/rank-1.json";
        let expected = TrainerProcess { pid: 7, worker: "alpha".into(), attempt: "a12".into(), rank: 1 };
        assert_eq!(TrainerProcess::of((7, command.into())), Some(expected));
        assert_eq!(TrainerProcess::of((8, "credence worker --data-dir /tmp/x/workers/alpha".into())), None);
    }
}
