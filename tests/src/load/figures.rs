//! What a load run measured, for people and for scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Times of one kind of request.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Requests.
    pub count: usize,
    /// Median in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds.
    pub p99_ms: f64,
    /// The longest in milliseconds.
    pub max_ms: f64,
}

impl Latency {
    /// Percentiles by nearest rank; `None` for no times.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let longest = times.last()?;
        let ms = |time: &Duration| time.as_secs_f64() * 1e3;
        let rank = |percent: usize| &times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self { count: times.len(), p50_ms: ms(rank(50)), p99_ms: ms(rank(99)), max_ms: ms(longest) })
    }
}

/// Memory of the coordinator in MiB.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Resident when every trial had ended.
    pub end_mib: f64,
    /// Resident at most.
    pub peak_mib: f64,
    /// Resident after a restart on the same log.
    pub restarted_mib: f64,
}

/// Everything that a run measured. Nothing is here unless every check of the run held.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Worker sessions.
    pub workers: u32,
    /// Trials that succeeded, each exactly once.
    pub trials: u64,
    /// Metric rows that were told and read back, to the bit.
    pub rows: u64,
    /// From the first launch to the last end.
    pub seconds: f64,
    /// Trials that ended in a second.
    pub trials_per_second: f64,
    /// Metric rows stored in a second.
    pub rows_per_second: f64,
    /// Events of the log.
    pub events: u64,
    /// Events appended in a second.
    pub events_per_second: f64,
    /// Sessions that were opened, first ones and those after a break.
    pub sessions: u64,
    /// Processor time of the coordinator while trials ran, in seconds.
    pub coordinator_cpu_seconds: f64,
    /// From the start of a coordinator on the log of this run to its listening.
    pub restart_seconds: f64,
    /// Size of the coordinator's data folder in MiB.
    pub disk_mib: f64,
    /// Memory of the coordinator.
    pub memory: Memory,
    /// Times by kind of request.
    pub latencies: BTreeMap<&'static str, Latency>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workers, trials, rows, seconds, .. } = self;
        writeln!(f, "{trials} trials on {workers} worker sessions, {rows} metric rows, in {seconds:.1} s")?;
        writeln!(f, "  trials/s   {:10.0}", self.trials_per_second)?;
        writeln!(f, "  rows/s     {:10.0}", self.rows_per_second)?;
        writeln!(f, "  events/s   {:10.0}   ({} events)", self.events_per_second, self.events)?;
        writeln!(f, "  sessions   {:10}", self.sessions)?;
        writeln!(
            f,
            "coordinator: {:.1} s of processor time, {:.0} MiB on disk",
            self.coordinator_cpu_seconds, self.disk_mib
        )?;
        let Memory { end_mib, peak_mib, restarted_mib } = self.memory;
        writeln!(
            f,
            "  resident {end_mib:.0} MiB at the end, {peak_mib:.0} MiB at most; restarted in {:.2} s with {restarted_mib:.0} MiB",
            self.restart_seconds
        )?;
        writeln!(f, "{:<26}{:>8}{:>12}{:>12}{:>12}", "request", "count", "p50 ms", "p99 ms", "max ms")?;
        for (name, Latency { count, p50_ms, p99_ms, max_ms }) in &self.latencies {
            writeln!(f, "{name:<26}{count:>8}{p50_ms:>12.2}{p99_ms:>12.2}{max_ms:>12.2}")?;
        }
        write!(f, "0 rows lost, 0 results lost, 0 results doubled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(times).unwrap();
        assert_eq!(
            (latency.count, latency.p50_ms, latency.p99_ms, latency.max_ms),
            (200, 100.0, 198.0, 200.0)
        );
        assert_eq!(Latency::of(vec![Duration::from_millis(7)]).unwrap().p50_ms, 7.0);
        assert!(Latency::of(Vec::new()).is_none());
    }
}
