//! The ranks of an attempt: how they meet, and what they must agree on.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use c10d::{C10dError, GlooOptions, NcclOptions, Network, ProcessGroup, Rank, ReduceOp, Store};
use common::beacon::Phase;
use common::report::{Launch, Report};
use common::spec::RunPolicy;
use common::timeouts::ranks::{COLLECTIVE, SCORING};
use tch::{Device, Kind, Tensor};

use crate::agent::{Agent, NoRendezvous};
use crate::beacon::Beacon;

/// Why ranks do not work together.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The launch names no rank of the group.
    #[error("there is no rank {rank} of {world_size}")]
    Rank {
        /// The rank.
        rank: u32,
        /// The world size.
        world_size: u32,
    },
    /// The host of this rank has no address.
    #[error("`{host}` is not an address of this machine")]
    Host {
        /// What the launch names.
        host: String,
        /// Why it does not resolve.
        source: io::Error,
    },
    /// The address of the rendezvous store is not one.
    #[error("`{0}` is not `host:port`")]
    Address(String),
    /// The address did not come.
    #[error(transparent)]
    NoRendezvous(#[from] NoRendezvous),
    /// A collective failed.
    #[error(transparent)]
    Collective(#[from] C10dError),
    /// The ranks have different weights: memory was corrupted, or the ranks' machines compute differently.
    #[error("the weights of the ranks differ after training; the result is not used")]
    Diverged,
}

/// The process group of a launch, and the store that the ranks met at.
pub struct Group {
    process: ProcessGroup,
    /// Rank 0 serves it to the others for as long as it lives.
    _store: Option<Store>,
    beacon: Rc<Beacon>,
}

impl Group {
    /// Joins the other ranks. Rank 0 hosts the store and reports where; the others are told by the agent.
    /// One rank alone opens no socket.
    ///
    /// # Errors
    ///
    /// [`GroupError`] when the ranks do not find each other in time.
    pub fn join(launch: &Launch, agent: &Agent, device: Device) -> Result<Self, GroupError> {
        if launch.world_size == 1 && launch.rank == 0 {
            return Ok(Self { beacon: Rc::clone(&agent.beacon), ..Self::alone() });
        }
        agent.beacon.enter(Phase::Rendezvous, 0);
        let rank = Rank::new(launch.rank as usize, launch.world_size as usize)
            .ok_or(GroupError::Rank { rank: launch.rank, world_size: launch.world_size })?;
        let store = if rank.index() == 0 {
            let store = Store::host(rank, resolve(&launch.host)?, COLLECTIVE)?;
            let address = format!("{}:{}", launch.host, store.port());
            tracing::info!(address, "rendezvous store is up");
            agent.reporter.send(&Report::Rendezvous { address });
            store
        } else {
            let address = agent.commands.rendezvous(COLLECTIVE)?;
            let (host, port) = split_address(&address).ok_or(GroupError::Address(address.clone()))?;
            Store::connect(rank, host, port, COLLECTIVE)?
        };
        let options = GlooOptions {
            store: &store,
            prefix: &launch.attempt.to_string(),
            rank,
            timeout: patience(&launch.policy),
            network: Network::Host(launch.host.clone()),
        };
        let process = match device {
            Device::Cuda(device) => {
                let library = nccl_library();
                // Any name that no other rank has.
                let host_id = launch.shares_device.then(|| format!("{}-{}", launch.host, std::process::id()));
                let nccl = NcclOptions { library, device, high_priority: true, host_id };
                ProcessGroup::nccl(&options, &nccl)?
            }
            Device::Cpu | Device::Mps | Device::Vulkan => ProcessGroup::gloo(&options)?,
        };
        tracing::info!(world_size = launch.world_size, ?device, "process group joined");
        Ok(Self { process, _store: Some(store), beacon: Rc::clone(&agent.beacon) })
    }

    /// A group of one, which opens no socket.
    pub fn alone() -> Self {
        Self { process: ProcessGroup::alone(), _store: None, beacon: Beacon::dark() }
    }

    /// The process group, for the reducer.
    pub fn process(&self) -> &ProcessGroup {
        &self.process
    }

    /// Where this rank says what it does.
    pub fn beacon(&self) -> &Beacon {
        &self.beacon
    }

    /// Runs a collective, and says so meanwhile. That of one rank is none.
    fn together<T>(&self, collective: impl FnOnce() -> T) -> T {
        if self.is_alone() { collective() } else { self.beacon.during(Phase::Collective, collective) }
    }

    /// Whether this rank speaks for the trial: it reports, and writes checkpoints.
    pub fn is_first(&self) -> bool {
        self.process.rank().index() == 0
    }

    /// Whether there is no other rank.
    pub fn is_alone(&self) -> bool {
        self.process.rank().world_size() == 1
    }

    /// Overwrites `tensors` with those of rank 0.
    ///
    /// # Errors
    ///
    /// [`GroupError::Collective`] when a rank does not take part.
    pub fn broadcast<'a>(&self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<(), GroupError> {
        for tensor in tensors {
            let mut tensor = tensor.detach();
            if tensor.is_contiguous() {
                self.together(|| self.process.broadcast(&tensor, 0))?;
            } else {
                let packed = tensor.contiguous();
                self.together(|| self.process.broadcast(&packed, 0))?;
                tensor.copy_(&packed);
            }
        }
        Ok(())
    }

    /// Mean of a floating-point tensor over the ranks.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn mean(&self, tensor: &Tensor) -> Result<Tensor, GroupError> {
        let mean = tensor.detach().copy();
        self.together(|| self.process.all_reduce(&mean, ReduceOp::Avg))?;
        Ok(mean)
    }

    /// Sum of a tensor over the ranks.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn sum(&self, tensor: &Tensor) -> Result<Tensor, GroupError> {
        let sum = tensor.detach().copy();
        self.together(|| self.process.all_reduce(&sum, ReduceOp::Sum))?;
        Ok(sum)
    }

    /// The largest of each element over the ranks.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn max(&self, tensor: &Tensor) -> Result<Tensor, GroupError> {
        let max = tensor.detach().copy();
        self.together(|| self.process.all_reduce(&max, ReduceOp::Max))?;
        Ok(max)
    }

    /// The rows of all ranks, in their order; every rank has equally many.
    ///
    /// # Errors
    ///
    /// As [`broadcast`](Self::broadcast).
    pub fn gather_rows(&self, rows: &Tensor) -> Result<Tensor, GroupError> {
        Ok(Tensor::cat(&self.together(|| self.process.all_gather(&rows.detach().contiguous()))?, 0))
    }

    /// Leaves the ranks at the end of their work; a group that is only dropped is one that has failed.
    pub fn leave(self) {
        self.process.leave();
    }

    /// Fails when a collective of before has failed. On a GPU that comes to light later than where it was called, so this is
    /// asked, after the device was waited for, before anything that it computed leaves the rank.
    ///
    /// # Errors
    ///
    /// [`GroupError::Collective`] when one has.
    pub fn check(&self) -> Result<(), GroupError> {
        Ok(self.process.check()?)
    }

    /// Checks that all ranks hold the same bits. Every rank gets the same answer.
    ///
    /// # Errors
    ///
    /// [`GroupError::Diverged`] when they do not.
    pub fn check_equal<'a>(&self, tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<(), GroupError> {
        let mine = digest(tensors);
        let all = self.together(|| self.process.all_gather(&mine))?;
        if all.iter().all(|other| *other == mine) { Ok(()) } else { Err(GroupError::Diverged) }
    }
}

