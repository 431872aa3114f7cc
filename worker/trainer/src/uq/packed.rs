//! Packed-Ensembles: members side by side in the channels of one network α times as wide, kept apart by grouped
//! convolutions.
//!
//! Bodies name the widths of the network without the method; layers and normalisations widen them. Channels of member m
//! are the m-th of M equal blocks everywhere, so member m depends on its own groups alone.
//!
//! Source: Laurent et al., *Packed-Ensembles for efficient uncertainty estimation*, ICLR 2023, and torch-uncertainty
//! 0.13.0, `layers/packed.py`.

use common::spec::PackedSettings;
use tch::Tensor;

use crate::model::ModelError;
use crate::model::plan::{Conversion, Plan};

/// Place of a layer in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Sees the images.
    First,
    Hidden,
    /// Gives the logits.
    Last,
}

/// Inputs, outputs and groups of a layer as it is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Widths {
    pub(crate) inputs: i64,
    pub(crate) outputs: i64,
    pub(crate) groups: i64,
}

/// Widths of the layer at `path`, of `inputs` and `outputs` without the method. Outputs of the last layer are those of
/// all members already.
pub(crate) fn widths(
    plan: &Plan,
    path: &str,
    place: Place,
    (inputs, outputs): (i64, i64),
) -> Result<Widths, ModelError> {
    match &plan.conversion {
        Conversion::Packed(settings) => pack(settings, path, place, (inputs, outputs)),
        Conversion::Ordinary
        | Conversion::BatchEnsemble(_)
        | Conversion::LpBnn(_)
        | Conversion::RankOne(_)
        | Conversion::Masksembles { .. }
        | Conversion::Spectral { .. } => Ok(Widths { inputs, outputs, groups: 1 }),
    }
}

/// Channels behind a layer of `channels`.
pub(crate) fn widened(plan: &Plan, channels: i64) -> i64 {
    match &plan.conversion {
        Conversion::Packed(settings) => channels * i64::from(settings.alpha),
        Conversion::Ordinary
        | Conversion::BatchEnsemble(_)
        | Conversion::LpBnn(_)
        | Conversion::RankOne(_)
        | Conversion::Masksembles { .. }
        | Conversion::Spectral { .. } => channels,
    }
}

fn pack(
    settings: &PackedSettings,
    path: &str,
    place: Place,
    (inputs, outputs): (i64, i64),
) -> Result<Widths, ModelError> {
    let [members, alpha, gamma, least] =
        [settings.members, settings.alpha, settings.gamma, settings.min_channels].map(i64::from);
    let (inputs, outputs) = match place {
        Place::First => (inputs, outputs * alpha),
        Place::Hidden => (inputs * alpha, outputs * alpha),
        Place::Last => (inputs * alpha, outputs),
    };
    let fits = |groups: i64| inputs % groups == 0 && outputs % groups == 0;
    let groups = match place {
        Place::First => (outputs % members == 0).then_some(1),
        Place::Hidden => (1..=gamma)
            .rev()
            .find(|&gamma| fits(members * gamma) && (gamma == 1 || inputs / (members * gamma) >= least))
            .map(|gamma| members * gamma),
        Place::Last => fits(members).then_some(members),
    };
    let refused = || ModelError::PackedWidth { layer: path.to_owned(), inputs, outputs, members };
    Ok(Widths { inputs, outputs, groups: groups.ok_or_else(refused)? })
}

/// A linear layer in groups, without bias.
///
/// Shapes: `x` `[N, I]`, `weight` `[O, I / groups]`; returns `[N, O]`.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, groups: i64) -> Tensor {
    let x = x.unflatten(1, [groups, -1]).transpose(0, 1);
    x.bmm(&weight.unflatten(0, [groups, -1]).transpose(1, 2)).transpose(0, 1).flatten(1, 2)
}

#[cfg(test)]
mod tests {
    use common::spec::{ModelSpec, TrainMethod, WideResNetVariant};
    use tch::{Device, Kind, no_grad};

    use super::*;
    use crate::model::{Mode, Network};

    fn build(depth: u32, widen: u32, method: &TrainMethod, input: [i64; 3], classes: i64) -> Network {
        let spec = ModelSpec::WideResNet { depth, widen, variant: WideResNetVariant::Authors };
        Network::new(&spec, method, input, classes, 3, Device::Cpu).unwrap()
    }

    fn small(settings: PackedSettings) -> Network {
        build(10, 1, &TrainMethod::Packed(settings), [2, 8, 8], 5)
    }

    fn images() -> Tensor {
        (Tensor::arange(6 * 2 * 64, (Kind::Float, Device::Cpu)) * 1.7).sin().view([6, 2, 8, 8])
    }

    fn logits(network: &Network, mode: Mode) -> Tensor {
        no_grad(|| network.forward(&images(), mode)).logits
    }

    fn packed(members: u32, alpha: u32, gamma: u32) -> PackedSettings {
        PackedSettings { members, alpha, gamma, ..PackedSettings::default() }
    }

    fn groups(settings: &PackedSettings, place: Place, widths: (i64, i64)) -> i64 {
        pack(settings, "layer", place, widths).unwrap().groups
    }

