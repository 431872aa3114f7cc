//! What an optimizer does with many parameters, in one call each, by libtorch's fused kernels. On a GPU the launches of a
//! kernel for each parameter would take longer than the kernels do.

use std::time::Duration;

use tch::Tensor;

use crate::error::{ArgumentFault, ErrorKind};
use crate::{ffi, sys};

/// Constants of a step, as `torch.optim.SGD` names them; dampening is 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusedSgd {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 for none.
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
    /// Whether the momentum buffers are to be set rather than added to.
    pub is_first_step: bool,
}

/// Makes a step of SGD with all of `params`, which have `grads`, and, unless momentum is 0, buffers in `momentum`. Where the
/// scalar `found_inf` is given and is not 0, it changes nothing; nobody waits to know whether.
///
/// # Errors
///
/// [`ErrorKind::Other`] when libtorch refuses.
///
/// # Panics
///
/// When the lists have different lengths.
pub fn fused_sgd(
    params: &[Tensor],
    grads: &[Tensor],
    momentum: &[Tensor],
    settings: FusedSgd,
    found_inf: Option<&Tensor>,
) -> Result<(), ErrorKind> {
    let buffers = if settings.momentum == 0.0 { 0 } else { params.len() };
    assert!(grads.len() == params.len() && momentum.len() == buffers, "each parameter has its own");
    let pointers = |tensors: &[Tensor]| tensors.iter().map(ffi::pointer_to).collect::<Vec<_>>();
    let (params, grads, momentum) = (pointers(params), pointers(grads), pointers(momentum));
    let settings = sys::Sgd {
        lr: settings.lr,
        momentum: settings.momentum,
        weight_decay: settings.weight_decay,
        nesterov: u8::from(settings.nesterov),
        is_first_step: u8::from(settings.is_first_step),
    };
    let momentum = if momentum.is_empty() { std::ptr::null() } else { momentum.as_ptr() };
    let found_inf = found_inf.map_or(std::ptr::null_mut(), ffi::pointer_to);
    ffi::call(Duration::ZERO, |err, err_len| {
        // SAFETY: the lists have the same length, or momentum is null; all tensors outlive the call.
        unsafe {
            sys::c10d_fused_sgd(
                params.as_ptr(),
                grads.as_ptr(),
                momentum,
                params.len(),
                settings,
                found_inf,
                err,
                err_len,
            )
        }
    })
}

/// Sets all of `tensors` to zero.
///
/// # Errors
///
/// [`ErrorKind::Other`] when libtorch refuses.
pub fn fused_zero(tensors: &[Tensor]) -> Result<(), ErrorKind> {
    let pointers: Vec<_> = tensors.iter().map(ffi::pointer_to).collect();
    ffi::call(Duration::ZERO, |err, err_len| {
        // SAFETY: the tensors outlive the call; the error pointers are valid for writes.
        unsafe { sys::c10d_fused_zero(pointers.as_ptr(), pointers.len(), err, err_len) }
    })
}

/// Multiplies all of `tensors` with the scalar `factor` of their device.
///
/// # Errors
///
/// As [`fused_zero`].
pub fn fused_multiply(tensors: &[Tensor], factor: &Tensor) -> Result<(), ErrorKind> {
    let pointers: Vec<_> = tensors.iter().map(ffi::pointer_to).collect();
    let factor = ffi::pointer_to(factor);
    ffi::call(Duration::ZERO, |err, err_len| {
        // SAFETY: as in `fused_zero`.
        unsafe { sys::c10d_fused_multiply(pointers.as_ptr(), pointers.len(), factor, err, err_len) }
    })
}

/// L2 norm of all elements of `tensors`, which have one element type, as a scalar on their device.
///
/// # Errors
///
/// As [`fused_zero`]; there has to be a tensor.
pub fn fused_norm(tensors: &[Tensor]) -> Result<Tensor, ErrorKind> {
    let Some(first) = tensors.first() else { return Err(ArgumentFault::NoParameters.into()) };
    let out = Tensor::zeros([], (first.kind(), first.device()));
    let pointers: Vec<_> = tensors.iter().map(ffi::pointer_to).collect();
    let pointer = ffi::pointer_to(&out);
    ffi::call(Duration::ZERO, |err, err_len| {
        // SAFETY: as in `fused_zero`.
        unsafe { sys::c10d_fused_norm(pointers.as_ptr(), pointers.len(), pointer, err, err_len) }
    })?;
    Ok(out)
}
