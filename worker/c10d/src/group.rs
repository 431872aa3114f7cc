//! Process groups and their collectives.
//!
//! Tensors are checked here, before the call, because a rank that fails inside a collective leaves the
//! others waiting. What is reduced, and when, is the caller's business.

use std::cell::Cell;
use std::ptr;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use crate::error::{ArgumentFault, C10dError, ErrorKind, Operation, Rank, TensorFault};
use crate::ffi::{self, Handle};
use crate::nccl::{NcclLibrary, NcclOptions};
use crate::store::Store;
use crate::sys;

/// How [`ProcessGroup::all_reduce`] combines the elements of the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReduceOp {
    /// The sum.
    Sum,
    /// The sum divided by the world size; floating-point tensors only.
    Avg,
    /// The largest.
    Max,
}

impl ReduceOp {
    fn code(self) -> sys::Op {
        match self {
            Self::Sum => sys::SUM,
            Self::Avg => sys::AVG,
            Self::Max => sys::MAX,
        }
    }
}

/// The address of this machine that the other ranks connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The address from which this machine reaches the store.
    TowardsStore,
    /// A host name or an IP address of this machine.
    Host(String),
    /// A network interface by name, such as `eth0`.
    Interface(String),
}

/// What a rank needs to join a Gloo process group.
pub struct GlooOptions<'a> {
    /// Where the ranks meet.
    pub store: &'a Store,
    /// Put before every key, so that no two groups see each other's: the attempt's id, and whatever tells
    /// apart the groups of one attempt.
    pub prefix: &'a str,
    /// This process.
    pub rank: Rank,
    /// Bounds the joining, and then each collective.
    pub timeout: Duration,
    /// Where the other ranks connect to.
    pub network: Network,
}

/// A fixed set of processes, one of them this one, that compute together.
///
/// Every rank calls the same collectives in the same order with tensors of the same shape and element type.
/// After an error the group is of no more use: ranks may have stopped at different calls.
///
/// Tensors on the CPU go by Gloo, and a collective returns when this rank's part is done. Those on a GPU go by NCCL, in a
/// group that was given it ([`ProcessGroup::nccl`]): the collective is then put into the stream of the GPU's work, in which
/// what follows it waits for it, and the call returns. Whether it failed is told by [`ProcessGroup::check`].
pub struct ProcessGroup {
    rank: Rank,
    timeout: Duration,
    backend: Backend,
    /// Whether it ends because its work is done, and not because something failed.
    orderly: Cell<bool>,
}

/// What carries the tensors.
enum Backend {
    /// One process: every collective is the identity, and no socket is opened.
    Alone,
    /// Processes connected by TCP.
    Gloo(Handle<sys::Group>),
    /// The same, and NCCL between their GPUs.
    Nccl {
        group: Handle<sys::Group>,
        /// The GPU of this process.
        device: usize,
    },
}

impl ProcessGroup {
    /// The group of a single process. It needs neither store nor network.
    #[must_use]
    pub const fn alone() -> Self {
        Self {
            rank: Rank::alone(),
            timeout: Duration::MAX,
            backend: Backend::Alone,
            orderly: Cell::new(false),
        }
    }

    /// Joins the other ranks; returns when all are connected.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] when a rank does not come in time.
    pub fn gloo(options: &GlooOptions<'_>) -> Result<Self, C10dError> {
        let GlooOptions { rank, timeout, .. } = *options;
        let handle = join(options).map_err(|kind| C10dError { rank, operation: Operation::Join, kind })?;
        Ok(Self { rank, timeout, backend: Backend::Gloo(handle), orderly: Cell::new(false) })
    }

    /// Joins the other ranks by Gloo and by NCCL; returns when all are connected. One communicator of NCCL is made for the
    /// group, and ends with it.
    ///
    /// # Errors
    ///
    /// As [`ProcessGroup::gloo`]; [`ErrorKind::Nccl`] when NCCL cannot be loaded; [`ErrorKind::Other`] in NCCL's words
    /// when it finds no way between the ranks.
    pub fn nccl(options: &GlooOptions<'_>, nccl: &NcclOptions) -> Result<Self, C10dError> {
        let GlooOptions { rank, timeout, .. } = *options;
        let attached = || {
            // First, because it needs no other rank.
            let library = NcclLibrary::load(&nccl.library)?;
            let group = join(options)?;
            library.attach(&group, options, nccl)?;
            Ok(group)
        };
        let group = attached().map_err(|kind| C10dError { rank, operation: Operation::Join, kind })?;
        let backend = Backend::Nccl { group, device: nccl.device };
        Ok(Self { rank, timeout, backend, orderly: Cell::new(false) })
    }

