//! Settings of the coordinator. `default.toml` is their documentation.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use common::timeouts::{Timeouts, ranks};
use coordinator_core::{Policy, ProjectPolicy};
use serde::Deserialize;

use crate::driver::Limits;

/// The commented defaults: every key, and what it means.
pub const DEFAULT: &str = include_str!("../default.toml");

/// Heartbeats that must be lost before a lease ends: one late message must not cost a worker.
const HEARTBEATS: u32 = 3;

/// Settings of the coordinator. See [`DEFAULT`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Address to listen on. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// Folder of everything that must survive.
    pub data_dir: PathBuf,
    /// Silence after which a worker is lost.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// Time between heartbeats; zero for what the lease asks for.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Time without a new step after which a running attempt has stalled; zero to never judge.
    #[serde(with = "humantime_serde")]
    pub stall_limit: Duration,
    /// Attempts in a row that may lose a worker before their trial fails.
    pub max_workers_lost: NonZeroU32,
    /// Checkpoints kept for a trial that has not succeeded.
    pub keep_checkpoints: NonZeroUsize,
    /// Largest blob that is accepted, in bytes.
    pub max_blob_bytes: u64,
    /// Events after which the log is compacted, at least.
    pub snapshot_events: NonZeroU64,
    /// Time that an elastic trial runs with the ranks that it has before it is given more.
    #[serde(with = "humantime_serde")]
    pub resize_after: Duration,
    /// What each project may use.
    pub projects: BTreeMap<String, Project>,
}

/// What a project may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Project {
    /// Its part of the slots, relative to the weights of the others that want some.
    #[serde(default = "one")]
    pub weight: NonZeroU32,
    /// Slots that it may use at once; no limit where it is left out.
    #[serde(default)]
    pub quota: Option<u32>,
}

impl From<&Project> for ProjectPolicy {
    fn from(&Project { weight, quota }: &Project) -> Self {
        Self { weight, quota }
    }
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Heartbeats too rare for the lease.
    #[error(
        "`lease` ({lease:?}) must be at least {HEARTBEATS} times `heartbeat` ({heartbeat:?}), and longer than 0"
    )]
    LeaseTooShort {
        /// The lease.
        lease: Duration,
        /// The heartbeat.
        heartbeat: Duration,
    },
    /// A lease after whose end its worker's peers have given up by themselves.
    #[error(
        "`lease` ({lease:?}) must be shorter than {:?}: ranks that wait for a lost worker's give up by themselves after {:?}, \
         and that would count against the budget of their trial",
        ranks::LEASES_BELOW,
        ranks::COLLECTIVE
    )]
    LeaseTooLong {
        /// The lease.
        lease: Duration,
    },
    /// A stall limit that a lost worker would look like.
    #[error("`stall-limit` ({stall_limit:?}) must be longer than `lease` ({lease:?}), or 0s to never judge")]
    StallTooShort {
        /// The stall limit.
        stall_limit: Duration,
        /// The lease.
        lease: Duration,
    },
    /// No checkpoint fits.
    #[error("`max-blob-bytes` must be larger than 0")]
    NoBlobs,
}

impl Config {
    /// Checks what no single key can say.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the keys and the rule.
    pub fn validated(self) -> Result<Self, ConfigError> {
        let Self { lease, stall_limit, max_blob_bytes, .. } = self;
        let (heartbeat, timeouts) = (self.heartbeat(), Timeouts::of(lease));
        if lease < heartbeat.saturating_mul(HEARTBEATS) || !timeouts.in_order(heartbeat, None) {
            return Err(ConfigError::LeaseTooShort { lease, heartbeat });
        }
        if !timeouts.suits_ranks() {
            return Err(ConfigError::LeaseTooLong { lease });
        }
        let stall = (!stall_limit.is_zero()).then_some(stall_limit);
        if !timeouts.in_order(heartbeat, stall) {
            return Err(ConfigError::StallTooShort { stall_limit, lease });
        }
        if max_blob_bytes == 0 {
            return Err(ConfigError::NoBlobs);
        }
        Ok(self)
    }

