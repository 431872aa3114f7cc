//! Whether every waiting trial is told the truth, judged by the records alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{FailureCause, TrialId, WorkerId};
use coordinator_core::{Before, Cluster, Failure, Phase, Session, Trial, WaitReason, WorkerView};

/// What the records say about the queue.
struct Queue<'a> {
    cluster: &'a Cluster,
    /// Slots that each project uses.
    used: BTreeMap<String, u32>,
    reserved: BTreeSet<TrialId>,
}

/// Checks every explanation of `cluster`.
pub fn check_explanations(cluster: &Cluster) {
    let mut used = BTreeMap::new();
    for (_, trial) in cluster.trials() {
        if let Some(attempt) = trial.attempt() {
            *used.entry(standing(cluster, trial).1).or_default() += attempt.placement.world_size();
        }
    }
    let reserved = cluster.reservations().map(|(trial, _, _)| trial).collect();
    let queue = Queue { cluster, used, reserved };
    for (id, trial) in cluster.trials() {
        let reason = cluster.explain(id);
        match &trial.phase {
            Phase::Running(_) | Phase::Ended { .. } => assert_eq!(reason, None, "of {id}"),
            Phase::Waiting => {
                let unmet = |need: &TrialId| !cluster.trial(*need).unwrap().has_succeeded();
                let mut seen = BTreeSet::new();
                let unmet = trial.needs.iter().copied().filter(|need| unmet(need) && seen.insert(*need));
                let unmet: Vec<TrialId> = unmet.collect();
                assert_eq!(reason, Some(WaitReason::Needs(unmet)), "of {id}");
            }
            Phase::Paused => {
                let held = matches!(reason, Some(WaitReason::Paused { .. }));
                assert!(held, "{id} is paused, and told {reason:?}");
            }
            Phase::Queued => {
                queue.check(id, trial, &reason.unwrap_or_else(|| panic!("{id} is not explained")))
            }
        }
    }
}

/// Priority and project of a trial.
pub fn standing(cluster: &Cluster, trial: &Trial) -> (i32, String) {
    let experiment = |id| cluster.experiment(id).unwrap();
    let mut best: Option<((bool, i32), String)> = None;
    for &id in &trial.wanted_by {
        let record = experiment(id);
        let urgency = (record.paused.is_none(), record.priority);
        if best.as_ref().is_none_or(|(best, _)| urgency > *best) {
            best = Some((urgency, record.project.clone()));
        }
    }
    let ((_, priority), project) = best.unwrap();
    (priority, project)
}

/// The fewest slots that a trial runs on.
pub fn least(trial: &Trial) -> u32 {
    (1..=trial.slots()).find(|&ranks| trial.spec.allows(ranks)).unwrap()
}