    /// This process's rank and the size of the group.
    #[must_use]
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// The bound of each collective.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Fails when a collective of before has: NCCL's fail on a thread of its own, at a timeout or when a peer is gone, and
    /// the tensors that they were to fill then hold anything. Where the device was waited for before the call, every
    /// collective until then is covered. Gloo's fail where they are called, so in a group without NCCL nothing is asked.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] or [`ErrorKind::PeerLost`].
    pub fn check(&self) -> Result<(), C10dError> {
        self.named(Operation::Collective, || {
            let Backend::Nccl { group, .. } = &self.backend else { return Ok(()) };
            ffi::call(self.timeout, |err, err_len| {
                // SAFETY: the group outlives the call.
                unsafe { sys::c10d_group_check(group.as_ptr(), err, err_len) }
            })
        })
    }

    /// Overwrites `tensor` with the combination of the tensors of all ranks, the same to the bit on each.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidTensor`] before anything is sent; [`ErrorKind::Timeout`] or
    /// [`ErrorKind::PeerLost`] when a rank does not take part.
    pub fn all_reduce(&self, tensor: &Tensor, op: ReduceOp) -> Result<(), C10dError> {
        self.named(Operation::AllReduce, || {
            self.check_tensor(tensor)?;
            let kind = tensor.kind();
            if op == ReduceOp::Avg && !is_float(kind) {
                return Err(TensorFault::Kind { kind }.into());
            }
            let Some(group) = self.handle() else { return Ok(()) };
            let pointer = ffi::pointer_to(tensor);
            ffi::call(self.timeout, |err, err_len| {
                // SAFETY: group and tensor outlive the call, which returns only when Gloo is done with
                // the tensor's memory; the checks above are those that Gloo relies on.
                unsafe { sys::c10d_all_reduce(group.as_ptr(), pointer, op.code(), err, err_len) }
            })
        })
    }

