//! Grid files from the outside: what they come to, and what is said about wrong ones.

use std::collections::BTreeSet;

use super::*;
use crate::TrialKey;
use crate::golden::assert_golden;
use crate::plan::PlannedTrial;
use crate::spec::{
    Augmentation, LpBnnPreset, Predictor, Recipe, Schedule, TrainMethod, TrainSpec, TrialSpec,
};

const QUICKSTART: &str = include_str!("../../../examples/quickstart.toml");
const CIFAR10: &str = include_str!("../../../examples/cifar10.toml");

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
    assert_eq!(evaluate.networks[0].method, TrainMethod::Dropout { rate: 0.25 });
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
    assert_eq!(plan.cells[0].method, "lp-bnn-torch-uncertainty");
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
    assert_eq!(plan.cells[1].data, "two left out");
    assert_eq!(plan.cells.iter().map(|cell| cell.seed).collect::<Vec<_>>(), [0, 1]);
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
fn every_error_of_a_file_is_found_at_once_with_its_place_and_the_way_out() {
    let text = r#"name = "quickstart"
models = ["wrn-12-1"]
seeds = [0, 0]
epoch = 3

[data.digits]
held-out = [8, 12]
ood = ["heldout", "cifar-10"]

[recipe]
epochs = 0
batch_size = 32
schedule = "cosin"

[[method]]
kind = "lp-bn"

[[method]]
kind = "mc-dropout"
rate = 1.0
members = 4
"#;
    let said = parse(text).unwrap_err().in_file("grid.toml").to_string();
    assert_golden("grid-errors.txt", &(said + "\n"));
}

#[test]
fn an_unknown_key_is_refused_wherever_it_stands() {
    let rest =
        "[[method]]\nkind = \"deterministic\"\nrate = 0.1\n[run]\nfailures = 2\n[evaluate]\nsize = 1\n";
    assert_eq!(
        complaints(rest),
        [
            "3: method[0].rate: unknown key `rate`",
            "5: run.failures: unknown key `failures`",
            "7: evaluate.size: unknown key `size`"
        ]
    );
}

#[test]
fn the_hint_for_a_key_of_a_recipe_lists_all_of_them() {
    let found = problems(&SMALL.replace("epochs = 10", "epochs = 10\nzzz = 1"));
    let unknown = found.iter().find(|problem| problem.key == "recipe.zzz").unwrap();
    assert_eq!(unknown.hint, Some(crate::suggest::hint("zzz", recipe::KEYS)));
}

#[test]
fn what_is_missing_is_said_with_an_example() {
    let missing = problems("title = \"x\"\n");
    let keys: Vec<&str> = missing.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["name", "data", "models", "seeds", "method", "title"]);
    assert!(missing[..5].iter().all(|problem| problem.hint.is_some() && problem.line == 1));
}

