//! What stands beside a row's values: comparisons, marks, published figures, intervals.

use super::*;

const NAMES: [&str; 4] = ["accuracy", "auroc/svhn", "parameters", "train_seconds"];

fn setup(method: &str, members: Option<u64>) -> Setup {
    Setup {
        data: "cifar-10".to_owned(),
        extent: Extent::Whole,
        model: "wrn-28-10".to_owned(),
        method: method.to_owned(),
        networks: 1,
        members,
        ood: vec!["svhn".to_owned()],
        recipe: "100 epochs, batch 128, lr 0.1, crop and flip".to_owned(),
    }
}

fn row(method: &str, setup: Option<Setup>, seeds: &[CellStatus]) -> Vec<CellOutcome> {
    let cell = |(seed, status): (usize, &CellStatus)| {
        let outcome = cell("C10_whole", method, seed as u64, status.clone());
        CellOutcome { setup: setup.clone(), ..outcome }
    };
    seeds.iter().enumerate().map(cell).collect()
}

fn values(accuracy: f64, auroc: f64, parameters: f64, seconds: f64) -> CellStatus {
    done(&[
        ("accuracy", accuracy),
        ("auroc/svhn", auroc),
        ("parameters", parameters),
        ("train_seconds", seconds),
    ])
}

/// A row with three seeds, one that is clearly worse, one of which a seed is missing, one with a single seed.
fn outcomes() -> Vec<CellOutcome> {
    let base = row(
        "MCP",
        Some(setup("deterministic", None)),
        &[
            values(0.950, 0.91, 36.5e6, 100.0),
            values(0.952, 0.93, 36.5e6, 101.0),
            values(0.951, 0.90, 36.5e6, 99.0),
        ],
    );
    let worse = row(
        "BE",
        Some(setup("batch-ensemble", Some(4))),
        &[
            values(0.940, 0.92, 36.6e6, 400.0),
            values(0.942_1, 0.92, 36.6e6, 401.0),
            values(0.940_9, 0.91, 36.6e6, 399.0),
        ],
    );
    let partial = row(
        "LP-BNN",
        Some(setup("lp-bnn", Some(4))),
        &[values(0.951, f64::NAN, 36.9e6, 500.0), values(0.950, 0.95, 36.9e6, 501.0), CellStatus::Running],
    );
    let single = row("Extra", None, &[values(0.96, 0.99, 1e6, 1.0)]);
    [base, worse, partial, single].concat()
}

fn compared() -> Table {
    let choice = Choice { compare: Some("MCP".to_owned()), against: Against::Published, ..columns(&NAMES) };
    let mut table = build(&outcomes(), &choice).unwrap();
    table.intervals = Some(Intervals { level: 0.95, replicates: 1_000 });
    let value = &mut table.groups[0].rows[1].values[0];
    value.interval = Some(Bounds { low: 0.937, high: 0.9449 });
    if let Some(comparison) = &mut value.comparison {
        comparison.interval = Some(Bounds { low: -0.0122, high: -0.0077 });
    }
    table
}

#[test]
fn every_format_is_as_in_its_golden_file() {
    let table = compared();
    assert_golden("compared.txt", &table.to_text(TextStyle::default()));
    assert_golden("compared.md", &table.to_markdown());
    assert_golden("compared.tex", &table.to_latex());
    assert_golden("compared.csv", &table.to_csv());
    assert_eq!(serde_json::from_str::<Table>(&table.to_json()).unwrap(), table);
}

