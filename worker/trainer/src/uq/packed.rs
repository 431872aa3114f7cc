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
    use super::*;

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
}
