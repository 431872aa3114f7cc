//! Process groups, collectives and averaged gradients, by libtorch's own c10d.
//!
//! The safe surface over a C ABI shim (`csrc/`), and the only crate of the workspace with `unsafe` code.
//! It decides how a failure of libtorch is named: by rank, operation and kind. It knows nothing of trials,
//! models or retries.
//!
//! Every wait has a bound. A process that is killed is noticed at once by its neighbours
//! ([`ErrorKind::PeerLost`]); one that is stuck, after the timeout of the group ([`ErrorKind::Timeout`]).
//!
//! ```no_run
//! # use std::time::Duration;
//! # use c10d::{GlooOptions, Network, ProcessGroup, Rank, ReduceOp, Store};
//! # fn main() -> Result<(), c10d::C10dError> {
//! let (rank, timeout) = (Rank::new(1, 2).unwrap(), Duration::from_secs(60));
//! let store = Store::connect(rank, "10.0.0.7", 41000, timeout)?;
//! let group = ProcessGroup::gloo(&GlooOptions {
//!     store: &store,
//!     prefix: "a12",
//!     rank,
//!     timeout,
//!     network: Network::TowardsStore,
//! })?;
//! let loss = tch::Tensor::from_slice(&[0.5_f32]);
//! group.all_reduce(&loss, ReduceOp::Avg)?;
//! # Ok(())
//! # }
//! ```

pub mod cuda;
mod dynamic;
mod error;
mod ffi;
mod fused;
mod group;
mod nccl;
mod process;
mod reducer;
mod settings;
mod store;
mod sys;

// Links the libraries that the shim needs; none of its items is named.
use torch_sys as _;

pub use cuda::CudaError;
pub use error::{ArgumentFault, C10dError, ErrorKind, Operation, Rank, TensorFault};
pub use fused::{FusedSgd, fused_multiply, fused_norm, fused_sgd, fused_zero};
pub use group::{GlooOptions, Network, ProcessGroup, ReduceOp};
pub use nccl::{NcclError, NcclOptions, nccl_library_name, nccl_version};
pub use process::{exit_now, prepare_environment};
pub use reducer::{Reducer, ReducerOptions};
pub use settings::{Autocast, Half, Settings, channels_last};
pub use store::Store;