#[test]
fn a_comparison_is_over_the_seeds_that_both_have() {
    let table = compared();
    let rows = &table.groups[0].rows;
    let found = |row: usize, column: usize| rows[row].values[column].comparison.clone();
    assert_eq!(found(0, 0), None, "a row is not compared with itself");
    let clear = found(1, 0).unwrap();
    // Differences −0.0100, −0.0099, −0.0101: d = −0.01 / 1e-4, t = d √3, two degrees of freedom.
    assert!((clear.difference + 0.01).abs() < 1e-12 && (clear.sd.unwrap() - 1e-4).abs() < 1e-12);
    let t = clear.effect.unwrap() * 3.0_f64.sqrt();
    let expected = 1.0 - t.abs() / (t * t + 2.0).sqrt();
    assert!((clear.p.unwrap() / expected - 1.0).abs() < 1e-6, "{clear:?}, {expected}");
    // Two rows have a p-value in this column: Holm doubles the smaller.
    assert_eq!(clear.p_holm, Some(2.0 * clear.p.unwrap()));
    assert_eq!(clear.p_wilcoxon, Some(0.25));
    let partial = found(2, 0).unwrap();
    assert_eq!(partial.pairs, 2);
    assert!((partial.difference + 0.0005).abs() < 1e-12, "{partial:?}");
    let one = found(2, 1).unwrap();
    assert_eq!((one.pairs, one.sd, one.p, one.effect), (1, None, None, None));
    for (row, column) in [(1, 2), (1, 3)] {
        let cost = found(row, column).unwrap();
        assert!(cost.difference > 0.0);
        assert_eq!((cost.p, cost.p_holm, cost.effect, cost.p_wilcoxon), (None, None, None, None), "{column}");
    }
}

#[test]
fn marks_are_for_what_is_more_than_seed_noise() {
    let table = build(&outcomes(), &columns(&NAMES)).unwrap();
    let group = &table.groups[0];
    assert_eq!(group.verdicts, [Verdict::Marked, Verdict::Indistinct, Verdict::Exact, Verdict::NotCompared]);
    let marked = |column: usize| group.rows.iter().map(|row| row.values[column].best).collect::<Vec<_>>();
    assert_eq!(marked(0), [true, false, false, false], "a lucky single seed is not the best");
    assert_eq!(marked(1), [false; 4]);
    assert_eq!(marked(2), [false, false, false, true], "a count needs no seeds");
    assert_eq!(marked(3), [false; 4], "times are never marked");
}

#[test]
fn rows_that_are_as_good_as_the_best_are_marked_with_it() {
    let three = |a, b, c| [a, b, c].map(|accuracy| done(&[("accuracy", accuracy)]));
    let cells = [
        row("best", None, &three(0.90, 0.91, 0.92)),
        row("as good", None, &three(0.895, 0.915, 0.918)),
        row("worse", None, &three(0.80, 0.811, 0.819)),
    ];
    let table = build(&cells.concat(), &columns(&["accuracy"])).unwrap();
    assert_eq!(table.groups[0].verdicts, [Verdict::Marked]);
    let marked: Vec<bool> = table.groups[0].rows.iter().map(|row| row.values[0].best).collect();
    assert_eq!(marked, [true, true, false]);
}

#[test]
fn two_seeds_claim_nothing_and_the_table_says_so() {
    let two = |a, b| [a, b].map(|accuracy| done(&[("accuracy", accuracy)]));
    let cells = [row("a", None, &two(0.9, 0.901)), row("b", None, &two(0.1, 0.102))].concat();
    let table = build(&cells, &Choice { compare: Some("a".to_owned()), ..columns(&["accuracy"]) }).unwrap();
    assert_eq!(table.groups[0].verdicts, [Verdict::TooFewSeeds]);
    assert!(!table.groups[0].rows.iter().any(|row| row.values[0].best));
    let text = table.to_text(TextStyle::default());
    assert!(text.contains("fewer than three seeds"), "{text}");
    assert!(text.contains("two pairs leave one degree of freedom"), "{text}");
}

#[test]
fn differences_that_do_not_vary_are_not_called_significant() {
    // One test image of a hundred in every seed.
    let cells = [
        row("a", None, &[0.90, 0.91, 0.92].map(|accuracy| done(&[("accuracy", accuracy)]))),
        row("b", None, &[0.89, 0.90, 0.91].map(|accuracy| done(&[("accuracy", accuracy)]))),
    ];
    let table = build(&cells.concat(), &Choice { compare: Some("a".to_owned()), ..columns(&["accuracy"]) });
    let table = table.unwrap();
    assert_eq!(table.groups[0].verdicts, [Verdict::Indistinct]);
    assert_eq!(table.groups[0].rows[1].values[0].comparison.as_ref().unwrap().p, None);
}

