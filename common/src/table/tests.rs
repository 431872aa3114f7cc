//! Tables against golden files, in every format, and the rules that they follow.

mod beside;

use super::*;
use crate::Digest;
use crate::golden::assert_golden;

type Values<'a> = &'a [(&'a str, f64)];

fn cell(data: &str, method: &str, seed: u64, status: CellStatus) -> CellOutcome {
    let trial = TrialKey(Digest::of(format!("{data} {method} {seed}").as_bytes()));
    let cell = Cell { data: data.into(), model: "wrn-10-1".into(), method: method.into(), seed, trial };
    CellOutcome { cell, setup: None, world_sizes: Vec::new(), status }
}

fn done(values: Values) -> CellStatus {
    CellStatus::Done(values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect())
}

fn scores(accuracy: f64, nll: f64, auroc: f64, parameters: f64, seconds: f64) -> CellStatus {
    done(&[
        ("accuracy", accuracy),
        ("nll", nll),
        ("auroc", auroc),
        ("parameters", parameters),
        ("train_seconds", seconds),
    ])
}

fn columns(names: &[&str]) -> Choice {
    Choice { columns: names.iter().map(|name| (*name).to_owned()).collect(), ..Choice::default() }
}

/// Every state, a value that a done seed lacks, a tie in print, and labels that each format has to escape.
fn mixed() -> Table {
    let lost = "the loss was not finite at step 120".to_owned();
    let outcomes = [
        cell("digits", "Deterministic", 0, scores(0.971, 0.101, 0.95, 78_058.0, 20.0)),
        cell("digits", "Deterministic", 1, scores(0.973, 0.099, 0.96, 78_058.0, 21.0)),
        cell("digits", "Deterministic", 2, scores(0.972, 0.103, 0.94, 78_058.0, 22.5)),
        cell("digits", "BE | 50% & more_", 0, scores(0.971, 0.090, 0.97, 80_000.0, 70.0)),
        cell("digits", "BE | 50% & more_", 1, scores(0.9730001, 0.091, 0.98, 80_000.0, 71.0)),
        cell("digits", "BE | 50% & more_", 2, scores(0.972, 0.092, f64::NAN, 80_000.0, 75.0)),
        cell("digits", "LP-BNN, \"paper\"", 0, scores(0.999, 0.010, 0.999, 90_000.0, 300.0)),
        cell("digits", "LP-BNN, \"paper\"", 1, CellStatus::Failed(lost)),
        cell("digits", "LP-BNN, \"paper\"", 2, CellStatus::Running),
        cell("digits", "MC Dropout", 0, CellStatus::Waiting),
        cell("digits", "MC Dropout", 1, CellStatus::Waiting),
        cell("digits", "MC Dropout", 2, CellStatus::Cancelled),
        cell("svhn", "Deterministic", 0, done(&[("accuracy", 0.9)])),
    ];
    build(&outcomes, &columns(&["accuracy", "nll", "auroc", "parameters", "train_seconds"])).unwrap()
}

#[test]
fn text_is_as_in_the_golden_file() {
    assert_golden("table.txt", &mixed().to_text(TextStyle::default()));
}

#[test]
fn markdown_is_as_in_the_golden_file() {
    assert_golden("table.md", &mixed().to_markdown());
}

#[test]
fn csv_is_as_in_the_golden_file() {
    assert_golden("table.csv", &mixed().to_csv());
}

#[test]
fn latex_is_as_in_the_golden_file() {
    assert_golden("table.tex", &mixed().to_latex());
}

#[test]
fn json_is_as_in_the_golden_file() {
    assert_golden("table.json", &(mixed().to_json() + "\n"));
}

/// Invariant I9. Each format has, for every row, N and what became of each seed.
#[test]
fn no_format_hides_a_missing_seed() {
    let table = mixed();
    for text in [
        table.to_text(TextStyle::default()),
        table.to_text(TextStyle { emphasis: Emphasis::Bold, width: Some(40) }),
        table.to_markdown(),
        table.to_latex(),
    ] {
        for said in ["3/3", "1/3 (1 failed, 1 running)", "0/3 (1 cancelled, 2 waiting)", "1/1"] {
            assert!(text.contains(said), "{said} is not in\n{text}");
        }
        assert!(text.contains("seed 1: failed: the loss was not finite at step 120"), "{text}");
        assert!(text.contains("seed 2: cancelled"), "{text}");
        // One seed of three has the values of this row, and one of a complete row lacks AUROC.
        assert!(text.contains("(1/3)") && text.contains("(2/3)"), "{text}");
    }
    for row in table.groups.iter().flat_map(|group| &group.rows) {
        let Tally { of, done, running, waiting, failed, cancelled } = row.tally;
        assert_eq!(of, done + running + waiting + failed + cancelled);
        assert!(row.values.iter().all(|value| value.of == of && value.n <= done));
    }
    assert!(!table.is_complete());
}

#[test]
fn a_row_with_missing_seeds_is_never_marked() {
    let rows = &mixed().groups[0].rows;
    let best = |row: usize, column: usize| rows[row].values[column].best;
    assert!(rows[2].values[0].mean > rows[0].values[0].mean, "the lucky seed is ahead");
    assert!((0..5).all(|column| !best(2, column)));
    assert!(best(1, 1) && !best(0, 1), "lower NLL is better");
}

#[test]
fn the_only_row_that_is_complete_is_not_the_best_of_anything() {
    let table = mixed();
    assert!(!table.groups[0].rows.iter().any(|row| row.values[2].best), "AUROC: one complete row");
    assert!(!table.groups[1].rows[0].values[0].best, "one row");
}

#[test]
fn the_spread_is_that_of_a_sample_and_absent_for_one_seed() {
    let table = mixed();
    let sd = table.groups[0].rows[0].values[0].sd.unwrap();
    assert!((sd - 0.001).abs() < 1e-12, "{sd}");
    assert_eq!(table.groups[1].rows[0].values[0].sd, None);
}

#[test]
fn default_columns_follow_the_sets_that_were_measured() {
    let names = |outcomes: &[CellOutcome]| {
        Column::defaults(outcomes).iter().map(Column::name).collect::<Vec<_>>().join(" ")
    };
    let plain = "accuracy nll brier ece auroc aupr fpr95 parameters train_seconds";
    assert_eq!(names(&[]), plain);
    assert_eq!(names(&[cell("digits", "m", 0, done(&[("auroc", 0.5)]))]), plain);
    let on_a_gpu = done(&[("auroc", 0.5), ("peak_device_bytes", 2e9)]);
    assert_eq!(names(&[cell("digits", "m", 0, on_a_gpu)]), format!("{plain} peak_device_bytes"));
    // A report of one set names its figures twice; the table shows them once.
    let single = done(&[("auroc", 0.5), ("auroc/held-out", 0.5)]);
    assert_eq!(names(&[cell("digits", "m", 0, single)]), plain);
    let two = [
        cell("c", "m", 0, done(&[("auroc/svhn", 0.5), ("auroc/cifar-100", 0.5)])),
        cell("c", "m", 1, CellStatus::Waiting),
    ];
    assert_eq!(
        names(&two),
        "accuracy nll brier ece auroc/cifar-100 auroc/svhn aupr/cifar-100 aupr/svhn fpr95/cifar-100 \
         fpr95/svhn parameters train_seconds"
    );
}

#[test]
fn columns_that_do_not_fit_are_continued_below_with_the_methods_again() {
    let text = mixed().to_text(TextStyle { emphasis: Emphasis::Star, width: Some(80) });
    let (blocks, _notes) = text.split_once("\n*").unwrap();
    assert!(blocks.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(blocks.matches("LP-BNN, \"paper\"  ").count(), 4, "{text}");
    let narrow = mixed().to_text(TextStyle { emphasis: Emphasis::Star, width: Some(1) });
    assert!(narrow.contains("Training ↓"), "a column that can fit nowhere is shown all the same");
}

#[test]
fn escape_sequences_do_not_disturb_the_alignment() {
    let bold = mixed().to_text(TextStyle { emphasis: Emphasis::Bold, width: None });
    assert!(bold.contains("\u{1b}[1m"));
    let plain = bold.replace("\u{1b}[1m", "").replace("\u{1b}[0m", "");
    let ends: Vec<usize> = plain.lines().skip(1).take(4).map(|line| line.chars().count()).collect();
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{plain}");
}

#[test]
fn columns_come_by_group_and_in_the_order_that_was_asked_for() {
    let values = [
        ("accuracy", 0.5),
        ("nll", 1.0),
        ("auroc/a", 0.5),
        ("auroc/b", 0.5),
        ("aupr_in/a", 0.5),
        ("disagreement", 0.1),
        ("disagreement/a", 0.1),
        ("parameters", 7.0),
    ];
    let outcomes = [cell("d", "m", 0, done(&values))];
    let names = |asked: &[&str]| {
        let table = build(&outcomes, &columns(asked))?;
        Ok::<_, ChoiceError>(table.columns.iter().map(Column::name).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(names(&["cost", "detection"]).unwrap(), "parameters auroc/a auroc/b aupr_in/a");
    assert_eq!(names(&["nll", "classification", "nll"]).unwrap(), "nll accuracy");
    assert_eq!(names(&["auroc"]).unwrap(), "auroc/a auroc/b", "no result has it without a set");
    assert_eq!(names(&["diversity"]).unwrap(), "disagreement");
    assert_eq!(
        names(&["all"]).unwrap(),
        "accuracy nll auroc/a auroc/b aupr_in/a disagreement disagreement/a parameters"
    );
    assert_eq!(names(&["calibration"]).unwrap_err(), ChoiceError::EmptyGroup("calibration".to_owned()));
    let error = names(&["divresity"]).unwrap_err().to_string();
    assert!(error.contains("did you mean `diversity`?"), "{error}");
    // Before the first result a group shows what it will have.
    let waiting = [cell("d", "m", 0, CellStatus::Waiting)];
    assert!(build(&waiting, &columns(&["diversity"])).unwrap().columns.len() > 3);
}

#[test]
fn a_table_reads_back_from_its_json() {
    let table = mixed();
    assert_eq!(serde_json::from_str::<Table>(&table.to_json()).unwrap(), table);
}

#[test]
fn a_table_of_nothing_is_empty_in_every_format() {
    let table = build(&[], &Choice::default()).unwrap();
    assert_eq!(table.to_text(TextStyle::default()), "");
    assert_eq!(table.to_markdown(), "");
    assert_eq!(table.to_csv().lines().count(), 1);
    assert!(table.is_complete());
}

/// Every format that people read says with how many ranks an elastic trial was trained.
#[test]
fn the_world_sizes_of_elastic_trials_are_stated() {
    let elastic = |seed, world_sizes: &[u32]| CellOutcome {
        world_sizes: world_sizes.to_vec(),
        ..cell("digits", "LP-BNN", seed, done(&[("accuracy", 0.9)]))
    };
    let outcomes = [elastic(0, &[1, 2, 1]), elastic(1, &[2]), elastic(2, &[1, 2, 1])];
    let table = build(&outcomes, &columns(&["accuracy"])).unwrap();
    for text in [table.to_text(TextStyle { emphasis: Emphasis::Star, width: None }), table.to_markdown()] {
        let resized = "digits, wrn-10-1, LP-BNN, seeds 0, 2: elastic, trained with 1, then 2, then 1 ranks";
        assert!(text.contains(resized), "{text}");
        assert!(text.contains("seed 1: elastic, trained with 2 ranks"), "{text}");
    }
    assert!(table.to_json().contains("\"world_sizes\""));
}