impl Queue<'_> {
    /// The reason of a trial that no free slot would help.
    fn hopeless(&self, trial: &Trial) -> Option<WaitReason> {
        let connected = || self.cluster.workers().filter(|view| view.session == Session::Connected);
        let barred = |view: &WorkerView<'_>| view.drain.is_some() || view.quarantine.is_some();
        let requires = trial.policy.requires.clone();
        let meeting = self.cluster.workers().filter(|view| view.worker.traits.meet(&requires));
        let meeting = meeting.map(|view| view.id).collect::<Vec<_>>();
        let needs = least(trial);
        let project = standing(self.cluster, trial).1;
        let offered = self.matching(trial).map(|(_, slots, _)| slots).sum::<u32>();
        if connected().next().is_none() {
            Some(WaitReason::NoWorker)
        } else if connected().all(|view| barred(&view)) {
            Some(WaitReason::OutOfService(connected().map(|view| view.id).collect()))
        } else if meeting.is_empty() {
            Some(WaitReason::NoMatch { requires })
        } else if self.matching(trial).next().is_none() {
            Some(WaitReason::OutOfService(meeting))
        } else if offered < needs {
            Some(WaitReason::TooWide { needs, offered, requires })
        } else {
            let quota = self.cluster.policy().project(&project).quota?;
            (quota < needs).then_some(WaitReason::OverQuota { needs, project, quota })
        }
    }

    fn check(&self, id: TrialId, trial: &Trial, reason: &WaitReason) {
        if let WaitReason::Resting { time, failures, cause } = reason {
            return self.check_rest(id, trial, (*time, *failures), cause);
        }
        if let Some(expected) = self.hopeless(trial) {
            assert_eq!(*reason, expected, "of {id}");
            return;
        }
        let needs = least(trial);
        let (priority, project) = standing(self.cluster, trial);
        let quota = self.cluster.policy().project(&project).quota;
        let free = self.free(trial);
        let says = |text: &str| format!("{id} is told `{reason}`, {text}");
        match reason {
            WaitReason::Needs(_)
            | WaitReason::NoWorker
            | WaitReason::Resting { .. }
            | WaitReason::Paused { .. }
            | WaitReason::OutOfService(_)
            | WaitReason::NoMatch { .. }
            | WaitReason::TooWide { .. }
            | WaitReason::OverQuota { .. } => panic!("{}", says("which is not so")),
            WaitReason::Quota { needs: n, project: p, quota: q, used, reserved } => {
                assert_eq!((n, p, Some(*q)), (&needs, &project, quota), "of {id}");
                assert_eq!(*used, self.used.get(&project).copied().unwrap_or_default(), "of {id}");
                assert!(used + reserved + needs > *q, "{}", says("which leaves enough"));
            }
            WaitReason::Slots { needs: n, free: f } => {
                assert_eq!((*n, *f), (needs, free), "of {id}");
                assert!(free < needs, "{}", says("and fits"));
            }
            WaitReason::Reserved { needs: n, free: f, slots, starts_in: _ } => {
                assert_eq!((*n, *f), (needs, free), "of {id}");
                let kept = self.cluster.reservations().find(|(trial, _, _)| *trial == id).unwrap().1;
                assert_eq!(kept.slots.iter().map(|(&w, &s)| (w, s)).collect::<Vec<_>>(), *slots, "of {id}");
                assert_eq!(slots.iter().map(|(_, slots)| slots).sum::<u32>(), needs, "of {id}");
            }
            WaitReason::Yielding { needs: n, attempts } => {
                assert_eq!(*n, needs, "of {id}");
                assert!(!attempts.is_empty(), "of {id}");
                for attempt in attempts {
                    let other = self.cluster.trial(self.cluster.trial_of(*attempt).unwrap()).unwrap();
                    assert!(other.attempt().unwrap().yielding.is_some(), "{}", says("and nobody was asked"));
                }
            }
            WaitReason::Held { needs: n, free: f, by, refusal: _ } => {
                assert_eq!((*n, *f), (needs, free), "of {id}");
                assert!(free >= needs && self.reserved.contains(by), "{}", says("which holds nothing"));
                let other = self.cluster.trial(*by).unwrap();
                assert!(standing(self.cluster, other).0 >= priority, "{}", says("which is less urgent"));
            }
            WaitReason::Behind { trial: ahead, needs: n, before } => {
                let other = self.cluster.trial(*ahead).unwrap();
                assert_eq!((&other.phase, *n), (&Phase::Queued, least(other)), "of {id}");
                assert_eq!(self.goes_before(*ahead, other, id, trial), Some(before.clone()), "of {id}");
            }
        }
    }

    /// Who rests failed again and again, last for the cause that it is told, and not for longer than that calls for.
    fn check_rest(
        &self,
        id: TrialId,
        trial: &Trial,
        (time, failures): (Duration, u32),
        cause: &FailureCause,
    ) {
        let most = self.cluster.policy().pause(failures);
        let free = |failure: &&Failure| !failure.cause.counts() && failure.cause != FailureCause::Preempted;
        let last = trial.failures.last().unwrap();
        assert!(free(&last) && last.cause == *cause, "{id} rests after {last:?}");
        let all = trial.failures.iter().filter(free).count();
        let failures = usize::try_from(failures).unwrap();
        let again = failures < trial.failures.len();
        assert!((1..=all).contains(&failures) && again, "{id} rests after its first");
        assert!(time <= most && !time.is_zero(), "{id} rests for {time:?}, not for {most:?} at most");
    }

    /// Members in service that have what a trial requires, with their slots and the free ones of those.
    fn matching<'a>(&'a self, trial: &'a Trial) -> impl Iterator<Item = (WorkerId, u32, u32)> + 'a {
        let meets = |view: &WorkerView<'_>| {
            let in_service = view.drain.is_none() && view.quarantine.is_none();
            in_service && view.worker.traits.meet(&trial.policy.requires)
        };
        self.cluster.workers().filter(meets).map(|view| {
            let connected = view.session == Session::Connected;
            let free = if connected { view.worker.slots - view.used } else { 0 };
            (view.id, view.worker.slots, free)
        })
    }

    fn free(&self, trial: &Trial) -> u32 {
        self.matching(trial).map(|(_, _, free)| free).sum()
    }

    /// What puts one queued trial before another, if anything does.
    fn goes_before(&self, one: TrialId, first: &Trial, two: TrialId, second: &Trial) -> Option<Before> {
        let ((p1, project1), (p2, project2)) =
            (standing(self.cluster, first), standing(self.cluster, second));
        if p1 != p2 {
            return (p1 > p2).then_some(Before::Priority(p1));
        }
        if self.reserved.contains(&one) != self.reserved.contains(&two) {
            return self.reserved.contains(&one).then_some(Before::Reserved);
        }
        let share = |project: &str| {
            let used = self.used.get(project).copied().unwrap_or_default();
            f64::from(used) / f64::from(self.cluster.policy().project(project).weight.get())
        };
        if project1 != project2 && (share(&project1) - share(&project2)).abs() > 1e-12 {
            return (share(&project1) < share(&project2)).then_some(Before::Share { project: project1 });
        }
        let trains = |trial: &Trial| trial.spec.trains();
        let key = |id, trial: &Trial| (trial.queued_by, trains(trial), id);
        let kinds_differ = first.queued_by == second.queued_by && trains(first) != trains(second);
        let before = if kinds_differ { Before::Evaluation } else { Before::Older };
        (key(one, first) < key(two, second)).then_some(before)
    }
}
