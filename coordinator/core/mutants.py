#!/usr/bin/env python3
"""Breaks the core in known ways and shows which tests notice.

    python3 coordinator/core/mutants.py [WORD ...]

Works on a copy of the crate and of what it depends on, with a target folder of its own; the sources stay as
they are. Each mutant is run against the simulation, and against the unit tests if the simulation does not
notice. Exits with status 1 if a mutant survives both. With WORDs, only mutants that have one in their name.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

CRATE = "coordinator/core"

# Name, file below src/, text, replacement. The text must occur exactly once.
MUTANTS = [
    # Membership and leases.
    ("a new session proves nothing", "cluster/session.rs",
     "self.fail(now, attempt, FailureCause::WorkerLost, step);\n        }\n        self.reports",
     "let _ = attempt;\n        }\n        self.reports"),
    ("a heartbeat's silence proves an attempt gone", "cluster/session.rs",
     "self.launch_again(worker, attempt, step);",
     "self.fail(now, attempt, FailureCause::WorkerLost, step);"),
    ("a lost order to launch is not repeated", "cluster/session.rs",
     "self.launch_again(worker, attempt, step);", "let _ = attempt;"),
    ("leases never end", "cluster/session.rs", "lease.ends <= now", "lease.ends <= now && now == Millis(0)"),
    ("a heartbeat does not extend the lease", "cluster/session.rs",
     "self.live.connect(worker, now + self.policy.lease);\n        for attempt in self.unreported(worker, &attempts) {\n            self.launch",
     "for attempt in self.unreported(worker, &attempts) {\n            self.launch"),
    ("leases are lost on replay", "cluster/mod.rs",
     "cluster.live.await_session(worker, now + policy.lease);", "let _ = (worker, now);"),
    ("a lost worker keeps its attempts", "cluster/session.rs",
     "let attempts = self.state.attempts_on(worker).collect::<Vec<_>>();", "let attempts = Vec::new();"),
    ("a lost worker keeps its slots", "state/apply.rs",
     "self.index.remove_worker(id);", "let _ = id;"),
    ("other slots are taken at their word", "cluster/session.rs",
     "is_some_and(|member| member.slots != slots)", "is_some_and(|member| member.slots > slots + 100)"),
    ("work is placed where nobody listens", "scheduling/pass.rs",
     "(self.connected)(worker) && !self.state.is_barred(worker)", "!self.state.is_barred(worker)"),
    ("work is placed on a drained worker", "scheduling/pass.rs",
     "(self.connected)(worker) && !self.state.is_barred(worker)", "(self.connected)(worker)"),
    ("a broken session counts as whole", "cluster/session.rs",
     "lease.session = Session::Awaited;", "lease.session = Session::Connected;"),
    # Attempts.
    ("attempt ids are reused", "state/apply.rs", "self.last_attempt = attempt.0;", "self.last_attempt = 0;"),
    ("an end is not fenced", "cluster/attempt.rs",
     "if self.current(worker, attempt).is_err() {\n            step.effects.push(Effect::Release { worker, attempt });\n            return;\n        }\n        let echo",
     "let echo"),
    ("unwanted attempts are not released", "cluster/attempt.rs",
     "if self.current(worker, attempt).is_err() {\n            step.effects.push(Effect::Release { worker, attempt });\n            return;\n        }\n        match",
     "if self.current(worker, attempt).is_err() {\n            return;\n        }\n        match"),
    ("an old end is not acknowledged", "cluster/attempt.rs",
     "if self.current(worker, attempt).is_err() {\n            step.effects.push(Effect::Release { worker, attempt });\n            return;\n        }\n        let echo",
     "if self.current(worker, attempt).is_err() {\n            return;\n        }\n        let echo"),
    ("a gang succeeds with its first share", "cluster/attempt.rs",
     "if gang.ends.len() < running.placement.shares().len() {", "if gang.ends.is_empty() {"),
    ("an attempt that is over is remembered", "cluster/mod.rs",
     "self.live.forget(attempt);", "let _ = &mut self.live;"),
    ("the rendezvous is not repeated", "cluster/attempt.rs",
     "self.rendezvous_again(worker, attempt, step),", "{}"),
    ("the rendezvous is not passed on", "cluster/attempt.rs",
     "step.effects.extend(peers.map(|share| Effect::Rendezvous {",
     "step.effects.extend(peers.take(0).map(|share| Effect::Rendezvous {"),
    ("an echo is never taken at its word", "cluster/attempt.rs",
     "verdict.due <= now", "verdict.due <= now && now == Millis(0)"),
    ("an echo is believed at once", "cluster/attempt.rs",
     "FailureCause::CollectiveFailed { .. } => true,", "FailureCause::CollectiveFailed { .. } => false,"),
    ("nothing ever stalls", "cluster/attempt.rs", "&& idle >= limit", "&& idle > limit * 1_000"),
    # Budget.
    ("no failure budget", "cluster/attempt.rs",
     "!cause.retryable() || record.counted_failures > record.policy.max_failures", "!cause.retryable()"),
    ("failures are not counted", "state/apply.rs",
     "record.counted_failures += u32::from(cause.counts());", "let _ = cause.counts();"),
    ("lost workers are charged", "state/apply.rs", "u32::from(cause.counts())", "1"),
    ("a resubmission gets no fresh budget", "state/apply.rs",
     "record.queued_by = *experiment;\n                    record.counted_failures = 0;",
     "record.queued_by = *experiment;"),
    # Dependencies, reuse, cancellation.
    ("needs are not waited for", "state/apply.rs",
     "let phase = if self.needs_met(record) {", "let phase = if self.needs_met(record) || true {"),
    ("dependents are not queued", "state/apply.rs",
     "self.set_phase(id, Phase::Ended { outcome: outcome.clone(), at });\n        self.reconsider_dependents(id);",
     "self.set_phase(id, Phase::Ended { outcome: outcome.clone(), at });"),
    ("a failed need ends nothing", "cluster/mod.rs", "if !failed {\n            return;", "if !failed || failed {\n            return;"),
    ("results are not reused", "cluster/submit.rs",
     "Outcome::Succeeded { .. } => return,", "Outcome::Succeeded { .. } => {}"),
    ("a failed trial stays failed", "cluster/submit.rs",
     "self.emit(Event::TrialResubmitted { trial: id, experiment, policy, at: now }, step);",
     "let _ = (now, experiment, policy, step);"),
    ("identical trials are not one", "cluster/submit.rs",
     "self.state.index.by_key.get(&key)", "self.state.index.by_key.get(&key).filter(|_| false)"),
    ("a cancelled experiment takes what others want", "cluster/cancel.rs",
     "!record.has_ended() && record.wanted_by.is_empty()", "!record.has_ended()"),
    ("a cancelled trial is not released", "cluster/cancel.rs",
     "self.release(attempt, step);", "let _ = attempt;"),
    # Checkpoints.
    ("an old attempt may commit", "cluster/retention.rs",
     "self.current(worker, attempt)?;\n        let trial = self.state.trial_of(attempt).ok_or(Reject::StaleAttempt(attempt))?;",
     "let _ = worker;\n        let trial = self.state.trial_of(attempt).unwrap_or(TrialId(1));"),
    ("steps may fall", "cluster/retention.rs",
     "filter(|newest| newest.step >= checkpoint.step)", "filter(|newest| newest.step > checkpoint.step + 100)"),
    ("everything is kept", "cluster/retention.rs", "record.restore().skip(keep)", "record.restore().skip(keep + 100)"),
    ("the newest is dropped", "cluster/retention.rs",
     "record.restore().skip(keep)", "record.checkpoints.iter().skip(keep)"),
    ("blobs in use are deleted", "cluster/retention.rs",
     "if !self.is_referenced(digest) && ", "if "),
    ("an older checkpoint passes for the last", "cluster/attempt.rs",
     "!trial.checkpoints.is_empty() && !trial.newest_damaged", "!trial.checkpoints.is_empty()"),
    ("a damaged network is not trained again", "cluster/retention.rs",
     "self.reopen(now, owner, step);", "let _ = owner;"),
    ("a trial goes on without its network", "cluster/retention.rs",
     "self.fail(now, attempt, FailureCause::Preempted, step);", "let _ = attempt;"),
    # Schedule.
    ("free slots are not subtracted", "state/index.rs",
     "*free = free.saturating_sub(share.ranks);", "let _ = (free, share.ranks);"),
    ("a trial too wide counts as waiting for slots", "scheduling/pass.rs",
     "if pool.offered < class.least {", "if pool.offered == 0 {"),
    ("narrow trials pass a wide one", "scheduling/reserve.rs", "class.least < 2 ||", "class.least < 1_000 ||"),
    ("held slots are given to anybody", "scheduling/pass.rs", "if free > kept {", "if free > 0 && kept < 1_000 {"),
    ("slots are lent on an unknown duration", "scheduling/reserve.rs",
     "estimate.ok_or(Refusal::DurationUnknown)?.longest", "estimate.map_or_else(Default::default, |e| e.longest)"),
    ("slots are lent for too long", "scheduling/reserve.rs", "if end > start {", "if end > start + longest {"),
    ("a quota is not minded", "scheduling/pass.rs", "if headroom < class.least {", "if headroom + 1_000 < class.least {"),
    ("equals are preempted", "scheduling/preemption.rs",
     "trains.range(..class.priority.0)", "trains.range(..=class.priority.0)"),
    ("a part of a gang is placed", "placement.rs", "(left == 0).then_some(", "(left <= 1).then_some("),
    ("a released attempt keeps its slots", "state/index.rs",
     "*free += share.ranks;", "let _ = (free, share.ranks);"),
]


def workspace(root: pathlib.Path, copy: pathlib.Path) -> None:
    """Copies the crate and what it depends on into a workspace of their own."""
    members = ["common", "common/metrics", CRATE]
    ignore = shutil.ignore_patterns("target", ".git")
    shutil.copytree(root / "common", copy / "common", ignore=ignore)
    shutil.copytree(root / CRATE, copy / CRATE, ignore=ignore)
    shutil.copy(root / "Cargo.lock", copy)
    text = (root / "Cargo.toml").read_text()
    text = re.sub(r"(?s)\nmembers = \[.*?\]", f"\nmembers = {members}".replace("'", '"'), text)
    text = re.sub(r"(?s)\ndefault-members = \[.*?\]", "", text)
    (copy / "Cargo.toml").write_text(text)


def cargo(copy: pathlib.Path, test: str, *options: str) -> subprocess.CompletedProcess:
    command = ["cargo", "test", "-q", "--offline", "-p", "coordinator-core", "--test", test, *options]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=900)


def passes(copy: pathlib.Path, test: str, name: str) -> bool:
    build = cargo(copy, test, "--no-run")
    if build.returncode:
        sys.exit(f"does not compile: {name}\n{build.stderr}")
    try:
        return cargo(copy, test).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def main() -> int:
    root = pathlib.Path(__file__).resolve().parents[2]
    words = sys.argv[1:]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        workspace(root, copy)
        for test in ["simulation", "core"]:
            if not passes(copy, test, "the crate itself"):
                sys.exit(f"the crate itself does not pass: {test}")
        for name, file, old, new in MUTANTS:
            if words and not any(word in name for word in words):
                continue
            path = copy / CRATE / "src" / file
            original = path.read_text()
            if original.count(old) != 1:
                sys.exit(f"mutant no longer applies: {name} ({original.count(old)} places in {file})")
            path.write_text(original.replace(old, new))
            if not passes(copy, "simulation", name):
                verdict = "simulation"
            elif not passes(copy, "core", name):
                verdict = "unit tests"
            else:
                verdict = "SURVIVED"
                survivors += 1
            print(f"{verdict:12}{name}", flush=True)
            path.write_text(original)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
