//! A trial that gives up its slots on request goes on later as if it had never been asked.

use common::report::{Command, Launch, Report};
use common::spec::{TrainMethod, TrainSpec, TrialSpec};

use crate::support::{Ended, Rank, assert_same_tensors, launch, lp_bnn, run_gang, start_gang, train_spec};

fn long(world_size: u32) -> TrainSpec {
    let mut spec = train_spec(lp_bnn());
    spec.world_size = world_size;
    spec.recipe.epochs = 30;
    spec
}

/// Where all ranks stopped. Rank 0 has left a checkpoint of that step, and said so before.
fn yielded_at(ranks: &[Ended]) -> u64 {
    let steps: Vec<u64> = ranks
        .iter()
        .map(|rank| {
            assert!(rank.status.success(), "{:#?}\n{}", rank.reports, rank.stderr);
            match rank.reports.last() {
                Some(Report::Yielded { step }) => *step,
                other => panic!("the last report is {other:?}"),
            }
        })
        .collect();
    assert!(steps.windows(2).all(|pair| pair[0] == pair[1]), "{steps:?}");
    steps[0]
}

/// Runs `whole`, and a second time with a request at its start to those ranks that `asked` names, then from what that left.
fn goes_on_as_if_never_asked(world_size: u32, asked: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let whole = launch(TrialSpec::Train(long(world_size)), &folder.path().join("whole"));
    let expected = run_gang(&whole).swap_remove(0);

    let mut first = Launch { work_dir: folder.path().join("first"), ..whole.clone() };
    // So that the checkpoint of the last step may be on its way already.
    first.policy.checkpoint_steps = Some(1);
    let mut ranks = start_gang(&first);
    ranks[0].wait_for(|report| matches!(report, Report::Metrics { .. }).then_some(()));
    for &rank in asked {
        ranks[rank].command(&Command::Yield);
    }
    let ranks: Vec<Ended> = ranks.into_iter().map(Rank::end).collect();
    let step = yielded_at(&ranks);
    assert!(step > 0 && step < 90, "it was to be stopped between beginning and end, not at {step}");
    let (last, path) = ranks[0].checkpoints().pop().unwrap();
    assert_eq!(last, step);
    let mut steps: Vec<u64> = ranks[0].checkpoints().into_iter().map(|(step, _)| step).collect();
    steps.dedup();
    assert_eq!(steps.len(), ranks[0].checkpoints().len(), "no checkpoint is written twice");

    let second = Launch { work_dir: folder.path().join("second"), restore: vec![path], ..whole };
    let resumed = run_gang(&second).swap_remove(0);
    assert_same_tensors(&expected.final_checkpoint(), &resumed.final_checkpoint());
    assert_eq!(expected.done()["loss"], resumed.done()["loss"]);
}

#[test]
fn a_rank_alone_that_yields_goes_on_to_the_same_bits() {
    goes_on_as_if_never_asked(1, &[0]);
}

#[test]
fn ranks_stop_at_one_step_when_all_were_asked() {
    goes_on_as_if_never_asked(2, &[0, 1]);
}

#[test]
fn ranks_stop_at_one_step_though_only_one_of_them_was_asked() {
    goes_on_as_if_never_asked(2, &[1]);
}

#[test]
fn a_trial_that_yields_before_its_first_new_step_leaves_what_there_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut rank = Rank::start(&launch(TrialSpec::Train(long(1)), folder.path()));
    rank.command(&Command::Yield);
    let ended = [rank.end()];
    let step = yielded_at(&ended);
    assert_eq!(ended[0].checkpoints().len(), usize::from(step > 0));
}

#[test]
fn a_trial_that_is_done_when_it_is_asked_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let mut rank =
        Rank::start(&launch(TrialSpec::Train(train_spec(TrainMethod::Deterministic)), folder.path()));
    rank.wait_for(|report| match report {
        Report::Metrics { rows } if rows.iter().any(|row| row.step == 18) => Some(()),
        _ => None,
    });
    rank.command(&Command::Yield);
    let ended = rank.end();
    assert_eq!(ended.done()["steps"], 18.0);
}