    #[test]
    fn hidden_layers_have_subgroups_as_far_as_these_have_64_channels() {
        let default = packed(4, 2, 2);
        assert_eq!(groups(&default, Place::Hidden, (16, 160)), 4);
        assert_eq!(groups(&default, Place::Hidden, (160, 160)), 4);
        // 640 channels in 8 groups are 80 each.
        assert_eq!(groups(&default, Place::Hidden, (320, 320)), 8);
        assert_eq!(groups(&packed(4, 2, 3), Place::Hidden, (384, 384)), 12);
        // 3 subgroups would divide neither evenly.
        assert_eq!(groups(&packed(4, 2, 3), Place::Hidden, (320, 320)), 8);
        assert_eq!(groups(&packed(4, 2, 3), Place::Hidden, (384, 320)), 8);
    }

    #[test]
    fn the_first_layer_is_whole_and_the_last_has_a_group_for_each_member() {
        let default = packed(4, 2, 2);
        let first = pack(&default, "stem", Place::First, (3, 16)).unwrap();
        assert_eq!(first, Widths { inputs: 3, outputs: 32, groups: 1 });
        let last = pack(&default, "linear", Place::Last, (640, 40)).unwrap();
        assert_eq!(last, Widths { inputs: 1280, outputs: 40, groups: 4 });
    }

    #[test]
    fn widths_that_members_cannot_share_are_refused_by_name() {
        for place in [Place::First, Place::Hidden] {
            let error = pack(&packed(3, 2, 1), "stem", place, (6, 16)).unwrap_err();
            assert!(
                error.to_string().contains("`stem`") && error.to_string().contains("3 members"),
                "{error}"
            );
        }
    }

    /// `fixtures/compare_packed.py` counts the parameters of torch-uncertainty's networks.
    #[test]
    fn wide_resnet_28_10_has_the_parameters_of_torch_uncertainty() {
        let count = |settings: PackedSettings, classes| {
            build(28, 10, &TrainMethod::Packed(settings), [3, 32, 32], classes).parameter_count()
        };
        assert_eq!(count(packed(4, 2, 1), 10), 36_524_200);
        assert_eq!(count(packed(4, 2, 2), 10), 19_372_200);
        assert_eq!(count(packed(4, 2, 2), 100), 19_487_760);
    }

    #[test]
    fn one_member_of_the_whole_width_is_the_deterministic_network() {
        let base = build(10, 1, &TrainMethod::Deterministic, [2, 8, 8], 5);
        let alone = small(packed(1, 1, 1));
        for mode in [Mode::Train, Mode::Evaluate] {
            assert_eq!(logits(&alone, mode), logits(&base, mode), "{mode:?}");
        }
    }

    #[test]
    fn a_member_depends_on_its_own_groups_alone() {
        for gamma in [1, 2] {
            for mode in [Mode::Train, Mode::Evaluate] {
                let settings = PackedSettings { min_channels: 1, ..packed(4, 2, gamma) };
                let before = logits(&small(settings.clone()), mode);
                assert_eq!(before.size(), [4 * 6, 5]);
                for member in 0..4 {
                    let network = small(settings.clone());
                    // Everything but the member's block of each tensor, of which the first axis holds channels.
                    for named in network.named_tensors() {
                        let size = named.tensor.size()[0] / 4;
                        let keep = named.tensor.narrow(0, member * size, size).copy();
                        no_grad(|| {
                            let _ = named.tensor.shallow_clone().fill_(0.5);
                            named.tensor.narrow(0, member * size, size).copy_(&keep);
                        });
                    }
                    let after = logits(&network, mode);
                    let own = |rows: &Tensor| rows.narrow(0, member * 6, 6);
                    assert_eq!(own(&after), own(&before), "member {member}, gamma {gamma}, {mode:?}");
                    assert_ne!(after, before);
                }
            }
        }
    }

    #[test]
    fn every_weight_has_a_gradient() {
        let network = small(packed(4, 2, 2));
        let labels = Tensor::arange(6, (Kind::Int64, Device::Cpu)).remainder(5);
        let (x, targets) = network.training_batch(&images(), &labels);
        assert_eq!(targets, labels.repeat([4]));
        network.forward(&x, Mode::Train).logits.cross_entropy_for_logits(&targets).backward();
        for named in network.named_tensors().iter().filter(|named| named.tensor.requires_grad()) {
            // The bias in front of a normalisation has a gradient of rounding alone, which may be zero.
            let exempt = named.name.ends_with("conv1.bias");
            assert!(named.tensor.grad().abs().max().double_value(&[]) > 0.0 || exempt, "{}", named.name);
        }
    }

    #[test]
    fn grouped_linear_layers_are_block_diagonal() {
        let weight = (Tensor::arange(6 * 2, (Kind::Double, Device::Cpu)) * 0.7).sin().view([6, 2]);
        let x = (Tensor::arange(4 * 6, (Kind::Double, Device::Cpu)) * 0.3).cos().view([4, 6]);
        let blocks: Vec<Tensor> = (0..3).map(|group| weight.narrow(0, group * 2, 2)).collect();
        let error = (linear(&x, &weight, 3) - x.matmul(&Tensor::block_diag(&blocks).tr())).abs().max();
        assert!(error.double_value(&[]) < 1e-14);
    }
}
