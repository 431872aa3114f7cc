//! Time-outs of ranks: how long one may be silent, stand still, or wait for others.
//!
//! Each is measured by somebody who must be patient for longer than whoever knows better. So their order stands here, and the
//! tests of this file hold it; `docs/time-outs.md` says the same for operators.
//!
//! | | | |
//! |---|---|---|
//! | [`LOOK`] | 250 ms | the agent looks at its ranks; what follows takes several looks |
//! | [`LAST_WORDS`] | 300 ms | shorter than [`STOPPED`]: a gang that is over should not look like one that hangs |
//! | [`TESTIMONY`], [`WAKE_AGAIN`] | 500 ms | the same |
//! | [`STOPPED`] | 1.5 s | a stopped process does nothing by itself, so nothing is shorter |
//! | [`LEAST`] | 2 s | one that only does nothing might |
//! | [`TOGETHER`] | 5 s | the one that the others wait for is judged before all are |
//! | [`FIRST`] | 20 s | as `LEAST`, for what nobody knows yet how long it takes |
//! | [`CHECKPOINT_BEHIND_ROWS`] | 20 s | shorter than [`YIELD`], which a checkpoint ends |
//! | [`DISK`], [`NO_BEACON`] | 60 s | as `LEAST`, for a disk that hangs, and for a process that was never heard of |
//! | [`YIELD`] | 60 s | shorter than [`COLLECTIVE`]: whoever cannot yield is stopped before its peers call that a failure |
//! | [`elsewhere`] | 90 s, or 3/2 of the lease | longer than a lease and than `DISK`: whoever is at fault on another worker has been named |
//! | [`COLLECTIVE`] | 300 s | the ranks' own limit, for when no agent judges |
//! | [`SPACE`] | 300 s | a full disk is no fault of the rank, which moves its beacon at each try |
//! | [`SCORING`] | 30 min | as `COLLECTIVE`, where one rank computes for the trial while the others wait: no longer than it is given |
//! | [`BUSY`] | 30 min | a rank that computes is only judged by what it says, last of all |

use std::time::Duration;

/// Time between two looks of an agent at its ranks.
pub const LOOK: Duration = Duration::from_millis(250);

/// How long the other ranks of a failed attempt may take to say what they saw, when what is known does not explain it.
pub const LAST_WORDS: Duration = Duration::from_millis(300);

/// How long the end of a gang that hangs may wait for what is known of its ranks to be written.
pub const TESTIMONY: Duration = Duration::from_millis(500);

/// Time after which a rank that was let go on is let go on once more, because it may just have been about to stop itself.
pub const WAKE_AGAIN: Duration = Duration::from_millis(500);

/// A process that is stopped by a signal does not go on by itself, so its own times do not matter.
pub const STOPPED: Duration = Duration::from_millis(1_500);

/// Silence and idleness that are always plausible, however quick the steps are.
pub const LEAST: Duration = Duration::from_secs(2);

/// How many times its usual time a phase may take while the process does nothing.
pub const TIMES: u32 = 4;

/// As [`LEAST`], for a gang of which all ranks wait for each other.
pub const TOGETHER: Duration = Duration::from_secs(5);

/// As [`LEAST`], in a phase that the rank has not been through yet.
pub const FIRST: Duration = Duration::from_secs(20);

/// How long a session is told rows before a checkpoint that comes after them is told all the same.
pub const CHECKPOINT_BEHIND_ROWS: Duration = Duration::from_secs(20);

/// As [`LEAST`], while a thread waits for a disk.
pub const DISK: Duration = Duration::from_secs(60);

/// As [`LEAST`], for a process whose beacon was never seen.
pub const NO_BEACON: Duration = Duration::from_secs(60);

/// How long an attempt that was asked to stop at a checkpoint may take.
pub const YIELD: Duration = Duration::from_secs(60);

/// How long ranks wait for each other to meet, and then in each collective. Longer than any step and any pause to copy a
/// checkpoint.
pub const COLLECTIVE: Duration = Duration::from_secs(300);