#[test]
fn published_figures_stand_only_beside_what_they_are_about() {
    let choice = Choice { against: Against::Published, ..columns(&["accuracy", "auroc/svhn"]) };
    let lines = |setup: Setup| {
        let cells = row("m", Some(setup), &[values(0.95, 0.9, 1.0, 1.0)]);
        build(&cells, &choice).unwrap().groups[0].rows[0].published.clone()
    };
    let found = lines(setup("lp-bnn", Some(4)));
    let sources: Vec<&str> = found.iter().map(|line| line.source.as_str()).collect();
    assert_eq!(sources, ["lp-bnn-2023", "lp-bnn-2020"]);
    let value = found[0].values[0].clone().unwrap();
    assert_eq!((value.printed.as_str(), value.value), ("94.76", 0.9476));
    assert!((value.difference.unwrap() - 0.0024).abs() < 1e-12);
    // Uncertainty Baselines have no detection against SVHN.
    assert_eq!(lines(setup("deterministic", None))[0].values[1], None);
    for other in [
        Setup { extent: Extent::Part, ..setup("lp-bnn", Some(4)) },
        Setup { model: "wrn-16-4".to_owned(), ..setup("lp-bnn", Some(4)) },
        Setup { data: "svhn".to_owned(), ..setup("lp-bnn", Some(4)) },
        setup("lp-bnn", Some(8)),
        Setup { networks: 5, ..setup("deep-ensemble", None) },
    ] {
        assert_eq!(lines(other), []);
    }
    let only_tiny = Setup { ood: vec!["tiny-imagenet".to_owned()], ..setup("lp-bnn", Some(4)) };
    let cells = row("m", Some(only_tiny), &[done(&[("auroc", 0.9)])]);
    let table = build(&cells, &Choice { columns: vec!["auroc".to_owned()], ..choice.clone() }).unwrap();
    assert_eq!(table.groups[0].rows[0].published, [], "AUROC against another set");
    let text = table.to_text(TextStyle::default());
    assert!(text.contains("nothing published belongs to these rows"), "{text}");
    assert!(text.contains("cifar-10 with wrn-28-10 (batch-ensemble, lp-bnn, "), "{text}");
}

#[test]
fn a_detection_column_without_a_set_is_about_the_only_set() {
    let choice = Choice { against: Against::Published, ..columns(&["auroc"]) };
    let cells = row("m", Some(setup("lp-bnn", Some(4))), &[done(&[("auroc", 0.9), ("auroc/svhn", 0.9)])]);
    let table = build(&cells, &choice).unwrap();
    assert_eq!(table.groups[0].rows[0].published[0].values[0].as_ref().unwrap().printed, "0.9670");
}

#[test]
fn rows_are_chosen_and_ordered_and_the_row_to_compare_with_stays() {
    let names = |rows: &[&str], compare: Option<&str>| {
        let rows = rows.iter().map(|&row| row.to_owned()).collect();
        let choice = Choice { rows, compare: compare.map(str::to_owned), ..columns(&["accuracy"]) };
        let table = build(&outcomes(), &choice)?;
        Ok::<_, ChoiceError>(table.groups[0].rows.iter().map(|row| row.method.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(&["LP-BNN", "BE"], None).unwrap(), ["LP-BNN", "BE"]);
    assert_eq!(names(&["LP-BNN,BE"], Some("MCP")).unwrap(), ["MCP", "LP-BNN", "BE"]);
    let error = names(&["LPBNN"], None).unwrap_err().to_string();
    assert!(error.starts_with("no method is labelled `LPBNN`: did you mean `LP-BNN`?"), "{error}");
    assert!(names(&[], Some("MPC")).unwrap_err().to_string().contains("did you mean `MCP`?"));
}

#[test]
fn models_and_data_sets_are_compared_each_by_itself() {
    let mut cells = outcomes();
    let other =
        cells.clone().into_iter().filter(|outcome| &*outcome.cell.method != "MCP").map(|mut outcome| {
            outcome.cell.model = "wrn-16-4".into();
            outcome
        });
    cells.extend(other.collect::<Vec<_>>());
    let table = build(&cells, &Choice { compare: Some("MCP".to_owned()), ..columns(&NAMES) }).unwrap();
    assert_eq!(table.groups.len(), 2);
    let compared =
        |group: usize| table.groups[group].rows.iter().any(|row| row.values[0].comparison.is_some());
    assert!(compared(0) && !compared(1), "the second group has no such row");
}