    /// Time between heartbeats.
    pub fn heartbeat(&self) -> Duration {
        if self.heartbeat.is_zero() { Timeouts::of(self.lease).heartbeat() } else { self.heartbeat }
    }

    pub(crate) fn limits(&self) -> Limits {
        let policy = Policy {
            lease: self.lease,
            stall: (!self.stall_limit.is_zero()).then_some(self.stall_limit),
            max_workers_lost: self.max_workers_lost,
            checkpoints: self.keep_checkpoints,
            projects: self.projects.iter().map(|(name, project)| (name.clone(), project.into())).collect(),
            resize_after: self.resize_after,
            ..Policy::default()
        };
        Limits { policy, heartbeat: self.heartbeat(), snapshot_events: self.snapshot_events.get() }
    }
}

#[cfg(test)]
mod tests {
    use common::config::{Layers, load};

    use super::*;

    fn default_with(overrides: &[(&str, &str)]) -> Config {
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let layers = Layers {
            default: DEFAULT,
            file: None,
            env_prefix: "CREDENCE_COORDINATOR_TEST",
            overrides: &overrides,
        };
        load(layers).unwrap()
    }

    #[test]
    fn the_embedded_default_is_valid_and_listens_on_loopback_only() {
        let config = default_with(&[]).validated().unwrap();
        assert!(config.listen.ip().is_loopback());
        assert_eq!(config.limits().policy, Policy::default());
    }

    #[test]
    fn a_project_has_weight_1_and_no_quota_unless_it_is_said() {
        let projects = "{ vision = { weight = 3, quota = 8 }, other = {} }".to_owned();
        let config = default_with(&[("projects", &projects)]);
        let policy = config.limits().policy;
        let vision = ProjectPolicy { weight: NonZeroU32::new(3).unwrap(), quota: Some(8) };
        assert_eq!(policy.project("vision"), vision);
        assert_eq!(policy.project("other"), ProjectPolicy::default());
        assert_eq!(policy.project("not named"), ProjectPolicy::default());
    }

    #[test]
    fn a_lease_shorter_than_three_heartbeats_is_refused() {
        let config = default_with(&[("lease", "14s"), ("heartbeat", "5s")]);
        let (lease, heartbeat) = (config.lease, config.heartbeat());
        assert_eq!(config.validated(), Err(ConfigError::LeaseTooShort { lease, heartbeat }));
        default_with(&[("lease", "15s"), ("heartbeat", "5s")]).validated().unwrap();
        assert!(default_with(&[("lease", "0s")]).validated().is_err());
    }

    #[test]
    fn a_lease_that_ranks_do_not_wait_for_is_refused_with_the_longest_that_they_do() {
        let error = default_with(&[("lease", "200s")]).validated().unwrap_err();
        assert_eq!(error, ConfigError::LeaseTooLong { lease: Duration::from_secs(200) });
        assert!(error.to_string().contains("shorter than 200s"), "{error}");
        default_with(&[("lease", "199s")]).validated().unwrap();
    }

    #[test]
    fn heartbeats_follow_from_the_lease_unless_they_are_chosen() {
        assert_eq!(default_with(&[("lease", "10s")]).limits().heartbeat, Duration::from_secs(2));
        let chosen = default_with(&[("lease", "10s"), ("heartbeat", "1s")]);
        assert_eq!(chosen.limits().heartbeat, Duration::from_secs(1));
    }

    #[test]
    fn a_stall_limit_within_the_lease_is_refused_unless_it_is_off() {
        let error = default_with(&[("stall-limit", "20s"), ("lease", "20s")]).validated().unwrap_err();
        assert!(matches!(error, ConfigError::StallTooShort { .. }), "{error}");
        let off = default_with(&[("stall-limit", "0s")]).validated().unwrap();
        assert_eq!(off.limits().policy.stall, None);
    }
}
