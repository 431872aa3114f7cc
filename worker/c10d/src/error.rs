//! What can go wrong between ranks, by what the caller can do about it.
//!
//! Whether an attempt is retried is decided elsewhere; here a failure only gets its kind, its rank and
//! its operation.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tch::{Device, Kind};

use crate::nccl::NcclError;

/// The place of one process in a process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rank {
    index: usize,
    world_size: usize,
}

impl Rank {
    /// The rank `index` of `world_size`; `None` when there is no such rank.
    #[must_use]
    pub fn new(index: usize, world_size: usize) -> Option<Self> {
        // c10d counts ranks in an `int`.
        let fits = i32::try_from(world_size).is_ok();
        (index < world_size && fits).then_some(Self { index, world_size })
    }

    /// The only rank of a group of one.
    #[must_use]
    pub const fn alone() -> Self {
        Self { index: 0, world_size: 1 }
    }

    /// Number of this rank, counted from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index
    }

    /// Number of ranks in the group.
    #[must_use]
    pub const fn world_size(self) -> usize {
        self.world_size
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.index, self.world_size)
    }
}

/// What a rank was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Serving the store.
    HostStore,
    /// Connecting to the store of another rank.
    ConnectStore,
    /// Meeting the other ranks.
    Join,
    /// Combining a tensor over all ranks.
    AllReduce,
    /// Copying a tensor from one rank to all.
    Broadcast,
    /// Waiting for all ranks.
    Barrier,
    /// Collecting a tensor of every rank.
    AllGather,
    /// Agreeing on the parameters and buckets of a reducer.
    NewReducer,
    /// Backward with its gradients averaged over all ranks.
    Backward,
    /// A collective that was begun before, and whose end nobody waited for.
    Collective,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostStore => "host store",
            Self::ConnectStore => "connect to store",
            Self::Join => "join process group",
            Self::AllReduce => "all-reduce",
            Self::Broadcast => "broadcast",
            Self::Barrier => "barrier",
            Self::AllGather => "all-gather",
            Self::NewReducer => "new reducer",
            Self::Backward => "backward",
            Self::Collective => "an earlier collective",
        })
    }
}

/// A failed operation, with the rank that it failed on.
#[derive(Debug, thiserror::Error)]
#[error("{rank}: {operation} failed: {kind}")]
pub struct C10dError {
    /// The rank that reports, which need not be the one to blame.
    pub rank: Rank,
    /// What it was doing.
    pub operation: Operation,
    /// Why it failed.
    #[source]
    pub kind: ErrorKind,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another rank did not take part in time: it is slow, stuck, or never started.
    #[error("no answer from another rank within {after:?} ({message})")]
    Timeout {
        /// The timeout of the group or store.
        after: Duration,
        /// The words of libtorch.
        message: String,
    },
    /// The connection to another rank, or to the store, broke: its process or its machine is gone.
    #[error("lost the connection to another rank ({message})")]
    PeerLost {
        /// The words of libtorch.
        message: String,
    },
    /// A tensor was refused before anything was sent.
    #[error("invalid tensor: {0}")]
    InvalidTensor(#[from] TensorFault),
    /// An argument was refused before anything was sent.
    #[error("invalid argument: {0}")]
    InvalidArgument(#[from] ArgumentFault),
    /// The address to listen on cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// NCCL is not there.
    #[error(transparent)]
    Nccl(#[from] NcclError),
    /// libtorch failed for another reason.
    #[error("{message}")]
    Other {
        /// The words of libtorch.
        message: String,
    },
}

/// Why a tensor cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorFault {
    /// It holds nothing.
    #[error("it is undefined")]
    Undefined,
    /// No backend of the group reaches its device.
    #[error(
        "it is on {device:?}, which the group's backends do not reach: Gloo sends from the CPU, NCCL from the rank's own GPU"
    )]
    Device {
        /// Where it is.
        device: Device,
    },
    /// Its elements are not next to each other in memory.
    #[error("it is not contiguous (shape {shape:?}); call `contiguous` first")]
    NotContiguous {
        /// Its shape.
        shape: Vec<i64>,
    },
    /// It is a sparse tensor.
    #[error("it is sparse")]
    Sparse,
    /// The backend, or the operation, has no meaning for its element type.
    #[error("element type {kind:?} is not supported")]
    Kind {
        /// Its element type.
        kind: Kind,
    },
    /// A loss has one element.
    #[error("it has shape {shape:?}, and a loss has one element")]
    NotScalar {
        /// Its shape.
        shape: Vec<i64>,
    },
    /// It takes no part in backward.
    #[error("parameter {index} does not require a gradient")]
    NoGradient {
        /// Its place among the parameters.
        index: usize,
    },
}

/// Why an argument was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentFault {
    /// There is no such rank.
    #[error("root {root} is not a rank of a group of {world_size}")]
    Root {
        /// The rank that was named.
        root: usize,
        /// Size of the group.
        world_size: usize,
    },
    /// Nothing would ever be in time.
    #[error("the timeout is shorter than a millisecond")]
    NoTimeout,
    /// The keys of two attempts would meet.
    #[error("the prefix of the store's keys is empty")]
    NoPrefix,
    /// Text that C cannot hold.
    #[error("`{text}` holds a zero byte")]
    ZeroByte {
        /// The text, its zero bytes escaped.
        text: String,
    },
    /// Other ranks could not connect to it, and everybody else could.
    #[error("the store has to listen on one address of this machine, not on {address}")]
    UnspecifiedAddress {
        /// The address that was asked for.
        address: SocketAddr,
    },
    /// A reducer without parameters has nothing to do.
    #[error("there are no parameters")]
    NoParameters,
    /// Buckets hold at least a byte.
    #[error("a bucket size is zero or too large")]
    BucketSize,
}
