//! Grid files from the outside. Here: what valid ones come to.

mod documentation;
mod fuzz;
mod posteriors;
mod refusals;
mod running;

use std::collections::BTreeSet;

use super::*;
use crate::TrialKey;
use crate::plan::PlannedTrial;
use crate::spec::{
    Augmentation, LpBnnPreset, Predictor, Recipe, Schedule, TrainMethod, TrainSpec, TrialSpec,
};

const QUICKSTART: &str = include_str!("../../../../examples/quickstart.toml");
const CIFAR10: &str = include_str!("../../../../examples/cifar10.toml");

/// A valid file; `METHODS` stands for whatever a test is about.
const SMALL: &str = r#"
name = "small"
data = ["cifar-10"]
models = ["wrn-10-1"]
seeds = [0, 1]

[recipe]
epochs = 10
"#;

fn small(rest: &str) -> Plan {
    let text = format!("{SMALL}{rest}");
    parse(&text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn problems(text: &str) -> Vec<Problem> {
    let errors = parse(text).expect_err("the file should be refused");
    assert!(!errors.problems.is_empty());
    errors.problems
}

/// Problems of `SMALL` with more lines below, one line each: `line: key: message`, counted in the added lines.
fn complaints(rest: &str) -> Vec<String> {
    let offset = SMALL.lines().count();
    let line = |problem: &Problem| (problem.line as i64) - offset as i64;
    problems(&format!("{SMALL}{rest}"))
        .iter()
        .map(|problem| format!("{}: {}: {}", line(problem), problem.key, problem.message))
        .collect()
}

fn networks(plan: &Plan) -> Vec<&TrainSpec> {
    let train = |trial| match trial {
        &PlannedTrial { spec: TrialSpec::Train(ref train), .. } => Some(train),
        PlannedTrial { spec: TrialSpec::Evaluate(_), .. } => None,
    };
    plan.trials.iter().filter_map(train).collect()
}

fn labels(plan: &Plan) -> Vec<&str> {
    plan.trials.iter().map(|trial| trial.label.as_str()).collect()
}

fn assert_needs_stand_before_users(plan: &Plan) {
    let mut seen: BTreeSet<TrialKey> = BTreeSet::new();
    for trial in &plan.trials {
        assert!(trial.spec.needs().iter().all(|need| seen.contains(need)), "{}", trial.label);
        assert!(seen.insert(trial.spec.key()), "{} stands twice", trial.label);
    }
    assert!(plan.cells.iter().all(|cell| seen.contains(&cell.trial)));
}

#[test]
fn the_quickstart_comes_to_three_cells_a_method_and_shares_the_baseline() {
    let plan = parse(QUICKSTART).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(plan.cells.len(), 6 * 3);
    // Deterministic 3, dropout 3, the ensemble's other members 9, and 3 of each of the last three.
    assert_eq!(networks(&plan).len(), 3 + 3 + 9 + 3 * 3);
    assert_eq!(plan.trials.len(), 24 + 18);
    assert_needs_stand_before_users(&plan);
    assert!(networks(&plan).iter().any(|network| network.world_size == 2));
    assert_eq!(plan, parse(QUICKSTART).unwrap());
}

#[test]
fn the_paper_preset_brings_clipping_and_warm_up_and_no_other_method_has_them() {
    let plan = parse(QUICKSTART).unwrap();
    for network in networks(&plan) {
        let paper = network.method == TrainMethod::LpBnn(LpBnnPreset::Paper.settings());
        assert_eq!(network.recipe.clip_norm, paper.then_some(1.0));
        assert_eq!(network.recipe.warmup_epochs, if paper { 1.0 } else { 0.0 });
    }
}

#[test]
fn sngp_brings_clipping_which_an_entry_can_switch_off() {
    let text = QUICKSTART.to_owned()
        + "[[method]]\nkind = \"sngp\"\n\n[[method]]\nkind = \"sngp\"\nlabel = \"free\"\nrecipe = { clip-norm = \"none\" }\n";
    let plan = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let networks = networks(&plan).into_iter();
    let sngp = networks.filter(|network| matches!(network.method, TrainMethod::Sngp(_)));
    let clips: BTreeSet<_> = sngp.map(|network| network.recipe.clip_norm.map(f64::to_bits)).collect();
    assert_eq!(clips, BTreeSet::from([None, Some(1f64.to_bits())]));
}

#[test]
fn the_cifar_10_example_is_the_recipe_of_the_authors_code() {
    let plan = parse(CIFAR10).unwrap_or_else(|errors| panic!("{errors}"));
    assert_needs_stand_before_users(&plan);
    let first = networks(&plan)[0];
    let expected = Recipe {
        epochs: 250,
        batch_size: 128,
        lr: 0.1,
        schedule: Schedule::Step { milestones: vec![80, 160, 200], factor: 0.1 },
        warmup_epochs: 0.0,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 5e-4,
        clip_norm: None,
        reset_momentum_each_epoch: false,
        precision: crate::spec::Precision::Fp32,
        augmentation: vec![
            Augmentation::Crop { padding: 4 },
            Augmentation::Flip,
            Augmentation::Cutout { size: 16 },
        ],
    };
    assert_eq!(first.recipe, expected);
    assert_eq!(first.model.to_string(), "wrn-28-10");
}

#[test]
fn a_key_that_is_left_out_has_the_documented_default() {
    let plan = small("[[method]]\nkind = \"deterministic\"\n");
    let expected = Recipe {
        epochs: 10,
        batch_size: 128,
        lr: 0.1,
        schedule: Schedule::Cosine,
        warmup_epochs: 0.0,
        momentum: 0.9,
        nesterov: false,
        weight_decay: 5e-4,
        clip_norm: None,
        reset_momentum_each_epoch: false,
        precision: crate::spec::Precision::Fp32,
        augmentation: Vec::new(),
    };
    assert_eq!(networks(&plan)[0].recipe, expected);
    assert_eq!(networks(&plan)[0].world_size, 1);
}

#[test]
fn cells_stand_in_the_order_of_the_file() {
    let text = r#"
        name = "order"
        models = ["wrn-16-2", "wrn-10-1"]
        seeds = [7, 3]
        recipe = { epochs = 1 }
        [data.svhn]
        [data.cifar-10]
        [[method]]
        kind = "mc-dropout"
        [[method]]
        kind = "deterministic"
    "#;
    let plan = parse(text).unwrap();
    let cells: Vec<String> =
        plan.cells.iter().map(|c| format!("{} {} {} {}", c.data, c.model, c.method, c.seed)).collect();
    assert_eq!(cells.len(), 16);
    assert_eq!(
        cells[..5],
        [
            "svhn wrn-16-2 mc-dropout 7",
            "svhn wrn-16-2 mc-dropout 3",
            "svhn wrn-16-2 deterministic 7",
            "svhn wrn-16-2 deterministic 3",
            "svhn wrn-10-1 mc-dropout 7",
        ]
    );
    assert!(cells[8].starts_with("cifar-10"));
}

#[test]
fn an_ensemble_beside_a_baseline_takes_its_settings_and_trains_no_network_again() {
    let plan = small(
        r#"
        [[method]]
        kind = "deterministic"
        slots = 2
        [method.recipe]
        lr = 0.05

        [[method]]
        kind = "deep-ensemble"
        networks = 3

        [[override]]
        where = { method = "deterministic", seed = 1 }
        recipe = { epochs = 20 }
        "#,
    );
    assert_eq!(networks(&plan).len(), 2 * 3);
    assert!(networks(&plan).iter().all(|network| network.recipe.lr == 0.05 && network.world_size == 2));
    assert_eq!(networks(&plan).iter().filter(|network| network.recipe.epochs == 20).count(), 3);
    assert_needs_stand_before_users(&plan);
    assert_eq!(labels(&plan)[4], "train deterministic wrn-10-1 cifar-10 seed 0 member 1");
}

#[test]
fn an_ensemble_may_differ_from_the_baseline() {
    let plan = small(
        r#"
        [[method]]
        kind = "deterministic"
        [[method]]
        kind = "deep-ensemble"
        networks = 2
        recipe = { epochs = 5 }
        "#,
    );
    assert_eq!(networks(&plan).len(), 2 + 4);
}

#[test]
fn with_several_baselines_an_ensemble_names_its_own() {
    let baselines = r#"
[[method]]
kind = "deterministic"
label = "short"
[[method]]
kind = "deterministic"
label = "long"
recipe = { epochs = 20 }
[[method]]
kind = "deep-ensemble"
"#;
    assert_eq!(complaints(baselines), ["9: method[2]: the grid has several deterministic methods"]);
    let named = small(&format!("{baselines}baseline = \"long\"\nnetworks = 2\n"));
    assert_eq!(networks(&named).iter().filter(|network| network.recipe.epochs == 20).count(), 4);
}

#[test]
fn member_seeds_are_distinct_exact_in_json_and_never_change() {
    let seeds: BTreeSet<u64> =
        (0..50).flat_map(|seed| (0..20).map(move |member| member_seed(seed, member))).collect();
    assert_eq!(seeds.len(), 50 * 20);
    assert!(seeds.iter().all(|seed| *seed < 1 << 53));
    assert_eq!(member_seed(7, 0), 7);
    // From the `blake3` package of PyPI: first 8 bytes of the digest, little-endian, modulo 2^53.
    assert_eq!(member_seed(0, 1), 6_305_199_115_150_027);
}

#[test]
fn an_evaluation_names_its_networks_predictor_and_sources() {
    let plan =
        small("[[method]]\nkind = \"mc-dropout\"\nrate = 0.25\nsamples = 7\n[evaluate]\nbatch-size = 50\n");
    let TrialSpec::Evaluate(evaluate) = &plan.trials[1].spec else { panic!("expected an evaluation") };
    assert_eq!(evaluate.predictor, Predictor::McDropout { samples: 7 });
    assert_eq!(
        evaluate.networks[0].method,
        TrainMethod::Dropout(crate::spec::DropoutSettings {
            rate: 0.25,
            ..crate::spec::DropoutSettings::default()
        })
    );
    assert_eq!((evaluate.batch_size, evaluate.seed), (50, 0));
    assert_eq!(plan.trials[1].spec.needs(), [plan.trials[0].spec.key()]);
    assert_eq!(labels(&plan)[1], "evaluate mc-dropout wrn-10-1 cifar-10 seed 0");
}

#[test]
fn settings_of_lp_bnn_change_the_preset() {
    let plan = small(
        r#"
        [[method]]
        kind = "lp-bnn"
        preset = "torch-uncertainty"
        latent = 8
        kl-reduction = "mean"
        samples-per-member = 5
        "#,
    );
    let mut settings = LpBnnPreset::TorchUncertainty.settings();
    settings.latent = 8;
    settings.kl_reduction = crate::spec::KlReduction::Mean;
    assert_eq!(networks(&plan)[0].method, TrainMethod::LpBnn(settings));
    let TrialSpec::Evaluate(evaluate) = &plan.trials[1].spec else { panic!("expected an evaluation") };
    assert_eq!(evaluate.predictor, Predictor::Direct { samples_per_member: 5 });
    assert_eq!(&*plan.cells[0].method, "lp-bnn-torch-uncertainty");
}

#[test]
fn what_the_file_says_for_the_method_wins_over_its_preset() {
    let plan = small(
        r#"
        [[method]]
        kind = "lp-bnn"
        [method.recipe]
        clip-norm = "none"

        [[override]]
        where = { method = "lp-bnn", seed = 1 }
        recipe = { warmup-epochs = 2 }
        "#,
    );
    let of = |seed| &networks(&plan).into_iter().find(|network| network.seed == seed).unwrap().recipe;
    assert_eq!((of(0).clip_norm, of(0).warmup_epochs), (None, 1.0));
    assert_eq!((of(1).clip_norm, of(1).warmup_epochs), (None, 2.0));
}

#[test]
fn overrides_apply_in_order_and_only_where_they_say() {
    let plan = small(
        r#"
        [[method]]
        kind = "deterministic"
        [[override]]
        where = { data = "cifar-10" }
        recipe = { lr = 0.2, momentum = 0.8 }
        [[override]]
        where = { seed = [1] }
        slots = 4
        recipe = { lr = 0.4 }
        "#,
    );
    let seen: Vec<_> =
        networks(&plan).iter().map(|n| (n.seed, n.recipe.lr, n.recipe.momentum, n.world_size)).collect();
    assert_eq!(seen, [(0, 0.2, 0.8, 1), (1, 0.4, 0.8, 4)]);
}

#[test]
fn an_ensemble_keeps_what_it_says_itself_when_the_baseline_is_overridden() {
    let plan = small(
        r#"
        [[method]]
        kind = "deterministic"
        [[method]]
        kind = "deep-ensemble"
        networks = 2
        recipe = { epochs = 5 }
        [[override]]
        where = { method = "deterministic" }
        recipe = { epochs = 20, lr = 0.3 }
        "#,
    );
    let seen: BTreeSet<(u32, String)> =
        networks(&plan).iter().map(|n| (n.recipe.epochs, n.recipe.lr.to_string())).collect();
    assert_eq!(seen, BTreeSet::from([(20, "0.3".to_owned()), (5, "0.3".to_owned())]));
}

#[test]
fn a_kind_in_a_where_means_all_its_entries_unless_one_has_that_label() {
    let with = |label: &str| {
        let plan = small(&format!(
            "[[method]]\nkind = \"lp-bnn\"\nlabel = \"{label}\"\n[[method]]\nkind = \"lp-bnn\"\nlabel = \"other\"\n\
             preset = \"official\"\n[[override]]\nwhere = {{ method = \"lp-bnn\" }}\nslots = 2\n"
        ));
        networks(&plan).iter().filter(|network| network.world_size == 2).count()
    };
    assert_eq!(with("lp-bnn"), 2);
    assert_eq!(with("one"), 4);
}

#[test]
fn excluded_cells_are_left_out_with_their_trials() {
    let plan = small(
        r#"
        [[method]]
        kind = "deterministic"
        [[method]]
        kind = "mc-dropout"
        [[exclude]]
        where = { method = "mc-dropout", seed = 1 }
        "#,
    );
    assert_eq!(plan.cells.len(), 3);
    assert_eq!(plan.trials.len(), 6);
}

#[test]
fn held_out_classes_are_sorted_and_are_the_default_source() {
    let plan = parse(
        r#"
        name = "held-out"
        models = ["wrn-10-1"]
        seeds = { count = 2 }
        recipe = { epochs = 1 }
        method = [{ kind = "deterministic" }]
        [data."two left out"]
        set = "digits"
        held-out = [9, 8]
        "#,
    )
    .unwrap();
    assert_eq!(networks(&plan)[0].data.held_out, [8, 9]);
    let TrialSpec::Evaluate(evaluate) = &plan.trials[1].spec else { panic!("expected an evaluation") };
    assert_eq!(evaluate.ood, [crate::spec::OodSource::HeldOut]);
    assert_eq!(&*plan.cells[1].data, "two left out");
    assert_eq!(plan.cells.iter().map(|cell| cell.seed).collect::<Vec<_>>(), [0, 1]);
}

/// The evaluation of the only cell of a grid with these settings of `[data.cifar-10]`.
fn evaluation_with(settings: &str) -> crate::spec::EvaluateSpec {
    let text = SMALL.replace("data = [\"cifar-10\"]", "").replace("seeds = [0, 1]", "seeds = [0]");
    let text = format!("{text}[[method]]\nkind = \"deterministic\"\n[data.cifar-10]\n{settings}\n");
    let plan = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let TrialSpec::Evaluate(evaluate) = &plan.trials[1].spec else { panic!("expected an evaluation") };
    evaluate.clone()
}

#[test]
fn a_shift_is_a_word_or_a_table_with_defaults() {
    use crate::spec::{Corruption, ShiftSource, ShiftSpec};
    let files = evaluation_with("shift = \"files\"").shift.unwrap();
    assert_eq!(files.corruptions, Corruption::MAIN);
    assert_eq!((files.source, files.severities.len(), files.limit), (ShiftSource::Files, 5, None));
    let generated = evaluation_with("shift = \"generated\"").shift.unwrap();
    assert_eq!(generated.corruptions.len(), 14);
    assert!(!generated.corruptions.contains(&Corruption::Frost));
    assert_eq!(generated.pairs().count(), 70);
    let table = "shift = { source = \"generated\", corruptions = [\"fog\", \"shot_noise\"], severities = [5, 1], limit = 9 }";
    let expected = ShiftSpec {
        source: ShiftSource::Generated,
        corruptions: vec![Corruption::ShotNoise, Corruption::Fog],
        severities: vec![1, 5],
        limit: Some(9),
    };
    assert_eq!(evaluation_with(table).shift, Some(expected));
}

#[test]
fn sources_of_another_shape_are_resized_only_when_the_grid_says_so() {
    use crate::spec::{DatasetName, OodSource};
    let ood =
        "ood = [\"svhn\", { set = \"textures\", resize = true }, { set = \"cifar-100\", resize = true }]";
    let expected = [
        OodSource::Set(DatasetName::Svhn),
        OodSource::Resized(DatasetName::Textures),
        OodSource::Set(DatasetName::Cifar100),
    ];
    assert_eq!(evaluation_with(ood).ood, expected);
}

/// Names of trials are digests of this text: what is not asked for must not appear in it.
#[test]
fn validation_and_shift_are_in_the_json_only_when_they_are_asked_for() {
    let json = |settings: &str| TrialSpec::Evaluate(evaluation_with(settings)).to_json();
    let plain = json("");
    assert!(!plain.contains("validation") && !plain.contains("shift"), "{plain}");
    let asked = json("validation = 5000\nshift = \"files\"");
    assert!(asked.contains("\"validation\":5000") && asked.contains("\"gaussian_noise\""), "{asked}");
    let back: TrialSpec = serde_json::from_str(&asked).unwrap();
    assert_eq!(back.to_json(), asked);
}

#[test]
fn a_larger_grid_keeps_the_trials_of_the_smaller_one() {
    let method = "[[method]]\nkind = \"deterministic\"\n";
    let keys = |plan: &Plan| plan.trials.iter().map(|trial| trial.spec.key()).collect::<BTreeSet<_>>();
    let before = small(method);
    let text = format!("{SMALL}{method}[[method]]\nkind = \"lp-bnn\"\n")
        .replace("seeds = [0, 1]", "seeds = [2, 0, 1]");
    let after = parse(&text).unwrap();
    assert!(keys(&before).is_subset(&keys(&after)));
}

#[test]
fn how_a_number_is_written_does_not_change_a_trial() {
    let with = |recipe: &str| {
        let text = SMALL.replace("epochs = 10", &format!("epochs = 10\n{recipe}"));
        parse(&format!("{text}[[method]]\nkind = \"deterministic\"\n")).unwrap().trials[0].spec.key()
    };
    assert_eq!(with("lr = 1"), with("lr = 1.0"));
    assert_eq!(with("weight-decay = -0.0\nbatch-size = 1_28"), with("weight-decay = 0\nbatch-size = 0x80"));
    assert_eq!(with("schedule = { kind = \"cosine\" }"), with(""));
}

#[test]
fn weights_to_start_from_belong_to_all_networks_of_their_model_and_to_no_other() {
    let rest = format!(
        "[pretrained.resnet-18]\nfile = \"a.safetensors\"\nblake3 = \"{}\"\n\
         [[method]]\nkind = \"deterministic\"\n[[method]]\nkind = \"deep-ensemble\"\nnetworks = 2\n",
        "0a".repeat(32)
    );
    let text = SMALL.replace("[\"wrn-10-1\"]", "[\"wrn-10-1\", \"resnet-18\", \"resnet-18-cifar\"]") + &rest;
    let plan = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let mut found = 0;
    for network in networks(&plan) {
        match (&network.pretrained, network.model.to_string().as_str()) {
            (Some(pretrained), "resnet-18") => {
                assert_eq!(pretrained.file, "a.safetensors");
                assert_eq!(pretrained.digest.to_string(), "0a".repeat(32));
                found += 1;
            }
            (pretrained, other) => assert_eq!(*pretrained, None, "{other}"),
        }
    }
    assert_eq!(found, 2 + 2, "two seeds, and the second members of their ensembles");
}

#[test]
fn latent_sizes_are_swept_in_one_grid_by_their_labels() {
    let methods = [2, 8, 32, 64].map(|latent| {
        format!("[[method]]\nkind = \"lp-bnn\"\nlabel = \"LP-BNN d={latent}\"\nlatent = {latent}\n")
    });
    let plan = small(&methods.concat());
    let found: Vec<(String, u32)> = networks(&plan)
        .into_iter()
        .map(|spec| match &spec.method {
            TrainMethod::LpBnn(settings) => settings.latent,
            other => panic!("{other:?}"),
        })
        .zip(plan.cells.iter())
        .map(|(latent, cell)| (cell.method.to_string(), latent))
        .collect();
    // Two seeds of each.
    let expected = [2, 2, 8, 8, 32, 32, 64, 64].map(|latent| (format!("LP-BNN d={latent}"), latent));
    assert_eq!(found, expected);
}

#[test]
fn draws_at_full_scale_without_a_bound_on_the_gradient_are_warned_about_and_allowed() {
    let warned = |rest: &str| {
        let text = format!("name = \"g\"\nmodels = [\"wrn-10-1\"]\nseeds = [0, 1]\n[data.digits]\n{rest}");
        let (plan, warnings) = check(&text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(plan.cells.len(), 2);
        warnings.in_file("grid.toml").to_string()
    };
    let recipe = "[recipe]\nepochs = 2\nbatch-size = 32\n";
    let paper = "[[method]]\nkind = \"lp-bnn\"\n";
    assert_eq!(warned(&format!("{recipe}{paper}")), "");
    let said = warned(&format!("{recipe}{paper}recipe = {{ clip-norm = \"none\" }}\n"));
    // Once, though two cells have it.
    assert_eq!(said.matches("warning: `lp-bnn-paper` samples its convolutions").count(), 1, "{said}");
    assert!(said.contains("--> grid.toml:10:24") && said.contains("keep `clip-norm = 1.0`"), "{said}");
    for calm in ["std-factor = 0.01", "conv-sampling = \"autoencoder\"", "preset = \"official\""] {
        assert_eq!(
            warned(&format!("{recipe}{paper}{calm}\nrecipe = {{ clip-norm = \"none\" }}\n")),
            "",
            "{calm}"
        );
    }
    let slow = "recipe = { clip-norm = \"none\", lr = 0.01 }\n";
    assert_eq!(warned(&format!("{recipe}{paper}{slow}")), "");
}
