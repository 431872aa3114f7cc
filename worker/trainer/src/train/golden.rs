//! Optimizer and learning rate against PyTorch: `fixtures/optim.json`, written by
//! `fixtures/make_golden_optim.py` with torch 2.11.0 on a CPU, in double precision.

use common::spec::Recipe;
use serde::Deserialize;
use tch::{Kind, Tensor};

use super::scaler::GradScaler;
use super::sgd::Kernel;
use super::{LearningRate, Sgd, SgdSettings};
use crate::model::{NamedTensor, Owner, Role};

/// Twelve steps in double precision: the last bits differ because PyTorch fuses multiplication and addition.
const TOLERANCE: f64 = 1e-13;

#[derive(Deserialize)]
struct Golden {
    steps_per_epoch: u64,
    initial: Vec<Vec<f64>>,
    /// By step and parameter.
    gradients: Vec<Vec<Vec<f64>>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    recipe: Recipe,
    lr: Vec<f64>,
    norm: Vec<f64>,
    /// By step and parameter.
    weights: Vec<Vec<Vec<f64>>>,
    /// By step and parameter; empty without momentum.
    momentum: Vec<Vec<Vec<f64>>>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../fixtures/optim.json")).unwrap()
}

fn optimizer(case: &Case, initial: &[Vec<f64>], kernel: Kernel) -> (Sgd, Vec<NamedTensor>) {
    let tensors: Vec<NamedTensor> = initial
        .iter()
        .enumerate()
        .map(|(index, values)| NamedTensor {
            name: format!("parameter {index}"),
            tensor: Tensor::from_slice(values).set_requires_grad(true),
            role: Role::Weight { decay: index < 2, owner: Owner::Network },
        })
        .collect();
    let Recipe { momentum, nesterov, weight_decay, .. } = case.recipe;
    let settings = SgdSettings { momentum, nesterov, weight_decay, member_lr_factor: 1.0 };
    let mut optimizer = Sgd::new(&tensors, settings).computed_by(kernel);
    optimizer.materialise_gradients();
    (optimizer, tensors)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach()).unwrap()
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let scale = expected.abs().max(1.0);
        assert!((found - expected).abs() <= TOLERANCE * scale, "{what}: {found} is not {expected}");
    }
}

#[test]
fn every_step_is_that_of_pytorch() {
    every_step_is_that_of_pytorch_by(Kernel::Each);
}

#[test]
fn every_step_of_the_fused_kernel_is_that_of_pytorch() {
    every_step_is_that_of_pytorch_by(Kernel::Fused);
}

fn every_step_is_that_of_pytorch_by(kernel: Kernel) {
    let golden = golden();
    assert_eq!(golden.cases.len(), 7);
    for case in &golden.cases {
        let (mut optimizer, tensors) = optimizer(case, &golden.initial, kernel);
        let rate = LearningRate::new(&case.recipe, golden.steps_per_epoch);
        for (step, gradients) in golden.gradients.iter().enumerate() {
            let done = step as u64;
            let what = format!("{}, step {step}", case.name);
            if case.recipe.reset_momentum_each_epoch && done.is_multiple_of(golden.steps_per_epoch) {
                optimizer.reset_momentum();
            }
            optimizer.zero_grad().unwrap();
            for (named, gradient) in tensors.iter().zip(gradients) {
                (&named.tensor * Tensor::from_slice(gradient)).sum(Kind::Double).backward();
            }
            let norm = optimizer.grad_norm().unwrap();
            assert_close(&[norm.double_value(&[])], &[case.norm[step]], &what);
            if let Some(limit) = case.recipe.clip_norm {
                optimizer.multiply_gradients(&Sgd::clip_factor(&norm, limit)).unwrap();
            }
            assert_close(&[rate.at(done)], &[case.lr[step]], &what);
            optimizer.step(rate.at(done), None).unwrap();
            for (named, expected) in tensors.iter().zip(&case.weights[step]) {
                assert_close(&values(&named.tensor), expected, &what);
            }
            let momentum: Vec<Vec<f64>> = optimizer.momentum().map(|(_, buffer)| values(buffer)).collect();
            assert_eq!(momentum.len(), case.momentum[step].len(), "{what}");
            for (found, expected) in momentum.iter().zip(&case.momentum[step]) {
                assert_close(found, expected, &what);
            }
        }
    }
}