#[test]
fn a_value_of_another_type_is_refused() {
    let rest = "[[method]]\nkind = \"mc-dropout\"\nrate = \"0.1\"\nsamples = 2.5\nslots = true\nrecipe = 3\n";
    assert_eq!(
        complaints(rest),
        [
            "3: method[0].rate: expected a number of at least 0 and below 1, found text",
            "4: method[0].samples: expected a whole number from 1 to 10000, found a number with a fraction",
            "5: method[0].slots: expected a whole number from 1 to 4096, found `true` or `false`",
            "6: method[0].recipe: expected a table, found a list or a number",
        ]
        .map(|line| line.replace("a list or a number", "a whole number"))
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    for (key, value) in [
        ("epochs", "0"),
        ("epochs", "-3"),
        ("epochs", "99999999999999999999999"),
        ("batch-size", "0"),
        ("lr", "0"),
        ("lr", "nan"),
        ("lr", "inf"),
        ("lr", "-0.1"),
        ("warmup-epochs", "-1"),
        ("momentum", "1.0"),
        ("weight-decay", "-1e-9"),
        ("clip-norm", "0.0"),
    ] {
        let rest = format!("[[method]]\nkind = \"deterministic\"\nrecipe = {{ {key} = {value} }}\n");
        let found = complaints(&rest);
        assert_eq!(found, [format!("3: method[0].recipe.{key}: {value} is out of range")]);
    }
}

#[test]
fn syntax_errors_have_their_line() {
    let found = problems("name = \"x\nmodels = [\nseeds = 1 2\n");
    assert_eq!(found[0].line, 1);
    assert!(found.iter().all(|problem| problem.key.is_empty()));
    let twice = problems("name = \"a\"\nname = \"b\"\n");
    assert_eq!((twice.len(), twice[0].line, twice[0].message.as_str()), (1, 2, "duplicate key"));
}

#[test]
fn ranks_and_split_members_share_a_batch_evenly_or_not_at_all() {
    let rest = r#"
[[method]]
kind = "deterministic"
slots = 3
[[method]]
kind = "batch-ensemble"
batch = "split"
members = 3
"#;
    assert_eq!(
        complaints(rest),
        [
            "4: method[0].slots: a batch of 128 images cannot be shared evenly by 3 ranks",
            "5: method[1]: 128 images a rank cannot be split evenly over 3 members"
        ]
    );
    small("[[method]]\nkind = \"batch-ensemble\"\nmembers = 3\n");
    small("[[method]]\nkind = \"lp-bnn\"\npreset = \"official-2020\"\nslots = 2\n");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for (recipe, complaint) in [
        ("warmup-epochs = 11", "a warm-up of 11 epochs is longer than training, 10 epochs"),
        (
            "schedule = { kind = \"step\", milestones = [5, 10], factor = 0.1 }",
            "milestone 10 is never reached: training ends after 10 epochs",
        ),
        (
            "schedule = { kind = \"step\", milestones = [5, 5], factor = 0.1 }",
            "milestones ascend, but 5 stands after 5",
        ),
        ("momentum = 0, nesterov = true", "Nesterov's momentum needs momentum"),
        ("schedule = \"step\"", "a step schedule needs milestones and a factor"),
        ("augmentation = [\"crop\"]", "`crop` needs a padding"),
        ("augmentation = [\"flip\", \"flip\"]", "this augmentation is applied before already"),
        (
            "augmentation = [{ kind = \"cutout\", size = 4 }, \"flip\"]",
            "`cutout` is not the last augmentation",
        ),
        (
            "augmentation = [{ kind = \"cutout\", size = 64 }]",
            "a square of 64 covers every image of `cifar-10`, 32 wide",
        ),
    ] {
        let found = complaints(&format!("[[method]]\nkind = \"deterministic\"\nrecipe = {{ {recipe} }}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(complaint), "{found:?}");
    }
}

#[test]
fn digits_are_not_mirrored() {
    let text = QUICKSTART.replace("{ kind = \"crop\", padding = 1 }", "\"flip\"");
    let found = problems(&text);
    assert_eq!(found.len(), 1, "one mistake is one error, however many cells it reaches");
    assert_eq!(found[0].key, "recipe.augmentation[0]");
}

#[test]
fn out_of_distribution_sources_have_to_make_sense() {
    for (settings, complaint) in [
        ("held-out = [9, 9]", "class 9 is listed twice"),
        ("held-out = [10]", "10 is out of range"),
        ("held-out = [0, 1, 2, 3, 4, 5, 6, 7, 8]", "1 of the 10 classes of `digits` are left to train on"),
        ("ood = [\"held-out\"]", "no class is held out"),
        ("ood = [\"digits\"]", "`digits` is in distribution here"),
        ("ood = [\"mnist\"]", "images of `mnist` are 1×28×28, those of `digits` are 1×8×8"),
        ("set = \"cifar10\"", "no data set is named `cifar10`"),
        ("train-limit = 100", "a batch of 128 does not fit into 100 training images"),
    ] {
        let text = SMALL.replace("data = [\"cifar-10\"]", "");
        let found =
            problems(&format!("{text}[[method]]\nkind = \"deterministic\"\n[data.digits]\n{settings}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].message, complaint);
    }
}

#[test]
fn names_in_a_where_exist_and_mean_some_cell() {
    let rest = r#"[[method]]
kind = "deterministic"
[[override]]
where = { method = "determinstic", data = "cifar10", seed = 5 }
slots = 2
[[exclude]]
where = {}
[[override]]
where = { seed = 0 }
[[override]]
slots = 2
"#;
    assert_eq!(
        complaints(rest),
        [
            "4: override[0].where.method: no method of this grid is named `determinstic`",
            "4: override[0].where.data: no data set of this grid is named `cifar10`",
            "4: override[0].where.seed: 5 is not one of the grid's `seeds`",
            "7: exclude[0].where: this `where` means every cell",
            "8: override[1]: this override changes nothing",
            "10: override[2].where: `where` is missing",
        ]
    );
    let nobody = r#"[[method]]
kind = "deterministic"
[[exclude]]
where = { seed = 0 }
[[override]]
where = { seed = 0 }
slots = 2
"#;
    assert_eq!(complaints(nobody), ["6: override[0].where: no cell of the grid is meant"]);
    let nothing =
        "[[method]]\nkind = \"deterministic\"\n[[exclude]]\nwhere = { method = \"deterministic\" }\n";
    assert_eq!(complaints(nothing), ["4: exclude[0].where: every cell of the grid is excluded"]);
}

#[test]
fn labels_and_names_are_unambiguous() {
    let rest = r#"[[method]]
kind = "lp-bnn"
[[method]]
kind = "lp-bnn"
[[method]]
kind = "mc-dropout"
label = "deterministic"
[[method]]
kind = "deterministic"
label = " "
"#;
    assert_eq!(
        complaints(rest),
        [
            "3: method[1]: two methods are labelled `lp-bnn-paper`",
            "7: method[2].label: a mc-dropout cannot be labelled `deterministic`, which is another kind",
            "10: method[3].label: not a label for a table",
        ]
    );
    for name in ["e12", "", "a b", "-x", &"n".repeat(65)] {
        let text =
            SMALL.replace("\"small\"", &format!("{name:?}")) + "[[method]]\nkind = \"deterministic\"\n";
        assert_eq!(problems(&text)[0].key, "name", "{name}");
    }
}

#[test]
fn a_grid_beyond_reason_is_refused_before_it_is_expanded() {
    let text = SMALL.replace("[0, 1]", "{ count = 1000 }");
    let methods: String =
        (0..11).map(|n| format!("[[method]]\nkind = \"deterministic\"\nlabel = \"m{n}\"\n")).collect();
    assert_eq!(problems(&(text + &methods))[0].message, "the grid has 11000 cells, more than 10000");
    assert_eq!(problems(&"#".repeat(2 << 20)).len(), 1);
}

/// Cuts, repeats and swaps pieces of valid files, so that most results are almost right.
fn mutated(random: &mut impl rand::Rng, texts: &[&str]) -> String {
    let mut text: Vec<char> = texts[random.random_range(0..texts.len())].chars().collect();
    let noise: Vec<char> = "[]{}=\"',.#\n\t -_0129eénan∞\u{0}\u{feff}".chars().collect();
    for _ in 0..random.random_range(1..6) {
        let from = random.random_range(0..text.len());
        let to = (from + random.random_range(0..40)).min(text.len());
        match random.random_range(0..5) {
            0 => drop(text.drain(from..to)),
            1 => text.insert(from, noise[random.random_range(0..noise.len())]),
            2 => text[from] = noise[random.random_range(0..noise.len())],
            3 => {
                let piece = text[from..to].to_vec();
                let place = random.random_range(0..=text.len());
                text.splice(place..place, piece);
            }
            _ => text.truncate(from.max(1)),
        }
        if text.is_empty() {
            break;
        }
    }
    text.into_iter().collect()
}

#[test]
fn no_text_makes_the_parser_panic_and_every_error_points_into_the_text() {
    use rand::SeedableRng;
    let mut random = rand::rngs::SmallRng::seed_from_u64(0);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let text = mutated(&mut random, &[QUICKSTART, CIFAR10, SMALL]);
        match parse(&text) {
            Ok(plan) => {
                accepted += 1;
                assert_needs_stand_before_users(&plan);
            }
            Err(errors) => {
                refused += 1;
                assert!(!errors.problems.is_empty());
                for problem in &errors.problems {
                    let line = text.lines().nth(problem.line - 1).unwrap_or_default();
                    assert_eq!(problem.source, line, "{text}");
                    assert!(problem.column <= line.chars().count() + 1, "{problem:?}");
                }
                assert!(errors.to_string().ends_with("above"));
            }
        }
    }
    // Both outcomes are common, or the mutations test nothing.
    assert!(accepted > 100 && refused > 1_000, "{accepted} accepted, {refused} refused");
}
