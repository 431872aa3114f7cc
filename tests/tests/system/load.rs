//! The short form of `cargo xtask load`: exactness, not speed, because a test shares its machine.

use std::time::Duration;

use system_tests::load::{self, Load};

#[test]
fn under_load_no_row_is_lost_and_no_result_is_lost_or_doubled() {
    let load = Load {
        workers: 50,
        trials: 1_000,
        experiments: 10,
        duration: Duration::from_millis(300),
        reports: 3,
        rows: 20,
    };
    let figures = load::run(load);
    assert_eq!((figures.trials, figures.rows), (1_000, 500 * 60));
    // One hello for each worker: no session broke.
    assert_eq!(figures.sessions, 50);
    // Submitted, started, ended; and the checkpoint of each network; and the workers and the experiments.
    assert_eq!(figures.events, 3 * 1_000 + 500 + 50 + 10);
}
