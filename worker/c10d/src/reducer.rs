//! Averaged gradients: the engine of PyTorch's `DistributedDataParallel`.
//!
//! Gradients are reduced in buckets while backward still computes the earlier ones. Buffers (running
//! statistics of normalisation layers) are not touched.

use tch::Tensor;

use crate::error::{ArgumentFault, C10dError, ErrorKind, Operation, Rank, TensorFault};
use crate::ffi::{self, Handle};
use crate::group::ProcessGroup;
use crate::sys;

/// Sizes of the buckets, in bytes of gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReducerOptions {
    /// The first bucket to be ready; smaller, so that the network starts early.
    pub first_bucket_bytes: usize,
    /// Every other bucket.
    pub bucket_bytes: usize,
}

impl Default for ReducerOptions {
    /// 1 MiB and 25 MiB, as in PyTorch.
    fn default() -> Self {
        Self { first_bucket_bytes: 1 << 20, bucket_bytes: 25 << 20 }
    }
}

/// Makes the gradients of a fixed list of parameters the averages over all ranks, during backward.
///
/// Averages are the same to the bit on every rank, and depend on nothing but the gradients: a reducer that
/// is made anew in the middle of training gives the same averages as one that was kept.
pub struct Reducer {
    rank: Rank,
    timeout: std::time::Duration,
    /// `None` in a group of one.
    handle: Option<Handle<sys::Reducer>>,
}

impl Reducer {
    /// Makes a reducer for `params`, in the same order on every rank. A collective.
    ///
    /// Values are not synchronised: broadcast them before, or initialise every rank alike. Gradients that
    /// exist are kept as they are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidTensor`] for a parameter that cannot be reduced; [`ErrorKind::Other`] when the
    /// ranks have parameters of different number or shape.
    pub fn new(group: &ProcessGroup, params: &[Tensor], options: ReducerOptions) -> Result<Self, C10dError> {
        let handle = group.named(Operation::NewReducer, || {
            if params.is_empty() {
                return Err(ArgumentFault::NoParameters.into());
            }
            for (index, param) in params.iter().enumerate() {
                group.check_parameter(param)?;
                if !param.requires_grad() {
                    return Err(TensorFault::NoGradient { index }.into());
                }
            }
            let first_bucket_bytes = bucket(options.first_bucket_bytes)?;
            let bucket_bytes = bucket(options.bucket_bytes)?;
            let Some(group_handle) = group.handle() else { return Ok(None) };
            let pointers: Vec<sys::Tensor> = params.iter().map(ffi::pointer_to).collect();
            let new = Handle::new(group.timeout(), sys::c10d_reducer_free, |out, err, err_len| {
                // SAFETY: group and parameters outlive the call, and the shim keeps references of its
                // own to both; the out and error pointers are valid for writes.
                unsafe {
                    sys::c10d_reducer_new(
                        group_handle.as_ptr(),
                        pointers.as_ptr(),
                        pointers.len(),
                        first_bucket_bytes,
                        bucket_bytes,
                        out,
                        err,
                        err_len,
                    )
                }
            });
            new.map(Some)
        })?;
        Ok(Self { rank: group.rank(), timeout: group.timeout(), handle })
    }

    /// Computes the gradients of `loss` and averages them over the ranks; on return they are in place.
    ///
    /// A collective. Every parameter of the reducer takes part in `loss`, on every rank. A gradient that was
    /// there before is added to before the averaging, so set it to zero first. Plain
    /// [`Tensor::backward`] must not be called on the same parameters while the reducer lives.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] or [`ErrorKind::PeerLost`] when a rank does not take part;
    /// [`ErrorKind::Other`] when a parameter got no gradient in the call before.
    pub fn backward(&mut self, loss: &Tensor) -> Result<(), C10dError> {
        let run = || -> Result<(), ErrorKind> {
            if !loss.defined() {
                return Err(TensorFault::Undefined.into());
            }
            if loss.numel() != 1 {
                return Err(TensorFault::NotScalar { shape: loss.size() }.into());
            }
            let Some(handle) = &self.handle else {
                let backward = loss.f_backward();
                return backward.map_err(|error| ErrorKind::Other { message: error.to_string() });
            };
            let pointer = ffi::pointer_to(loss);
            ffi::call(self.timeout, |err, err_len| {
                // SAFETY: reducer and loss outlive the call, and `&mut self` keeps a second backward out.
                unsafe { sys::c10d_reducer_backward(handle.as_ptr(), pointer, err, err_len) }
            })
        };
        run().map_err(|kind| C10dError { rank: self.rank, operation: Operation::Backward, kind })
    }
}

fn bucket(bytes: usize) -> Result<i64, ArgumentFault> {
    i64::try_from(bytes).ok().filter(|&bytes| bytes > 0).ok_or(ArgumentFault::BucketSize)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn parameter(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    #[test]
    fn in_a_group_of_one_the_gradients_are_those_of_plain_backward() {
        let param = parameter(&[2.0, 3.0]);
        let mut reducer =
            Reducer::new(&ProcessGroup::alone(), &[param.shallow_clone()], ReducerOptions::default())
                .unwrap();
        reducer.backward(&(&param * &param).sum(Kind::Float)).unwrap();
        assert_eq!(Vec::<f32>::try_from(param.grad()).unwrap(), [4.0, 6.0]);
    }

    #[test]
    fn a_parameter_without_gradient_is_refused_by_its_place() {
        let params = [parameter(&[1.0]), Tensor::from_slice(&[1.0_f32])];
        let new = Reducer::new(&ProcessGroup::alone(), &params, ReducerOptions::default());
        let error = new.err().unwrap();
        assert!(matches!(error.kind, ErrorKind::InvalidTensor(TensorFault::NoGradient { index: 1 })));
        assert_eq!(error.operation, Operation::NewReducer);
    }

    #[test]
    fn no_parameters_and_empty_buckets_are_refused() {
        let group = ProcessGroup::alone();
        let none = Reducer::new(&group, &[], ReducerOptions::default()).err().unwrap();
        assert!(matches!(none.kind, ErrorKind::InvalidArgument(ArgumentFault::NoParameters)));
        let options = ReducerOptions { bucket_bytes: 0, ..ReducerOptions::default() };
        let empty = Reducer::new(&group, &[parameter(&[1.0])], options).err().unwrap();
        assert!(matches!(empty.kind, ErrorKind::InvalidArgument(ArgumentFault::BucketSize)));
    }

    #[test]
    fn a_loss_of_more_than_one_element_is_refused() {
        let param = parameter(&[1.0, 2.0]);
        let group = ProcessGroup::alone();
        let mut reducer = Reducer::new(&group, &[param.shallow_clone()], ReducerOptions::default()).unwrap();
        let error = reducer.backward(&(&param * 2.0)).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::InvalidTensor(TensorFault::NotScalar { .. })));
        let undefined = reducer.backward(&Tensor::new()).unwrap_err();
        assert!(matches!(undefined.kind, ErrorKind::InvalidTensor(TensorFault::Undefined)));
        let detached = Tensor::zeros([], (Kind::Float, Device::Cpu));
        assert!(matches!(reducer.backward(&detached).unwrap_err().kind, ErrorKind::Other { .. }));
    }
}
