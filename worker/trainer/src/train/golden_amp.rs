//! Mixed precision against PyTorch: `fixtures/amp_training.safetensors`, written by `fixtures/make_golden_amp.py` with torch
//! 2.11.0 on a CPU: eight steps of a small residual network, with `torch.autocast`, `torch.amp.GradScaler` and
//! `torch.optim.SGD`.

use c10d::{Autocast, Half};
use safetensors::SafeTensors;
use tch::{Device, Kind, Tensor};

use super::scaler::GradScaler;
use super::sgd::{Kernel, Sgd, SgdSettings};
use crate::model::{NamedTensor, Owner, Role};
use crate::storage;

/// The same kernels of the same libtorch, on the same data. What differs is the order of sums with the number of threads and
/// the processor's vectors, which half precision then rounds: a unit in the last place of 7 or 10 bits now and then.
const TOLERANCE: [(&str, Option<Half>, f64); 3] =
    [("fp32", None, 2e-6), ("bf16", Some(Half::BFloat16), 2e-3), ("fp16", Some(Half::Float16), 2e-4)];

struct Golden(Vec<(String, Tensor)>);

impl Golden {
    fn read() -> Self {
        let bytes = include_bytes!("../../fixtures/amp_training.safetensors");
        let file = SafeTensors::deserialize(bytes).unwrap();
        Self(
            file.iter()
                .map(|(name, view)| (name.to_owned(), storage::tensor_of(name, &view).unwrap()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Tensor {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.unwrap_or_else(|| panic!("the fixture has no {name}")).1.copy()
    }
}

/// `Residual` of the script.
struct Net {
    tensors: Vec<NamedTensor>,
}

impl Net {
    fn new(golden: &Golden) -> Self {
        let weights = [
            "stem.weight",
            "bn1.weight",
            "bn1.bias",
            "conv.weight",
            "bn2.weight",
            "bn2.bias",
            "linear.weight",
            "linear.bias",
        ];
        let buffers = ["bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"];
        let weight = |name: &str| NamedTensor {
            name: name.to_owned(),
            tensor: golden.get(&format!("initial/{name}")).set_requires_grad(true),
            role: Role::Weight { decay: true, owner: Owner::Network },
        };
        let buffer = |name: &str| NamedTensor {
            name: name.to_owned(),
            tensor: golden.get(&format!("initial/{name}")),
            role: Role::Buffer,
        };
        Self { tensors: weights.map(weight).into_iter().chain(buffers.map(buffer)).collect() }
    }

    fn of(&self, name: &str) -> &Tensor {
        &self.tensors.iter().find(|named| named.name == name).unwrap().tensor
    }

    fn normalised(&self, x: &Tensor, name: &str) -> Tensor {
        let [weight, bias, mean, var] = ["weight", "bias", "running_mean", "running_var"]
            .map(|part| Some(self.of(&format!("{name}.{part}"))));
        x.batch_norm(weight, bias, mean, var, true, 0.1, 1e-5, true).relu()
    }

    fn logits(&self, x: &Tensor, half: Option<Half>) -> Tensor {
        let features = {
            let _mixed = half.map(|half| Autocast::half(Device::Cpu, half));
            let convolve = |x: &Tensor, weight| x.conv2d(self.of(weight), None::<Tensor>, 1, 1, 1, 1);
            let y = convolve(x, "stem.weight");
            let y = &y + convolve(&self.normalised(&y, "bn1"), "conv.weight");
            assert_eq!(y.kind(), half.map_or(Kind::Float, kind));
            self.normalised(&y, "bn2").mean_dim([2i64, 3].as_slice(), false, None::<Kind>)
        };
        features.to_kind(Kind::Float).linear(self.of("linear.weight"), Some(self.of("linear.bias")))
    }
}

fn kind(half: Half) -> Kind {
    match half {
        Half::BFloat16 => Kind::BFloat16,
        Half::Float16 => Kind::Half,
    }
}

#[test]
fn eight_steps_in_each_precision_are_those_of_pytorch() {
    let golden = Golden::read();
    let (images, labels) = (golden.get("images"), golden.get("labels"));
    for (precision, half, tolerance) in TOLERANCE {
        let net = Net::new(&golden);
        let settings =
            SgdSettings { momentum: 0.9, nesterov: true, weight_decay: 5e-4, member_lr_factor: 1.0 };
        let mut optimizer = Sgd::new(&net.tensors, settings).computed_by(Kernel::Fused);
        optimizer.materialise_gradients();
        let mut scaler = (half == Some(Half::Float16)).then(|| GradScaler::new(Device::Cpu));
        let mut losses = Vec::new();
        for step in 0..images.size()[0] {
            optimizer.zero_grad().unwrap();
            let loss = net.logits(&images.get(step), half).log_softmax(-1, None).nll_loss(&labels.get(step));
            losses.push(loss.detach());
            match &mut scaler {
                Some(scaler) => {
                    scaler.scale(&loss).backward();
                    optimizer.multiply_gradients(&scaler.inverse()).unwrap();
                    let found_inf = GradScaler::found_inf(&optimizer.grad_norm().unwrap());
                    optimizer.step(0.05, Some(&found_inf)).unwrap();
                    scaler.update(&found_inf);
                }
                None => {
                    loss.backward();
                    optimizer.step(0.05, None).unwrap();
                }
            }
        }
        let close = |found: &Tensor, expected: &Tensor, what: &str| {
            let error = (found.detach() - expected).abs().max().double_value(&[]);
            assert!(error <= tolerance, "{precision}, {what}: off by {error}");
        };
        close(&Tensor::stack(&losses, 0), &golden.get(&format!("{precision}/losses")), "losses");
        for named in &net.tensors {
            close(&named.tensor, &golden.get(&format!("{precision}/{}", named.name)), &named.name);
        }
    }
}

#[test]
fn the_golden_values_of_the_precisions_differ_by_more_than_the_tolerances_allow() {
    let golden = Golden::read();
    let weight = |precision: &str| golden.get(&format!("{precision}/conv.weight"));
    let apart = |one: &str, other: &str| (weight(one) - weight(other)).abs().max().double_value(&[]);
    // Else the test above could not tell one from the other.
    assert!(apart("fp32", "fp16") > 2e-6 && apart("bf16", "fp16") > 2e-4, "{}", apart("fp32", "fp16"));
}

/// Skipped steps change nothing but the scale, and cost what they take.
#[test]
fn a_scale_that_takes_gradients_out_of_range_is_halved_until_a_step_is_made() {
    let golden = Golden::read();
    let (images, labels) = (golden.get("images").get(0), golden.get("labels").get(0));
    let net = Net::new(&golden);
    let settings = SgdSettings { momentum: 0.9, nesterov: true, weight_decay: 5e-4, member_lr_factor: 1.0 };
    let mut optimizer = Sgd::new(&net.tensors, settings).computed_by(Kernel::Fused);
    optimizer.materialise_gradients();
    let mut scaler = GradScaler::new(Device::Cpu);
    // As a checkpoint would.
    let mut scale = scaler.named_tensors().swap_remove(0).1;
    let _ = scale.fill_(2f64.powi(30));
    let weights = |net: &Net| net.of("conv.weight").detach().copy();
    let before = weights(&net);
    loop {
        let (_, skipped) = scaler.values();
        assert!(skipped < 30.0);
        optimizer.zero_grad().unwrap();
        let loss = net.logits(&images, Some(Half::Float16)).log_softmax(-1, None).nll_loss(&labels);
        scaler.scale(&loss).backward();
        optimizer.multiply_gradients(&scaler.inverse()).unwrap();
        let norm = optimizer.grad_norm().unwrap();
        assert_eq!(scaler.forgiven(&norm).isfinite().int64_value(&[]), 1);
        let found_inf = GradScaler::found_inf(&norm);
        optimizer.step(0.05, Some(&found_inf)).unwrap();
        scaler.update(&found_inf);
        if found_inf.double_value(&[]) == 0.0 {
            break;
        }
        assert_eq!(weights(&net), before);
        assert!(
            optimizer.momentum().all(|(_, buffer)| buffer.abs().sum(Kind::Float).double_value(&[]) == 0.0)
        );
    }
    let (scale, skipped) = scaler.values();
    assert!(skipped >= 5.0, "{skipped}");
    assert_eq!(scale, 2f64.powi(30) / 2f64.powf(skipped));
    assert_ne!(weights(&net), before);
}

#[test]
fn mixed_precision_ends_with_its_scope_and_a_part_within_can_be_exact() {
    let weight = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
    let product = || weight.matmul(&weight).kind();
    assert_eq!(product(), Kind::Float);
    {
        let _half = Autocast::half(Device::Cpu, Half::BFloat16);
        assert_eq!(product(), Kind::BFloat16);
        {
            let _full = Autocast::full(Device::Cpu);
            assert_eq!(product(), Kind::Float);
            let _half = Autocast::half(Device::Cpu, Half::Float16);
            assert_eq!(product(), Kind::Half);
        }
        assert_eq!(product(), Kind::BFloat16);
        // Another thread computes as it did.
        let elsewhere = std::thread::spawn(|| {
            let weight = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
            weight.matmul(&weight).kind()
        });
        assert_eq!(elsewhere.join().unwrap(), Kind::Float);
    }
    assert_eq!(product(), Kind::Float);
}
