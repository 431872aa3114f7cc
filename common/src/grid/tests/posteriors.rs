//! Posteriors that are read off one network's training, or fitted to its end.

use super::*;
use crate::spec::{LaplaceCurvature, LaplaceSettings, Predictor, TrainMethod};

const DETERMINISTIC: &str = "[[method]]\nkind = \"deterministic\"\n";

fn evaluations(plan: &Plan) -> Vec<&crate::spec::EvaluateSpec> {
    let evaluate = |trial| match trial {
        &PlannedTrial { spec: TrialSpec::Evaluate(ref evaluate), .. } => Some(evaluate),
        PlannedTrial { spec: TrialSpec::Train(_), .. } => None,
    };
    plan.trials.iter().filter_map(evaluate).collect()
}

#[test]
fn laplace_reads_the_deterministic_network_and_trains_none() {
    let laplace = "[[method]]\nkind = \"laplace\"\n[[method]]\nkind = \"laplace\"\nlabel = \"full\"\ncurvature = \"full\"\n";
    let plan = small(&format!("{DETERMINISTIC}{laplace}"));
    // Two seeds: a network each, and three evaluations of it.
    assert_eq!(networks(&plan).len(), 2);
    let evaluations = evaluations(&plan);
    assert_eq!(evaluations.len(), 6);
    for evaluation in &evaluations {
        assert_eq!(evaluation.networks.len(), 1);
        assert!(networks(&plan).contains(&&evaluation.networks[0]));
    }
    let full = LaplaceSettings { curvature: LaplaceCurvature::Full, prior_precision: None };
    assert_eq!(evaluations[4].predictor, Predictor::LastLayerLaplace(full));
}

#[test]
fn other_draws_evaluate_again_and_train_nothing() {
    for (kind, setting) in [
        ("tradi", "samples = 30"),
        ("tradi", "features = 30"),
        ("swag", "samples = 30"),
        ("swag", "scale = 0.5"),
        ("swag", "scale = 0"),
        ("snapshot-ensemble", "use-last = 2"),
        ("checkpoint-ensemble", "use-last = 1"),
    ] {
        let entry = format!("[[method]]\nkind = \"{kind}\"\n");
        let plan = small(&format!("{entry}{entry}label = \"other\"\n{setting}\n"));
        assert_eq!(networks(&plan).len(), 2, "{kind} {setting}");
        assert_eq!(evaluations(&plan).len(), 4, "{kind} {setting}");
    }
}

#[test]
fn other_collections_are_other_networks() {
    let entry = "[[method]]\nkind = \"swag\"\n";
    let plan = small(&format!("{entry}{entry}label = \"other\"\ncollections-per-epoch = 2\n"));
    assert_eq!(networks(&plan).len(), 4);
}

#[test]
fn without_deviations_one_draw_is_the_mean() {
    let plan = small("[[method]]\nkind = \"swag\"\nscale = 0\n");
    assert_eq!(evaluations(&plan)[0].predictor, Predictor::Swag { samples: 1, scale: 0.0 });
    let said = complaints("[[method]]\nkind = \"swag\"\nscale = 0\nsamples = 4\n");
    assert!(said[0].starts_with("4: method[0].samples:"), "{said:?}");
}

#[test]
fn too_few_collections_are_refused() {
    let with = |settings: &str| format!("[[method]]\nkind = \"swag\"\n{settings}");
    let said = complaints(&with("start = 0.95\n"));
    assert!(
        said[0].contains("at least 2 collected networks, and 10 epochs from part 0.95 on give 1"),
        "{said:?}"
    );
    small(&with("start = 0.95\ncollections-per-epoch = 4\n"));
    small(&with("start = 0.8\n"));
}

#[test]
fn snapshots_need_cycles_and_checkpoints_epochs() {
    let entry = "[[method]]\nkind = \"snapshot-ensemble\"\n";
    let said = complaints(&format!("{entry}[method.recipe]\nschedule = \"cosine\"\n"));
    assert!(said[0].starts_with("4: ") && said[0].contains("at the ends of cycles"), "{said:?}");
    let cycles = |cycles: u32| {
        format!("{entry}[method.recipe]\nschedule = {{ kind = \"cyclic\", cycles = {cycles} }}\n")
    };
    assert!(complaints(&cycles(6))[0].contains("at the ends of cycles"));
    let plan = small(&cycles(8));
    assert!(matches!(&networks(&plan)[0].method, TrainMethod::Snapshots(settings) if settings.count == 4));

    let said = complaints("[[method]]\nkind = \"checkpoint-ensemble\"\nnetworks = 11\n");
    assert!(said[0].contains("11 networks cannot be kept at the ends of 10 epochs"), "{said:?}");
    let said = complaints("[[method]]\nkind = \"checkpoint-ensemble\"\nnetworks = 4\nuse-last = 5\n");
    assert!(said[0].starts_with("4: method[0].use-last:"), "{said:?}");
}
