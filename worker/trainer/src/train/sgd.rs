//! Stochastic gradient descent with momentum, as `torch.optim.SGD` computes it (dampening 0).
//!
//! libtorch's own optimizer is not used: tch neither saves nor loads its momentum buffers, and a
//! resumed run without them is another run.

use c10d::FusedSgd;
use common::spec::{TrainMethod, TrainSpec};
use tch::{Kind, Tensor};

use crate::model::{NamedTensor, Owner, Role};

/// What the optimizer keeps of one parameter.
struct Slot {
    name: String,
    weight: Tensor,
    decay: f64,
    /// Part of the learning rate.
    lr_factor: f64,
    /// Absent before the first step, as in PyTorch: a buffer of zeros would differ in the sign of zero.
    momentum: Option<Tensor>,
}

/// The optimizer of one network.
pub struct Sgd {
    slots: Vec<Slot>,
    momentum: f64,
    nesterov: bool,
    kernel: Kernel,
}

/// How an update is computed. The results differ in last bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Parameter by parameter.
    Each,
    /// All parameters of equal constants at once, in libtorch's fused kernel: on a GPU the launches of the many small
    /// kernels would take longer than they do.
    Fused,
}

/// Constants of the update.
#[derive(Clone, Copy, Debug)]
pub struct SgdSettings {
    /// Momentum; 0 keeps no buffers.
    pub momentum: f64,
    /// Nesterov's form.
    pub nesterov: bool,
    /// L2 penalty of the parameters that have one.
    pub weight_decay: f64,
    /// Learning rate of what is a member's own, as a part of everything else's.
    pub member_lr_factor: f64,
}

impl SgdSettings {
    /// Those of a trial.
    pub fn of(spec: &TrainSpec) -> Self {
        Self {
            momentum: spec.recipe.momentum,
            nesterov: spec.recipe.nesterov,
            weight_decay: spec.recipe.weight_decay,
            member_lr_factor: match &spec.method {
                TrainMethod::BatchEnsemble(settings) => settings.member_lr_factor,
                TrainMethod::Deterministic
                | TrainMethod::Dropout(_)
                | TrainMethod::LpBnn(_)
                | TrainMethod::RankOne(_)
                | TrainMethod::Mimo(_)
                | TrainMethod::Packed(_)
                | TrainMethod::Masksembles(_)
                | TrainMethod::Evidential(_)
                | TrainMethod::Duq(_)
                | TrainMethod::Sngp(_)
                | TrainMethod::Tradi(_)
                | TrainMethod::Swag(_)
                | TrainMethod::Snapshots(_) => 1.0,
            },
        }
    }
}

impl Sgd {
    /// An optimizer of the trainable ones among `tensors`.
    pub fn new(tensors: &[NamedTensor], settings: SgdSettings) -> Self {
        let slots = tensors.iter().filter_map(|named| match named.role {
            Role::Weight { decay, owner } => Some(Slot {
                name: named.name.clone(),
                weight: named.tensor.shallow_clone(),
                decay: if decay { settings.weight_decay } else { 0.0 },
                lr_factor: match owner {
                    Owner::Network => 1.0,
                    Owner::Member => settings.member_lr_factor,
                },
                momentum: None,
            }),
            Role::Frozen | Role::Buffer | Role::State => None,
        });
        let slots = slots.collect();
        Self { slots, momentum: settings.momentum, nesterov: settings.nesterov, kernel: Kernel::Each }
    }

