//! A trial that starts from a file of weights.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use common::spec::{Pretrained, TrainMethod, TrainSpec, TrialSpec};
use common::{Digest, FailureCause};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::support::{launch, run, tensors, train_spec};

/// A step at learning rate 0: all weights stay as they were.
fn spec(digest: Digest) -> TrainSpec {
    let mut spec = train_spec(TrainMethod::Deterministic);
    spec.model = "resnet-18-cifar".parse().unwrap();
    spec.recipe.epochs = 1;
    spec.recipe.lr = 0.0;
    spec.data.train_limit = Some(32);
    spec.pretrained = Some(Pretrained { file: "resnet18.safetensors".to_owned(), digest });
    spec
}

/// Writes a file of ResNet-18 for images of one channel and eight classes. Tensor k is filled with (k + 1)/100.
fn write_weights(data: &Path) -> (Digest, HashMap<String, f32>) {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/torchvision_resnet18.safetensors");
    let golden = fs::read(golden).unwrap();
    let state = SafeTensors::deserialize(&golden).unwrap().tensor("state").unwrap().data().to_vec();
    let state = String::from_utf8(state).unwrap();
    let mut state_tensors = Vec::new();
    for (place, line) in state.lines().enumerate() {
        let [name, _, shape] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let shape: Vec<usize> = match name {
            "conv1.weight" => vec![64, 1, 3, 3],
            "fc.weight" => vec![8, 512],
            "fc.bias" => vec![8],
            _ => shape.split(',').map(|axis| axis.parse().unwrap()).collect(),
        };
        let value = (place + 1) as f32 / 100.0;
        let bytes = value.to_le_bytes().repeat(shape.iter().product());
        state_tensors.push((name.to_owned(), value, shape, bytes));
    }
    let views = state_tensors.iter().map(|(name, _, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::create_dir_all(data.join("weights")).unwrap();
    fs::write(data.join("weights/resnet18.safetensors"), &bytes).unwrap();
    let values = state_tensors.into_iter().map(|(name, value, ..)| (name, value)).collect();
    (Digest::of(&bytes), values)
}

#[test]
fn training_starts_from_the_file_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let (digest, values) = write_weights(&folder.path().join("no data"));
    let ended = run(&launch(TrialSpec::Train(spec(digest)), folder.path()));
    let stored = tensors(&ended.final_checkpoint());
    for (ours, theirs) in [
        ("stem.weight", "conv1.weight"),
        ("bn.bias", "bn1.bias"),
        ("groups.3.0.shortcut.weight", "layer4.0.downsample.0.weight"),
        ("groups.3.0.bn_shortcut.weight", "layer4.0.downsample.1.weight"),
        ("linear.bias", "fc.bias"),
    ] {
        let (.., bytes) = &stored[&format!("model/{ours}")];
        let expected = values[theirs].to_le_bytes();
        assert!(bytes.chunks(4).all(|value| value == expected), "{ours} is not {theirs}");
    }

    let other = run(&launch(TrialSpec::Train(spec(Digest::of(b"other"))), folder.path()));
    let FailureCause::DataMissing { message } = other.cause() else { panic!("{:?}", other.cause()) };
    assert!(message.contains("has BLAKE3 digest"), "{message}");
}
