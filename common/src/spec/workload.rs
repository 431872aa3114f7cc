//! What the run time of a trial depends on.

use serde::{Deserialize, Serialize};

use super::{EvaluateSpec, TrainSpec, TrialSpec};
use crate::Digest;

/// Trials of one workload take about as long on as many ranks: seeds, learning rates and priorities differ,
/// the kind, the data, the model, the method and the length of the recipe do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Workload(pub u64);

impl TrialSpec {
    /// The workload of the trial.
    pub fn workload(&self) -> Workload {
        let text = match self {
            Self::Train(train) => {
                let TrainSpec { method, data, model, recipe, .. } = train;
                let common = ("train", method, data, model, recipe.epochs, recipe.batch_size);
                // Trials of single precision have the workload that they had before there was another.
                if recipe.precision.is_default() {
                    serde_json::to_vec(&common)
                } else {
                    serde_json::to_vec(&(common, recipe.precision))
                }
            }
            Self::Evaluate(evaluate) => {
                let EvaluateSpec { predictor, networks, ood, shift, batch_size, .. } = evaluate;
                let first = networks.first().map(|train| (&train.method, &train.data, &train.model));
                serde_json::to_vec(&("evaluate", predictor, networks.len(), first, ood, shift, batch_size))
            }
        };
        let text = text.expect("a specification holds only numbers, strings, lists and structs");
        let mut low = [0; 8];
        low.copy_from_slice(&Digest::of(&text).0[..8]);
        Workload(u64::from_le_bytes(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grid;
    use crate::spec::{ModelSpec, Precision, WideResNetVariant};

    const GRID: &str = "name = \"one\"\nmodels = [\"wrn-10-1\"]\nseeds = [0]\n[data.digits]\nheld-out = [8, 9]\n\
                        [recipe]\nepochs = 1\nbatch-size = 64\n[[method]]\nkind = \"deterministic\"\n";

    fn network() -> TrainSpec {
        match grid::parse(GRID).unwrap().trials.swap_remove(0).spec {
            TrialSpec::Train(train) => train,
            TrialSpec::Evaluate(evaluate) => panic!("{evaluate:?}"),
        }
    }

    #[test]
    fn seeds_and_rates_share_a_workload_and_lengths_and_models_do_not() {
        let of = |change: fn(&mut TrainSpec)| {
            let mut spec = network();
            change(&mut spec);
            TrialSpec::Train(spec).workload()
        };
        let plain = of(|_| ());
        assert_eq!(of(|spec| spec.seed = 7), plain);
        assert_eq!(of(|spec| spec.recipe.lr = 0.2), plain);
        assert_ne!(of(|spec| spec.recipe.epochs = 2), plain);
        assert_ne!(of(|spec| spec.recipe.batch_size = 32), plain);
        assert_ne!(of(|spec| spec.recipe.precision = Precision::Bf16), plain);
        assert_ne!(of(|spec| spec.data.held_out = Vec::new()), plain);
        let wider = ModelSpec::WideResNet { depth: 10, widen: 2, variant: WideResNetVariant::Authors };
        let mut spec = network();
        spec.model = wider;
        assert_ne!(TrialSpec::Train(spec).workload(), plain);
    }
}
