use std::collections::BTreeMap;

use common::WorkerId;
use coordinator_core::{Placement, Share, place};
use rand::{Rng, SeedableRng, rngs::SmallRng};

fn free(slots: &[u32]) -> BTreeMap<WorkerId, u32> {
    (0..).map(WorkerId).zip(slots.iter().copied()).collect()
}

fn share(worker: u64, first_rank: u32, ranks: u32) -> Share {
    Share { worker: WorkerId(worker), first_rank, ranks }
}

#[test]
fn a_trial_that_fits_one_worker_is_not_split() {
    let placement = place(&free(&[8, 2, 4]), 4).unwrap();
    assert_eq!(placement.shares(), [share(2, 0, 4)]);
}

#[test]
fn a_trial_that_does_not_fit_takes_no_slot() {
    assert_eq!(place(&free(&[2, 1]), 4), None);
    assert_eq!(place(&free(&[]), 1), None);
}

#[test]
fn a_split_trial_uses_the_largest_workers_first_and_numbers_its_ranks() {
    let placement = place(&free(&[1, 4, 4]), 6).unwrap();
    assert_eq!(placement.shares(), [share(1, 0, 4), share(2, 4, 2)]);
    assert_eq!(placement.leader(), Some(WorkerId(1)));
}

#[test]
fn whatever_is_free_a_placement_is_whole_within_it_and_as_narrow_as_can_be() {
    let mut rng = SmallRng::seed_from_u64(7);
    for _ in 0..20_000 {
        let workers = rng.random_range(0..7);
        let slots: Vec<u32> = (0..workers).map(|_| rng.random_range(0..9)).collect();
        let need = rng.random_range(1..20);
        let free = free(&slots);
        match place(&free, need) {
            None => assert!(slots.iter().sum::<u32>() < need, "{slots:?} hold {need}"),
            Some(placement) => assert_fits(&placement, &free, need),
        }
    }
}

fn assert_fits(placement: &Placement, free: &BTreeMap<WorkerId, u32>, need: u32) {
    let shares = placement.shares();
    assert_eq!(placement.world_size(), need);
    let mut next_rank = 0;
    for share in shares {
        assert!(share.ranks >= 1 && share.ranks <= free[&share.worker], "{share:?} of {free:?}");
        assert_eq!(share.first_rank, next_rank);
        next_rank += share.ranks;
    }
    let workers: std::collections::BTreeSet<_> = shares.iter().map(|share| share.worker).collect();
    assert_eq!(workers.len(), shares.len(), "a worker has two shares");

    let mut largest: Vec<u32> = free.values().copied().collect();
    largest.sort_unstable_by(|a, b| b.cmp(a));
    let fewer = largest.iter().take(shares.len() - 1).sum::<u32>();
    assert!(fewer < need, "{need} of {free:?} fit fewer workers than {shares:?}");
    if let [share] = shares {
        let tighter = free.values().any(|&slots| slots >= need && slots < free[&share.worker]);
        assert!(!tighter, "{need} of {free:?} leave a larger hole than they must: {share:?}");
    }
}