    /// Overwrites `tensor` with that of the rank `root`.
    ///
    /// # Errors
    ///
    /// As [`ProcessGroup::all_reduce`], and [`ArgumentFault::Root`].
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), C10dError> {
        self.named(Operation::Broadcast, || {
            let world_size = self.rank.world_size();
            let root = Rank::new(root, world_size).ok_or(ArgumentFault::Root { root, world_size })?;
            self.check_tensor(tensor)?;
            let Some(group) = self.handle() else { return Ok(()) };
            let pointer = ffi::pointer_to(tensor);
            ffi::call(self.timeout, |err, err_len| {
                // SAFETY: as in `all_reduce`.
                unsafe { sys::c10d_broadcast(group.as_ptr(), pointer, as_int(root.index()), err, err_len) }
            })
        })
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] or [`ErrorKind::PeerLost`] when a rank does not take part.
    pub fn barrier(&self) -> Result<(), C10dError> {
        self.named(Operation::Barrier, || {
            let Some(group) = self.handle() else { return Ok(()) };
            ffi::call(self.timeout, |err, err_len| {
                // SAFETY: the group outlives the call.
                unsafe { sys::c10d_barrier(group.as_ptr(), err, err_len) }
            })
        })
    }

    /// Collects the tensor of every rank, in the order of ranks.
    ///
    /// # Errors
    ///
    /// As [`ProcessGroup::all_reduce`].
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, C10dError> {
        self.named(Operation::AllGather, || {
            self.check_tensor(tensor)?;
            let Some(group) = self.handle() else { return Ok(vec![tensor.detach().copy()]) };
            let like = || tensor.detach().empty_like();
            let outputs: Vec<Tensor> = (0..self.rank.world_size()).map(|_| like()).collect();
            let pointers: Vec<sys::Tensor> = outputs.iter().map(ffi::pointer_to).collect();
            let input = ffi::pointer_to(tensor);
            ffi::call(self.timeout, |err, err_len| {
                // SAFETY: as in `all_reduce`; `pointers` and the tensors behind it outlive the call.
                unsafe {
                    sys::c10d_all_gather(
                        group.as_ptr(),
                        input,
                        pointers.as_ptr(),
                        pointers.len(),
                        err,
                        err_len,
                    )
                }
            })?;
            Ok(outputs)
        })
    }

    /// The handle of the backend; `None` in a group of one.
    pub(crate) fn handle(&self) -> Option<&Handle<sys::Group>> {
        match &self.backend {
            Backend::Alone => None,
            Backend::Gloo(group) | Backend::Nccl { group, .. } => Some(group),
        }
    }

    /// Refuses what the backends cannot send.
    pub(crate) fn check_tensor(&self, tensor: &Tensor) -> Result<(), TensorFault> {
        self.check_parameter(tensor)?;
        if !tensor.is_contiguous() {
            return Err(TensorFault::NotContiguous { shape: tensor.size() });
        }
        Ok(())
    }

    /// Refuses a parameter that no reducer can take. Unlike [`check_tensor`](Self::check_tensor), its elements may lie in
    /// any order: they are sent from the reducer's own memory.
    pub(crate) fn check_parameter(&self, tensor: &Tensor) -> Result<(), TensorFault> {
        if !tensor.defined() {
            return Err(TensorFault::Undefined);
        }
        if tensor.is_sparse() {
            return Err(TensorFault::Sparse);
        }
        let (device, kind) = (tensor.device(), tensor.kind());
        let reached = match &self.backend {
            // Nothing is sent.
            Backend::Alone => true,
            Backend::Gloo(_) => device == Device::Cpu,
            Backend::Nccl { device: own, .. } => device == Device::Cpu || device == Device::Cuda(*own),
        };
        if !reached {
            return Err(TensorFault::Device { device });
        }
        let is_integer = matches!(kind, Kind::Uint8 | Kind::Int8 | Kind::Int | Kind::Int64);
        if !is_float(kind) && !is_integer {
            return Err(TensorFault::Kind { kind });
        }
        Ok(())
    }

    /// Runs `body` and gives its failure the rank and the operation.
    pub(crate) fn named<T>(
        &self,
        operation: Operation,
        body: impl FnOnce() -> Result<T, ErrorKind>,
    ) -> Result<T, C10dError> {
        body().map_err(|kind| C10dError { rank: self.rank, operation, kind })
    }

    /// Leaves the group when all work with it is done on all ranks or on its way: waits until what this rank has still to send
    /// over NCCL is sent. A group that is only dropped is aborted, because then something has failed, and a collective may wait
    /// for a rank that does not come. To Gloo it is all the same.
    pub fn leave(self) {
        self.orderly.set(true);
    }
}

impl Drop for ProcessGroup {
    /// Ends NCCL's communicator, as [`ProcessGroup::leave`] says.
    fn drop(&mut self) {
        let Backend::Nccl { group, .. } = &self.backend else { return };
        // There is nobody to tell, and a drop does not panic.
        let _ = ffi::call(self.timeout, |err, err_len| {
            // SAFETY: the group outlives the call; after it, it is only freed.
            unsafe {
                if self.orderly.get() {
                    sys::c10d_group_shutdown(group.as_ptr(), err, err_len)
                } else {
                    sys::c10d_group_abort(group.as_ptr(), err, err_len)
                }
            }
        });
    }
}

