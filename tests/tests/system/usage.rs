//! Mistakes of users: each is named with its way out, and has its documented exit status.

use system_tests::{Cluster, Finished, Grid, Lease, method};

#[test]
fn every_error_of_a_grid_file_is_listed_with_its_line() {
    let cluster = Cluster::start(Lease::Long);
    let path = cluster.path("bad.toml");
    let text = "name = \"bad\"\nmodels = [\"wrn-12-1\"]\nseeds = [0, 0]\ndata = [\"digit\"]\n[recipe]\nepoch = 2\n\
                [[method]]\nkind = \"lpbnn\"\n";
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    for arguments in [&["submit", path][..], &["submit", path, "--dry-run"]] {
        let errors = cluster.run(arguments).failed_with(2);
        for words in [
            "wrn-12-1",
            "listed twice",
            "digits",
            "`epoch`",
            "did you mean `epochs`",
            "lp-bnn",
            "bad.toml:2:",
            "bad.toml:8:",
        ] {
            assert!(errors.contains(words), "no `{words}` in:\n{errors}");
        }
    }
    let errors = cluster.run(&["submit", "/nowhere/grid.toml"]).failed_with(2);
    assert!(errors.contains("/nowhere/grid.toml"), "{errors}");
    cluster.stop();
}

#[test]
fn what_nobody_knows_ends_with_status_3() {
    let cluster = Cluster::start(Lease::Long);
    cluster.submit(&Grid::new("known").method(method::DETERMINISTIC));
    let unknown = |arguments: &[&str], words: &str| {
        let errors = cluster.run(arguments).failed_with(3);
        assert!(errors.contains(words), "no `{words}` in:\n{errors}");
    };
    unknown(&["status", "knwon"], "`known`");
    unknown(&["table", "e99"], "e99");
    unknown(&["watch", "nothing"], "nothing");
    unknown(&["cancel", "t99"], "t99");
    unknown(&["metrics", "t99"], "t99");
    unknown(&["artifacts", "t99"], "t99");
    let train = cluster.experiment("known").trial(&["train"]).id.clone();
    unknown(&["artifacts", &train, "weights"], "weights");
    cluster.stop();
}

#[test]
fn a_coordinator_that_is_not_there_ends_with_status_4() {
    let mut cluster = Cluster::start(Lease::Long);
    cluster.kill_coordinator();
    for arguments in [&["list"][..], &["status", "x"], &["watch", "x"], &["workers"], &["table", "x"]] {
        let finished: Finished = cluster.run(arguments);
        let errors = finished.failed_with(4);
        assert!(errors.contains(&cluster.url()) && errors.contains("credence coordinator"), "{errors}");
    }
    cluster.start_coordinator();
    cluster.stop();
}

#[test]
fn a_data_set_that_is_not_there_fails_the_trial_and_says_where_it_was_looked_for() {
    let cluster = Cluster::with_workers(Lease::Long, &["alpha"]);
    let grid = Grid::new("no-data").data("data = [\"cifar-10\"]").method(method::DETERMINISTIC);
    cluster.submit(&grid);
    let train = cluster.ended(&cluster.experiment("no-data").trial(&["train"]).id);
    assert_eq!((train.state.as_str(), train.attempts), ("failed", 1), "{train:#?}");
    let folder = cluster.path("datasets").display().to_string();
    for words in ["cifar-10", folder.as_str(), "https://"] {
        assert!(train.reason.contains(words), "no `{words}` in: {}", train.reason);
    }
    cluster.stop();
}

#[test]
fn an_unknown_key_of_a_configuration_is_refused_by_name() {
    let cluster = Cluster::start(Lease::Long);
    let file = cluster.path("typo.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "slot = 2\n").unwrap();
    let errors = cluster.run(&["worker", "--config", path]).failed_with(2);
    assert!(errors.contains("slot") && errors.contains("typo.toml"), "{errors}");
    std::fs::write(&file, "leese = \"3s\"\n").unwrap();
    let errors = cluster.run(&["coordinator", "--config", path]).failed_with(2);
    assert!(errors.contains("leese") && errors.contains("typo.toml"), "{errors}");
    std::fs::write(&file, "lease = \"1s\"\nheartbeat = \"500ms\"\n").unwrap();
    let errors = cluster.run(&["coordinator", "--config", path]).failed_with(2);
    assert!(errors.contains("lease") && errors.contains("heartbeat"), "{errors}");
    let errors = cluster.run(&["submit"]).failed_with(2);
    assert!(errors.contains("FILE"), "{errors}");
    cluster.stop();
}

#[test]
fn the_printed_default_configuration_is_a_configuration() {
    let cluster = Cluster::start(Lease::Long);
    for command in ["coordinator", "worker"] {
        let printed = cluster.run(&[command, "--print-config"]).ok();
        assert!(printed.lines().any(|line| line.starts_with("data-dir = ")), "{printed}");
    }
    let help = cluster.run(&["--help"]).ok();
    for words in ["submit", "watch", "table", "Exit status"] {
        assert!(help.contains(words), "no `{words}` in:\n{help}");
    }
    cluster.stop();
}
