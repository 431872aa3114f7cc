//! What of a file is taken, and what is refused. That the right tensor goes to the right place is tested in `model`.

use common::spec::{BatchEnsembleSettings, TrainMethod};
use tch::{Device, Kind};

use super::*;
use crate::error::chain;
use crate::model::builder::Builder;
use crate::model::{Network, golden};

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name].iter().collect()
}

fn resnet_18() -> ModelSpec {
    "resnet-18-cifar".parse().unwrap()
}

fn network(classes: i64) -> Vec<NamedTensor> {
    built(&TrainMethod::Deterministic, classes)
}

fn built(method: &TrainMethod, classes: i64) -> Vec<NamedTensor> {
    let builder = Builder::blank(Kind::Float, Device::Cpu);
    Network::build(&resnet_18(), method, [3, 32, 32], classes, builder).unwrap().named_tensors()
}

/// The file that a network was saved to, but every number is a half.
fn saved(network: &[NamedTensor]) -> BTreeMap<String, Tensor> {
    let values = |named: &NamedTensor| Tensor::full(named.tensor.size(), 0.5, (Kind::Half, Device::Cpu));
    let mut file: BTreeMap<_, _> =
        network.iter().map(|named| (name_in_file(&named.name).unwrap(), values(named))).collect();
    file.insert("bn1.num_batches_tracked".to_owned(), Tensor::from(7_i64));
    file
}

/// Whether all numbers of a tensor are the file's.
fn taken(tensor: &Tensor) -> bool {
    tensor.eq(0.5).all().int64_value(&[]) == 1
}

#[test]
fn numbers_of_16_and_32_bits_are_read_as_pytorch_wrote_them() {
    let path = fixture("half_precision.safetensors");
    let file = read(&path, Digest::of(&std::fs::read(&path).unwrap())).unwrap();
    let kinds: Vec<_> = file.values().map(Tensor::kind).collect();
    assert_eq!(kinds, [Kind::Int64, Kind::Half, Kind::Float, Kind::BFloat16]);
    for (name, values) in &file {
        if name == "bn1.num_batches_tracked" {
            assert_eq!(values.int64_value(&[]), 7);
        } else {
            assert_eq!(*values, golden::fill(name, &values.size()).to_kind(values.kind()), "{name}");
        }
    }
}

#[test]
fn a_file_of_the_same_network_replaces_all_values() {
    let network = network(10);
    assign(&saved(&network), &network).unwrap();
    for named in &network {
        assert!(taken(&named.tensor), "{}", named.name);
        assert_eq!(named.tensor.kind(), Kind::Float);
    }
}

#[test]
fn a_head_for_other_classes_keeps_its_initial_values() {
    let network = network(10);
    let mut file = saved(&network);
    for (name, shape) in [("fc.weight", vec![1000, 512]), ("fc.bias", vec![1000])] {
        file.insert(name.to_owned(), Tensor::full(shape, 0.5, (Kind::Float, Device::Cpu)));
    }
    assign(&file, &network).unwrap();
    for named in &network {
        assert_eq!(taken(&named.tensor), !named.name.starts_with("linear."), "{}", named.name);
    }
}

#[test]
fn what_a_method_adds_keeps_its_initial_values() {
    let method = TrainMethod::BatchEnsemble(BatchEnsembleSettings::default());
    let ensemble = built(&method, 10);
    assign(&saved(&network(10)), &ensemble).unwrap();
    for named in &ensemble {
        let own = named.name.ends_with(".alpha") || named.name.ends_with(".gamma");
        assert_eq!(taken(&named.tensor), !own, "{}", named.name);
    }
}

#[test]
fn the_first_tensor_that_does_not_fit_is_named_and_nothing_is_overwritten() {
    let network = network(10);
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut file = saved(&network);
        change(&mut file);
        let mismatch = assign(&file, &network).unwrap_err();
        assert!(!network.iter().any(|named| taken(&named.tensor)), "{mismatch}");
        mismatch
    };
    let halves = |shape: &[i64]| Tensor::full(shape, 0.5, (Kind::Float, Device::Cpu));
    let missing = refused(&|file| {
        for name in ["layer2.0.downsample.1.running_mean", "layer4.1.conv2.weight"] {
            assert!(file.remove(name).is_some());
        }
    });
    assert_eq!(missing, Mismatch::Missing("layer2.0.downsample.1.running_mean".to_owned()));
    let extra = refused(&|file| {
        for name in ["layer3.5.conv1.weight", "layer3.2.conv1.weight"] {
            file.insert(name.to_owned(), halves(&[256, 256, 3, 3]));
        }
    });
    assert_eq!(extra, Mismatch::Extra("layer3.2.conv1.weight".to_owned()));
    let shape = refused(&|file| {
        file.insert("conv1.weight".to_owned(), halves(&[64, 3, 7, 7]));
    });
    let (found, expected) = (vec![64, 3, 7, 7], vec![64, 3, 3, 3]);
    assert_eq!(shape, Mismatch::Shape { name: "conv1.weight".to_owned(), found, expected });
    let kind = refused(&|file| {
        let name = "layer1.0.conv1.weight";
        file.insert(name.to_owned(), file[name].to_kind(Kind::Int64));
    });
    assert_eq!(kind, Mismatch::Kind("layer1.0.conv1.weight".to_owned()));
}

#[test]
fn a_file_that_is_not_there_or_another_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let expected = Digest::of(b"what the grid means");
    let pretrained = Pretrained { file: "resnet18.safetensors".to_owned(), digest: expected };
    let refused = |model: ModelSpec| load(folder.path(), &pretrained, model, &[]).unwrap_err();
    let path = folder.path().join(FOLDER).join("resnet18.safetensors");
    let missing = chain(&refused(resnet_18()));
    let start = format!("no weights to start from: the worker needs `{}`", path.display());
    assert!(missing.starts_with(&start), "{missing}");
    std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
    std::fs::write(&path, b"something else").unwrap();
    let other = refused(resnet_18());
    assert!(matches!(other, PretrainedError::Digest { found, .. } if found == Digest::of(b"something else")));
    assert!(other.to_string().contains("change `blake3` in the grid"), "{other}");
    let model = refused("wrn-28-10".parse().unwrap());
    assert_eq!(model.to_string(), "wrn-28-10 cannot start from a file of weights: only ResNets can");
}