/// What a checkpoint does: the second half with a new optimizer is the second half with the old one.
#[test]
fn an_optimizer_with_restored_momentum_goes_on_to_the_bit() {
    let golden = golden();
    let case = golden.cases.iter().find(|case| case.name == "nesterov").unwrap();
    let run = |restart: Option<usize>| {
        let (mut optimizer, mut tensors) = optimizer(case, &golden.initial, Kernel::Each);
        for (step, gradients) in golden.gradients.iter().enumerate() {
            if restart == Some(step) {
                let weights: Vec<Vec<f64>> = tensors.iter().map(|named| values(&named.tensor)).collect();
                let old = optimizer;
                (optimizer, tensors) = self::optimizer(case, &weights, Kernel::Each);
                optimizer.restore_momentum(|name| {
                    old.momentum().find(|(other, _)| *other == name).map(|(_, buffer)| buffer.copy())
                });
            }
            optimizer.zero_grad().unwrap();
            for (named, gradient) in tensors.iter().zip(gradients) {
                (&named.tensor * Tensor::from_slice(gradient)).sum(Kind::Double).backward();
            }
            optimizer.step(0.1, None).unwrap();
        }
        tensors.iter().map(|named| values(&named.tensor)).collect::<Vec<_>>()
    };
    let whole = run(None);
    for restart in [0, 1, 7] {
        assert_eq!(run(Some(restart)), whole);
    }
}

#[test]
fn a_step_with_gradients_that_are_not_finite_changes_neither_weights_nor_momentum() {
    let golden = golden();
    let case = golden.cases.iter().find(|case| case.name == "nesterov").unwrap();
    let run = |skips: &[usize]| {
        let (mut optimizer, tensors) = optimizer(case, &golden.initial, Kernel::Fused);
        let step = |optimizer: &mut Sgd, factor: f64, gradients: &[Vec<f64>]| {
            optimizer.zero_grad().unwrap();
            for (named, gradient) in tensors.iter().zip(gradients) {
                (&named.tensor * Tensor::from_slice(gradient) * factor).sum(Kind::Double).backward();
            }
            let found_inf = GradScaler::found_inf(&optimizer.grad_norm().unwrap());
            optimizer.step(0.1, Some(&found_inf)).unwrap();
        };
        for (index, gradients) in golden.gradients.iter().enumerate() {
            if skips.contains(&index) {
                step(&mut optimizer, f64::INFINITY, gradients);
            }
            step(&mut optimizer, 1.0, gradients);
        }
        let momentum: Vec<Vec<f64>> = optimizer.momentum().map(|(_, buffer)| values(buffer)).collect();
        (tensors.iter().map(|named| values(&named.tensor)).collect::<Vec<_>>(), momentum)
    };
    let whole = run(&[]);
    // The first step of all has no momentum yet.
    assert_eq!(run(&[0]), whole);
    assert_eq!(run(&[0, 3, 7]), whole);
}

#[test]
fn a_member_factor_scales_the_steps_of_what_is_a_members_own() {
    let golden = golden();
    let case = golden.cases.iter().find(|case| case.name == "nesterov").unwrap();
    // The same gradients at every step, so that both optimizers see the same whatever the weights are.
    let moved = |owner: Owner, member_lr_factor: f64, lr: f64| {
        let tensor = Tensor::from_slice(&golden.initial[0]).set_requires_grad(true);
        let role = Role::Weight { decay: false, owner };
        let named = [NamedTensor { name: "parameter".to_owned(), tensor: tensor.shallow_clone(), role }];
        let Recipe { momentum, nesterov, weight_decay, .. } = case.recipe;
        let settings = SgdSettings { momentum, nesterov, weight_decay, member_lr_factor };
        let mut optimizer = Sgd::new(&named, settings);
        optimizer.materialise_gradients();
        for gradients in &golden.gradients {
            optimizer.zero_grad().unwrap();
            (&tensor * Tensor::from_slice(&gradients[0])).sum(Kind::Double).backward();
            optimizer.step(lr, None).unwrap();
        }
        values(&tensor)
    };
    assert_eq!(moved(Owner::Network, 0.5, 0.1), moved(Owner::Network, 1.0, 0.1));
    assert_eq!(moved(Owner::Member, 0.5, 0.1), moved(Owner::Member, 1.0, 0.05));
    assert_ne!(moved(Owner::Member, 0.5, 0.1), moved(Owner::Member, 1.0, 0.1));
}
