//! Keys that decide where, when and with how many ranks trials run, and not what they compute.

use super::*;

const GRID: &str = r#"
name = "g"
PROJECT
data = ["digits"]
models = ["wrn-10-1"]
seeds = [0]
[recipe]
epochs = 2
[run]
RUN
[[method]]
kind = "deterministic"
SLOTS
"#;

fn grid(project: &str, run: &str, slots: &str) -> String {
    GRID.replace("PROJECT", project).replace("RUN", run).replace("SLOTS", slots)
}

#[test]
fn project_priority_and_requirements_do_not_name_another_trial() {
    let plain = parse(&grid("", "", "")).unwrap();
    assert_eq!((plain.project.as_str(), plain.priority), ("default", 0));
    let run = "requires = { device = \"cuda\", memory-mib = 16000, labels = { rack = \"a\" } }";
    let plan = parse(&grid("project = \"vision\"\npriority = -3", run, "")).unwrap();
    assert_eq!((plan.project.as_str(), plan.priority), ("vision", -3));
    let requires = &plan.trials[0].policy.requires;
    assert_eq!(requires.to_string(), "device cuda, rack = a, 16000 MiB a slot");
    let keys = |plan: &Plan| plan.trials.iter().map(|trial| trial.spec.key()).collect::<Vec<_>>();
    assert_eq!(keys(&plan), keys(&plain));
}

#[test]
fn a_precision_names_another_trial_and_the_default_the_same_as_before_there_was_one() {
    let keys = |text: &str| {
        let plan = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
        plan.trials.iter().map(|trial| trial.spec.key()).collect::<Vec<_>>()
    };
    let recipe = |precision: &str| {
        grid("", "", "").replace("epochs = 2\n", &format!("epochs = 2\nprecision = \"{precision}\"\n"))
    };
    let plain = parse(&grid("", "", "")).unwrap();
    assert!(!plain.trials[0].spec.to_json().contains("precision"));
    assert_eq!(keys(&recipe("fp32")), keys(&grid("", "", "")));
    let mut all: Vec<_> =
        ["fp32", "tf32", "bf16", "fp16"].iter().map(|name| keys(&recipe(name))[0]).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4);
    let refused = parse(&recipe("fp8")).unwrap_err().to_string();
    assert!(refused.contains("no precision is named `fp8`") && refused.contains("bf16"), "{refused}");
}

#[test]
fn how_a_gpu_computes_names_no_other_trial_and_is_left_out_where_it_is_the_default() {
    let keys = |plan: &Plan| plan.trials.iter().map(|trial| trial.spec.key()).collect::<Vec<_>>();
    let plain = parse(&grid("", "", "")).unwrap();
    let plan = parse(&grid("", "deterministic = true\nchannels-last = true", "")).unwrap();
    assert_eq!(keys(&plan), keys(&plain));
    let policy = &plan.trials[0].policy;
    assert!(policy.deterministic && policy.channels_last);
    let text = serde_json::to_string(policy).unwrap();
    assert_eq!(serde_json::from_str::<crate::spec::RunPolicy>(&text).unwrap(), *policy);
    let text = serde_json::to_string(&plain.trials[0].policy).unwrap();
    assert!(!text.contains("deterministic") && !text.contains("channels"), "{text}");
    assert_eq!(serde_json::from_str::<crate::spec::RunPolicy>(&text).unwrap(), plain.trials[0].policy);
}

#[test]
fn keeping_the_best_names_no_other_trial_and_scores_as_the_evaluation_draws() {
    let grid = |run: &str| {
        let text =
            grid("", run, "[[method]]\nkind = \"mc-dropout\"\nsamples = 7\n[[method]]\nkind = \"tradi\"");
        let text = text.replace("data = [\"digits\"]\n", "") + "[evaluate]\nbatch-size = 50\n";
        parse(&(text + "[data.digits]\nvalidation = 100\n")).unwrap_or_else(|errors| panic!("{errors}"))
    };
    let (plain, best) = (grid(""), grid("keep-best = true"));
    assert_eq!(grid("keep-best = false"), plain);
    let keys = |plan: &Plan| plan.trials.iter().map(|trial| trial.spec.key()).collect::<Vec<_>>();
    assert_eq!(keys(&best), keys(&plain));
    // Train and evaluate, in turn: an evaluation has no checkpoints, and TRADI's networks are drawn after training.
    let samples = best.trials.iter().map(|trial| trial.policy.keep_best.map(|scoring| scoring.samples));
    assert_eq!(samples.collect::<Vec<_>>(), [Some(1), None, Some(7), None, Some(1), None]);
    assert_eq!(best.trials[0].policy.keep_best.map(|scoring| scoring.batch_size), Some(50));
    // Policies of logs and launches that were written before are read, and written as they were.
    let text = serde_json::to_string(&plain.trials[0].policy).unwrap();
    assert!(!text.contains("keep-best"), "{text}");
    assert_eq!(serde_json::from_str::<crate::spec::RunPolicy>(&text).unwrap(), plain.trials[0].policy);
}

#[test]
fn elastic_slots_are_limits_and_name_another_trial() {
    let fixed = parse(&grid("", "", "slots = 4")).unwrap();
    let elastic = parse(&grid("", "", "slots = { min = 1, max = 4 }")).unwrap();
    let (fixed, elastic) = (&fixed.trials[0].spec, &elastic.trials[0].spec);
    assert_ne!(fixed.key(), elastic.key());
    assert_eq!((fixed.min_slots(), fixed.slots()), (4, 4));
    assert_eq!((elastic.min_slots(), elastic.slots()), (1, 4));
    // A batch of 128 is not divided by 3.
    assert_eq!((1..=5).filter(|&ranks| elastic.allows(ranks)).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!((1..=5).filter(|&ranks| fixed.allows(ranks)).collect::<Vec<_>>(), [4]);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let refused = |text: &str| problems(text).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(refused(&grid("project = \"a b\"", "", "")).contains("not a name for a project"));
    assert!(refused(&grid("priority = 1001", "", "")).contains("1001 is out of range"));
    assert!(refused(&grid("", "requires = { gpu = \"h100\" }", "")).contains("unknown key `gpu`"));
    assert!(refused(&grid("", "requires = { labels = { gpu = 1 } }", "")).contains("expected text"));
    assert!(refused(&grid("", "", "slots = { min = 2, max = 2 }")).contains("`min` must be below `max`"));
    assert!(refused(&grid("", "", "slots = { max = 2 }")).contains("`min` is missing"));
}