    /// The same, with updates that are computed by `kernel`.
    pub fn computed_by(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// Gives every parameter a gradient of zeros.
    ///
    /// tch can only clear gradients in place, so from the second step on they are accumulated into zeros,
    /// which turns −0 into +0. Starting from zeros makes the first step of a resumed run no exception.
    pub fn materialise_gradients(&mut self) {
        let sums: Vec<Tensor> = self.slots.iter().map(|slot| slot.weight.sum(Kind::Float) * 0.0).collect();
        if !sums.is_empty() {
            Tensor::stack(&sums, 0).sum(Kind::Float).backward();
        }
        self.slots.iter_mut().for_each(|slot| slot.weight.zero_grad());
    }

    /// Clears all gradients.
    ///
    /// # Errors
    ///
    /// When libtorch refuses.
    pub fn zero_grad(&mut self) -> Result<(), c10d::ErrorKind> {
        match self.kernel {
            Kernel::Each => {
                self.slots.iter_mut().for_each(|slot| slot.weight.zero_grad());
                Ok(())
            }
            Kernel::Fused => c10d::fused_zero(&self.gradients()),
        }
    }

    fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.weight.grad()).collect()
    }

    /// The trainable parameters, in the network's order.
    pub fn weights(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.weight.shallow_clone()).collect()
    }

    /// Global L2 norm of the gradients, as a scalar on their device.
    ///
    /// # Errors
    ///
    /// When libtorch refuses.
    pub fn grad_norm(&self) -> Result<Tensor, c10d::ErrorKind> {
        match self.kernel {
            Kernel::Each => {
                let _no_grad = tch::no_grad_guard();
                let norms: Vec<Tensor> = self.gradients().iter().map(Tensor::norm).collect();
                Ok(Tensor::stack(&norms, 0).norm())
            }
            Kernel::Fused => c10d::fused_norm(&self.gradients()),
        }
    }

    /// What gradients whose global norm is `norm` are to be multiplied with so that it is at most `limit`.
    ///
    /// Source: `torch.nn.utils.clip_grad_norm_`, of which it has the 1e-6. Everything stays on the device.
    pub fn clip_factor(norm: &Tensor, limit: f64) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        ((norm + 1e-6).reciprocal() * limit).clamp_max(1.0)
    }

    /// Multiplies every gradient with a scalar on the device.
    ///
    /// # Errors
    ///
    /// When libtorch refuses.
    pub fn multiply_gradients(&mut self, factor: &Tensor) -> Result<(), c10d::ErrorKind> {
        match self.kernel {
            Kernel::Each => {
                let _no_grad = tch::no_grad_guard();
                for mut gradient in self.gradients() {
                    let _ = gradient.g_mul_(factor);
                }
                Ok(())
            }
            Kernel::Fused => c10d::fused_multiply(&self.gradients(), factor),
        }
    }

    /// One update with learning rate `lr`. Where the scalar `found_inf` is given, which needs the fused kernel, and is not 0,
    /// nothing changes; the host does not wait to know whether.
    ///
    /// # Errors
    ///
    /// When libtorch refuses, as for lack of memory.
    pub fn step(&mut self, lr: f64, found_inf: Option<&Tensor>) -> Result<(), c10d::ErrorKind> {
        match (self.kernel, found_inf) {
            (Kernel::Each, None) => {
                self.step_each(lr);
                Ok(())
            }
            (Kernel::Fused, _) | (Kernel::Each, Some(_)) => self.step_fused(lr, found_inf),
        }
    }

    fn step_fused(&mut self, lr: f64, found_inf: Option<&Tensor>) -> Result<(), c10d::ErrorKind> {
        if self.momentum != 0.0 {
            // Of a step that is skipped nothing may remain, so the first one adds to zeros.
            for slot in self.slots.iter_mut().filter(|slot| slot.momentum.is_none()) {
                slot.momentum = Some(slot.weight.detach().zeros_like());
            }
        }
        let mut left: Vec<&Slot> = self.slots.iter().collect();
        while let Some(first) = left.first() {
            let constants = (first.decay, first.lr_factor);
            let (equal, others): (Vec<&Slot>, Vec<&Slot>) =
                left.into_iter().partition(|slot| (slot.decay, slot.lr_factor) == constants);
            let weights: Vec<Tensor> = equal.iter().map(|slot| slot.weight.shallow_clone()).collect();
            let gradients: Vec<Tensor> = equal.iter().map(|slot| slot.weight.grad()).collect();
            let momentum: Vec<Tensor> = match self.momentum {
                0.0 => Vec::new(),
                _ => equal.iter().filter_map(|slot| Some(slot.momentum.as_ref()?.shallow_clone())).collect(),
            };
            let settings = FusedSgd {
                lr: lr * constants.1,
                momentum: self.momentum,
                weight_decay: constants.0,
                nesterov: self.nesterov,
                is_first_step: false,
            };
            c10d::fused_sgd(&weights, &gradients, &momentum, settings, found_inf)?;
            left = others;
        }
        Ok(())
    }

    fn step_each(&mut self, lr: f64) {
        let _no_grad = tch::no_grad_guard();
        for slot in &mut self.slots {
            let gradient = slot.weight.grad();
            // A new tensor: `grad` shares its storage with the parameter's gradient.
            let gradient = if slot.decay == 0.0 { gradient } else { gradient + &slot.weight * slot.decay };
            let direction = if self.momentum == 0.0 {
                gradient
            } else {
                let buffer = match slot.momentum.take() {
                    Some(mut buffer) => buffer.g_mul_scalar_(self.momentum).g_add_(&gradient),
                    None => gradient.copy(),
                };
                let direction =
                    if self.nesterov { gradient + &buffer * self.momentum } else { buffer.shallow_clone() };
                slot.momentum = Some(buffer);
                direction
            };
            let _ = slot.weight.g_sub_(&(direction * (lr * slot.lr_factor)));
        }
    }

    /// Forgets momentum.
    pub fn reset_momentum(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.momentum = None);
    }

    /// Momentum buffers by the name of their parameter.
    pub fn momentum(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.slots.iter().filter_map(|slot| Some((slot.name.as_str(), slot.momentum.as_ref()?)))
    }

    /// Sets every momentum buffer to zero, to be overwritten by those of another rank.
    pub fn allocate_momentum(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.momentum = Some(slot.weight.detach().zeros_like()));
    }

    /// Sets the momentum buffers: that of each parameter is what `find` has for its name.
    pub fn restore_momentum(&mut self, find: impl Fn(&str) -> Option<Tensor>) {
        for slot in &mut self.slots {
            slot.momentum = find(&slot.name).map(|buffer| buffer.to_device(slot.weight.device()));
        }
    }
}