/// How long ranks wait for each other in a collective.
fn patience(policy: &RunPolicy) -> Duration {
    // Rank 0 scores while the others wait.
    if policy.keep_best.is_some() { SCORING } else { COLLECTIVE }
}

/// Names NCCL's library where it does not lie beside the program.
const NCCL: &str = "CREDENCE_NCCL";

/// NCCL's library: the one that the environment names, else the one beside this program.
fn nccl_library() -> PathBuf {
    if let Some(path) = std::env::var_os(NCCL).filter(|path| !path.is_empty()) {
        return path.into();
    }
    let name = c10d::nccl_library_name();
    let own = std::env::current_exe().ok();
    own.and_then(|own| Some(own.parent()?.join(name))).unwrap_or_else(|| name.into())
}

fn resolve(host: &str) -> Result<SocketAddr, GroupError> {
    let failed = |source| GroupError::Host { host: host.to_owned(), source };
    let mut addresses = (bare(host), 0).to_socket_addrs().map_err(failed)?;
    addresses.next().ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    Some((bare(host), port.parse().ok()?))
}

/// A literal IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// BLAKE3 digest of the bytes of `tensors`, as four integers, which every backend can send.
fn digest<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Tensor {
    let mut hasher = blake3::Hasher::new();
    for tensor in tensors {
        // sync: copies the tensor to the host; once, after training.
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        hasher.update(&bytes);
    }
    Tensor::from_data_size(hasher.finalize().as_bytes(), &[4], Kind::Int64)
}

#[cfg(test)]
mod tests {
    use common::spec::Scoring;

    use super::*;

    #[test]
    fn ranks_wait_longer_where_one_scores_meanwhile() {
        let plain = RunPolicy { keep_best: None, ..RunPolicy::default() };
        assert_eq!(patience(&plain), COLLECTIVE);
        let scoring = Some(Scoring { samples: 1, batch_size: 1 });
        assert!(patience(&RunPolicy { keep_best: scoring, ..plain }) > COLLECTIVE);
    }

    #[test]
    fn addresses_of_both_families_are_split() {
        assert_eq!(split_address("node-3.example:4711"), Some(("node-3.example", 4711)));
        assert_eq!(split_address("[::1]:29500"), Some(("::1", 29500)));
        for text in ["node", "node:", "node:port", "node:70000"] {
            assert_eq!(split_address(text), None, "{text}");
        }
    }

    #[test]
    fn a_digest_depends_on_every_bit() {
        let one = Tensor::from_slice(&[1.0f32, 0.0]);
        let other = Tensor::from_slice(&[1.0f32, -0.0]);
        assert_eq!(digest([&one]), digest([&one.copy()]));
        assert_ne!(digest([&one]), digest([&other]));
    }
}
