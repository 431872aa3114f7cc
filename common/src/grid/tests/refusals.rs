//! What is said about wrong grid files.

use super::*;
use crate::golden::assert_golden;

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
        ("train-limit = 200\nvalidation = 100", "a batch of 128 does not fit into 100 training images"),
        (
            "train-limit = 200\nvalidation = 200",
            "200 of the 200 training images cannot be held out for validation",
        ),
        ("ood = [{ set = \"mnist\" }]", "images of `mnist` are 1×28×28, those of `digits` are 1×8×8"),
        ("ood = [{ resize = true }]", "`set` is missing"),
        (
            "ood = [{ set = \"two-moons\", resize = true }]",
            "images of `two-moons` are 2×1×1, those of `digits` are 1×8×8",
        ),
        ("ood = [\"two-moons-far\"]", "`two-moons-far` is far from `two-moons`, not from `digits`"),
        ("shift = \"file\"", "no source of corrupted images is named `file`"),
        ("shift = \"files\"", "no corrupted images of `digits` are published"),
        ("shift = { source = \"generated\", corruptions = [\"frost\"] }", "`frost` cannot be generated"),
        (
            "shift = { source = \"generated\", corruptions = [\"saturate\"] }",
            "`saturate` adds a colour, images of `digits` are grey",
        ),
        ("shift = { source = \"generated\", corruptions = [] }", "no corruption is listed"),
        ("shift = { source = \"generated\", severities = [0] }", "0 is out of range"),
        ("shift = { source = \"generated\", severities = [3, 3] }", "severity 3 is listed twice"),
        ("set = \"two-moons\"\nshift = \"generated\"", "`two-moons` has no images to corrupt"),
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

#[test]
fn weights_to_start_from_are_for_resnets_of_the_grid_and_have_a_name_and_a_digest() {
    let digest = "0".repeat(64);
    let good = format!("file = \"a.safetensors\"\nblake3 = \"{digest}\"\n");
    let deterministic = "[[method]]\nkind = \"deterministic\"\n";
    assert_eq!(
        complaints(&format!("[pretrained.wrn-10-1]\n{good}{deterministic}")),
        ["1: pretrained.wrn-10-1: `wrn-10-1` cannot start from a file of weights"]
    );
    assert_eq!(
        complaints(&format!("[pretrained.resnet-18]\n{good}{deterministic}")),
        ["1: pretrained.resnet-18: `resnet-18` is not one of the grid's `models`"]
    );
    let resnet = SMALL.replace("wrn-10-1", "resnet-18");
    let of = |lines: &str| {
        problems(&format!("{resnet}[pretrained.resnet-18]\n{lines}\n{deterministic}"))
            .iter()
            .map(|problem| format!("{}: {}", problem.key, problem.message))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of("file = \"../a.safetensors\""),
        [
            "pretrained.resnet-18.blake3: `blake3` is missing",
            "pretrained.resnet-18.file: `../a.safetensors` is not the name of such a file"
        ]
    );
    assert_eq!(
        of("file = \"a.pth\"\nblake3 = \"12\"\nurl = 1"),
        [
            "pretrained.resnet-18.file: `a.pth` is not the name of such a file",
            "pretrained.resnet-18.blake3: `12` is not a digest: expected 64 hexadecimal digits",
            "pretrained.resnet-18.url: unknown key `url`"
        ]
    );
}

#[test]
fn the_best_checkpoint_is_told_by_images_that_were_held_out() {
    let rest = r#"[run]
keep-best = true
[[method]]
kind = "deterministic"
"#;
    let data =
        "[data.digits]\nvalidation = 100\n[data.plain]\nset = \"digits\"\n[data.cubic]\nvalidation = 100\n";
    let text = SMALL.replace("data = [\"cifar-10\"]", "").replace("wrn-10-1", "mlp-2-8");
    let found = problems(&format!("{text}{rest}{data}"));
    let messages =
        found.iter().map(|problem| (problem.key.as_str(), problem.message.as_str())).collect::<Vec<_>>();
    assert_eq!(
        messages,
        [
            (
                "run.keep-best",
                "`keep-best` scores images held out by `validation`, and `plain` holds out none"
            ),
            (
                "run.keep-best",
                "`keep-best` scores the classes of images held out by `validation`, and `cubic` has none"
            ),
        ]
    );
    let hint = "set `validation` in `[data.plain]`, like `validation = 500`, or drop `keep-best`";
    assert_eq!(found[0].hint.as_deref(), Some(hint));
    let named = complaints(rest);
    assert_eq!(
        named,
        [
            "2: run.keep-best: `keep-best` scores images held out by `validation`, and `cifar-10` holds out none"
        ]
    );
}