/// How long the last checkpoint of a trial waits for space on the disk.
pub const SPACE: Duration = Duration::from_secs(300);

/// Most that a pause between two tries for space is longer than the one before: less than [`TIMES`], so that no pause looks
/// like hanging.
pub const SPACE_PAUSE_GROWS: u32 = 2;

/// As [`LEAST`], for a process that computes without saying so.
pub const BUSY: Duration = Duration::from_secs(30 * 60);

/// As [`COLLECTIVE`], for ranks that wait while one of them scores the network. Its agent sees that it does.
pub const SCORING: Duration = BUSY;

/// Leases are shorter: a rank whose peer's worker is lost must not give up its collective before the worker is called lost.
pub const LEASES_BELOW: Duration = Duration::from_secs(200);

/// As [`LEAST`], for ranks that all wait while some of their gang are on other workers, which have leases of this length.
pub fn elsewhere(lease: Duration) -> Duration {
    Duration::from_secs(90).max(lease + lease / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_ascends(chain: &[Duration]) {
        assert!(chain.is_sorted_by(|shorter, longer| shorter < longer), "{chain:?}");
    }

    #[test]
    fn who_knows_better_judges_before_who_knows_less() {
        for seconds in 1..LEASES_BELOW.as_secs() {
            let lease = Duration::from_secs(seconds);
            let elsewhere = elsewhere(lease);
            assert_ascends(&[LOOK * 4, STOPPED, LEAST, TOGETHER, elsewhere, COLLECTIVE, BUSY]);
            // On the other worker somebody is named, or it is lost.
            for named in [FIRST, DISK, NO_BEACON, lease] {
                assert_ascends(&[named, elsewhere]);
            }
        }
        assert_eq!(elsewhere(LEASES_BELOW), COLLECTIVE);
        assert_ascends(&[COLLECTIVE, SCORING]);
    }

    /// A change of a value changes what operators read.
    #[test]
    fn the_documentation_says_these_values() {
        let page = include_str!("../../../docs/time-outs.md");
        for (what, limit) in [
            ("look at a rank", LOOK),
            ("last words of a gang that failed", LAST_WORDS),
            ("testimony on a gang that hangs", TESTIMONY),
            ("second wake of a rank that may have stopped itself", WAKE_AGAIN),
            ("stopped rank", STOPPED),
            ("idle rank", LEAST),
            ("all ranks here wait", TOGETHER),
            ("idle rank, first time in a phase", FIRST),
            ("checkpoint behind its metric rows", CHECKPOINT_BEHIND_ROWS),
            ("idle rank, disk", DISK),
            ("idle rank, never heard of", NO_BEACON),
            ("yield", YIELD),
            ("collective, and meeting of the ranks", COLLECTIVE),
            ("last checkpoint waits for space", SPACE),
            ("collective, while rank 0 scores", SCORING),
            ("busy rank without a beacon", BUSY),
        ] {
            let row = format!("\n| {what} | {limit:?} |");
            assert!(page.contains(&row), "docs/time-outs.md lacks {row}");
        }
        let computed = format!("| 3/2, at least {:?} |", elsewhere(Duration::ZERO));
        assert!(page.contains(&computed) && page.contains(&format!("Shorter than {LEASES_BELOW:?}")));
    }

    #[test]
    fn what_takes_longer_than_usual_is_given_longer() {
        assert_ascends(&[LEAST, FIRST, DISK]);
        assert_ascends(&[FIRST, NO_BEACON]);
        assert_ascends(&[LEAST * SPACE_PAUSE_GROWS, LEAST * TIMES]);
    }

    #[test]
    fn nothing_that_an_agent_does_to_ranks_looks_like_hanging() {
        for short in [LAST_WORDS, TESTIMONY, WAKE_AGAIN] {
            assert_ascends(&[short + LOOK, STOPPED]);
        }
    }

    #[test]
    fn an_attempt_that_yields_has_time_for_its_checkpoint_and_none_to_fail() {
        assert_ascends(&[CHECKPOINT_BEHIND_ROWS, YIELD, COLLECTIVE]);
    }
}
