//! Who holds which slot: exactly one attempt, from its start until its last process is gone.

use std::collections::{BTreeMap, BTreeSet};

use common::session::{FromWorker, ToWorker};
use common::{AttemptId, FailureCause};
use worker_core::{Action, Agent, AttemptEvent, Input, Settings, Spool};

use crate::support::{A, B, C, Case, LEASE, launch};

fn faults(list: &[&str]) -> Input {
    Input::Faults(list.iter().map(|&fault| fault.to_owned()).collect())
}

#[test]
fn a_slot_is_given_on_when_its_processes_are_gone_and_not_before() {
    let mut case = Case::connected(2);
    case.hear(ToWorker::Launch(Box::new(launch(A, 2))));
    assert_eq!(case.agent.slots_of(A), [0, 1]);
    case.hear(ToWorker::Launch(Box::new(launch(B, 1))));
    case.hear(ToWorker::Release { attempt: A });
    assert_eq!(case.agent.slots_of(B), [0; 0]);
    case.handle(Input::Attempt(A, AttemptEvent::ProcessesGone));
    assert_eq!((case.agent.slots_of(A), case.agent.slots_of(B)), (vec![], vec![0]));
    // What A left is still being stored; that holds no slot.
    case.hear(ToWorker::Launch(Box::new(launch(C, 1))));
    assert_eq!(case.agent.slots_of(C), [1]);
}

#[test]
fn what_is_wrong_is_told_at_once_with_every_heartbeat_and_with_the_next_hello_until_it_is_mended() {
    let beats = |actions: Vec<Action>| {
        let told = actions.into_iter().filter_map(|action| {
            if let Action::Send(FromWorker::Heartbeat { faults, .. }) = action { Some(faults) } else { None }
        });
        told.collect::<Vec<_>>()
    };
    let mut case = Case::connected(1);
    assert_eq!(beats(case.handle(faults(&["GPU 3 is lost"]))), [["GPU 3 is lost"]]);
    assert!(beats(case.handle(faults(&["GPU 3 is lost"]))).is_empty(), "the next heartbeat says so again");
    case.wait(LEASE / 5);
    assert_eq!(beats(case.handle(Input::Timer)), [["GPU 3 is lost"]]);
    let mut actions = case.handle(Input::SessionLost(case.session()));
    let hello = loop {
        let dial = actions
            .into_iter()
            .find_map(|action| if let Action::Dial { faults, .. } = action { Some(faults) } else { None });
        if let Some(faults) = dial {
            break faults;
        }
        actions = case.handle_due();
    };
    assert_eq!(hello, ["GPU 3 is lost"]);
    case.handle(Input::SessionOpened(case.session()));
    case.handle(case.welcome([]));
    assert!(beats(case.handle(faults(&[]))).is_empty());
    case.wait(LEASE / 5);
    assert_eq!(beats(case.handle(Input::Timer)), [[""; 0]]);
}

/// A small generator of draws, the same in every run.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What is true outside the agent: which attempts have processes, and on which slots they were started.
#[derive(Default)]
struct Node {
    running: BTreeMap<AttemptId, Vec<u32>>,
}

impl Node {
    fn start(&mut self, agent: &Agent, attempt: AttemptId, ranks: u32, slots: u32, per_device: u32) {
        let taken = agent.slots_of(attempt);
        assert_eq!(taken.len(), ranks as usize, "{attempt}: a slot for each rank");
        let held: BTreeSet<u32> = self.running.values().flatten().copied().collect();
        assert!(
            taken.iter().all(|slot| *slot < slots && !held.contains(slot)),
            "{attempt}: {taken:?} of {held:?}"
        );
        let devices: BTreeSet<u32> = taken.iter().map(|slot| slot / per_device).collect();
        let free_devices: BTreeSet<u32> =
            (0..slots).filter(|slot| !held.contains(slot)).map(|slot| slot / per_device).collect();
        let most = free_devices.len().min(taken.len());
        assert_eq!(
            devices.len(),
            most,
            "{attempt} shares a device with itself: {taken:?}, {held:?} are held"
        );
        self.running.insert(attempt, taken);
    }
}

/// An agent whose devices have so many slots each, just welcomed.
fn shared(slots: u32, slots_per_device: u32) -> Case {
    let mut case = Case::connected(slots);
    let (timeouts, spool) = (common::timeouts::Timeouts::default(), Spool::of(0));
    case.agent = Agent::new(Settings { slots, slots_per_device, reconnect_limit: LEASE, timeouts, spool });
    case.reconnect();
    case.handle(case.welcome([]));
    case
}

#[test]
fn whatever_happens_no_slot_has_two_owners_and_none_is_lost() {
    for seed in 1..=200 {
        let mut draws = Draws(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let per_device = 1 + u32::try_from(draws.below(3)).unwrap();
        let slots = per_device * (1 + u32::try_from(draws.below(4)).unwrap());
        let mut case = shared(slots, per_device);
        let (mut node, mut ranks_of, mut next) = (Node::default(), BTreeMap::new(), 1);
        for _ in 0..120 {
            let alive: Vec<AttemptId> = node.running.keys().copied().collect();
            let any = alive.get(usize::try_from(draws.below(8)).unwrap()).copied();
            let input = match (draws.below(5), any) {
                (0 | 1, _) => {
                    let (attempt, ranks) =
                        (AttemptId(next), 1 + u32::try_from(draws.below(u64::from(slots))).unwrap());
                    next += 1;
                    ranks_of.insert(attempt, ranks);
                    case.message(ToWorker::Launch(Box::new(launch(attempt, ranks))))
                }
                (2, _) => case.message(ToWorker::Release { attempt: AttemptId(1 + draws.below(next)) }),
                (3, Some(attempt)) => {
                    node.running.remove(&attempt);
                    Input::Attempt(attempt, AttemptEvent::ProcessesGone)
                }
                (4, Some(attempt)) => {
                    node.running.remove(&attempt);
                    Input::Attempt(attempt, AttemptEvent::Ended(Err(FailureCause::OutOfMemory)))
                }
                (_, _) => Input::Timer,
            };
            for action in case.handle(input) {
                if let Action::Start(launch) = action {
                    let attempt = launch.attempt;
                    node.start(&case.agent, attempt, ranks_of[&attempt], slots, per_device);
                }
            }
            for (attempt, held) in &node.running {
                assert_eq!(case.agent.slots_of(*attempt), *held, "{attempt} keeps its slots");
            }
        }
        for attempt in std::mem::take(&mut node.running).into_keys() {
            case.handle(Input::Attempt(attempt, AttemptEvent::ProcessesGone));
        }
        for attempt in 1..next {
            case.hear(ToWorker::Release { attempt: AttemptId(attempt) });
            case.handle(Input::Attempt(AttemptId(attempt), AttemptEvent::ProcessesGone));
        }
        let all = AttemptId(next);
        case.hear(ToWorker::Launch(Box::new(launch(all, slots))));
        assert_eq!(
            case.agent.slots_of(all).len(),
            slots as usize,
            "seed {seed}: every slot is free at the end"
        );
    }
}