fn join(options: &GlooOptions<'_>) -> Result<Handle<sys::Group>, ErrorKind> {
    if options.prefix.is_empty() {
        return Err(ArgumentFault::NoPrefix.into());
    }
    let timeout_ms = ffi::milliseconds(options.timeout)?;
    let prefix = ffi::c_string(options.prefix)?;
    let (host, interface) = match &options.network {
        Network::TowardsStore => (Some(options.store.local_address()?), None),
        Network::Host(host) => (Some(host.clone()), None),
        Network::Interface(interface) => (None, Some(interface.clone())),
    };
    let host = host.as_deref().map(ffi::c_string).transpose()?;
    let interface = interface.as_deref().map(ffi::c_string).transpose()?;
    Handle::new(options.timeout, sys::c10d_group_free, |out, err, err_len| {
        // SAFETY: the store and the strings outlive the call, exactly one of host and interface is not
        // null, and the out and error pointers are valid for writes.
        unsafe {
            sys::c10d_group_gloo(
                options.store.handle.as_ptr(),
                prefix.as_ptr(),
                as_int(options.rank.index()),
                as_int(options.rank.world_size()),
                timeout_ms,
                host.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
                interface.as_ref().map_or(ptr::null(), |text| text.as_ptr()),
                out,
                err,
                err_len,
            )
        }
    })
}

/// A rank or world size for c10d.
pub(crate) fn as_int(number: usize) -> i32 {
    i32::try_from(number).expect("`Rank::new` lets no larger world size pass")
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(result: Result<(), C10dError>) -> TensorFault {
        match result.unwrap_err().kind {
            ErrorKind::InvalidTensor(fault) => fault,
            other => panic!("refused for another reason: {other}"),
        }
    }

    #[test]
    fn a_group_of_one_leaves_every_tensor_as_it_is() {
        let group = ProcessGroup::alone();
        let tensor = Tensor::from_slice(&[1.0_f32, 2.0]);
        for op in [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::Max] {
            group.all_reduce(&tensor, op).unwrap();
        }
        group.broadcast(&tensor, 0).unwrap();
        group.barrier().unwrap();
        let gathered = group.all_gather(&tensor).unwrap();
        assert_eq!(gathered.len(), 1);
        assert_eq!(Vec::<f32>::try_from(&gathered[0]).unwrap(), [1.0, 2.0]);
        assert_eq!(Vec::<f32>::try_from(&tensor).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn what_a_gathered_tensor_holds_does_not_follow_its_source() {
        let tensor = Tensor::from_slice(&[1.0_f32]);
        let gathered = ProcessGroup::alone().all_gather(&tensor).unwrap();
        let _ = tensor.shallow_clone().fill_(7.0);
        assert_eq!(gathered[0].double_value(&[0]), 1.0);
    }

    #[test]
    fn a_tensor_that_is_not_contiguous_is_refused_with_its_shape() {
        let tensor = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).tr();
        let fault = refusal(ProcessGroup::alone().all_reduce(&tensor, ReduceOp::Sum));
        assert_eq!(fault, TensorFault::NotContiguous { shape: vec![3, 2] });
    }

    #[test]
    fn element_types_without_a_meaning_are_refused() {
        let group = ProcessGroup::alone();
        let complex = Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu));
        let fault = refusal(group.all_reduce(&complex, ReduceOp::Sum));
        assert_eq!(fault, TensorFault::Kind { kind: Kind::ComplexFloat });
        let count = Tensor::from_slice(&[1_i64]);
        let fault = refusal(group.all_reduce(&count, ReduceOp::Avg));
        assert_eq!(fault, TensorFault::Kind { kind: Kind::Int64 });
        group.all_reduce(&count, ReduceOp::Sum).unwrap();
    }

    #[test]
    fn undefined_and_sparse_tensors_are_refused() {
        let group = ProcessGroup::alone();
        assert_eq!(refusal(group.broadcast(&Tensor::new(), 0)), TensorFault::Undefined);
        let sparse = Tensor::eye(2, (Kind::Float, Device::Cpu)).to_sparse(None, None::<&[i64]>, None);
        assert_eq!(refusal(group.broadcast(&sparse, 0)), TensorFault::Sparse);
    }

    #[test]
    fn a_root_that_is_no_rank_is_refused() {
        let error = ProcessGroup::alone().broadcast(&Tensor::from_slice(&[1.0_f32]), 1).unwrap_err();
        assert!(matches!(
            error.kind,
            ErrorKind::InvalidArgument(ArgumentFault::Root { root: 1, world_size: 1 })
        ));
        assert_eq!(error.rank, Rank::alone());
        assert_eq!(error.operation, Operation::Broadcast);
    }
}
