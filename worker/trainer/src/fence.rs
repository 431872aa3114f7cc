//! From when on the rank stands still unless it hears more: its work may be somebody else's by then.
//!
//! The agent makes its ranks stand still before its lease ends. An agent that is frozen itself cannot, while its ranks would
//! compute on; so each rank is told until when the lease surely stands, and stops its own process a little after its agent
//! should have. Whoever lets it go on must first have told it of a longer lease, or it stands still again. A rank that was
//! never told of a lease has no agent, and never does.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::clock_gettime;
use nix::unistd::Pid;

/// Until when the rank may compute.
pub struct Fence {
    state: Mutex<State>,
    /// Of the clock that counts while the machine sleeps, as leases do. Without one only the agent makes the rank stand still.
    timer: Option<TimerFd>,
}

#[derive(Clone, Copy)]
enum State {
    /// Nothing runs. A lease that is told now belongs to what ran before.
    Idle,
    /// A launch runs.
    Running {
        /// Time since the machine was started.
        until: Option<Duration>,
    },
}

/// What there is to do.
pub enum Wake {
    /// Read what was said.
    Input,
    /// Stand still.
    Due,
}

impl Fence {
    /// Of a process that runs one launch, from its beginning.
    pub fn of_launch() -> Arc<Self> {
        Self::in_state(State::Running { until: None })
    }

    /// Of a process that waits for a launch.
    pub fn idle() -> Arc<Self> {
        Self::in_state(State::Idle)
    }

    fn in_state(state: State) -> Arc<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC).inspect_err(
            |error| tracing::warn!(%error, "no timer: only the agent makes the rank stand still"),
        );
        Arc::new(Self { state: Mutex::new(state), timer: timer.ok() })
    }

    /// A launch begins, of which no lease was told yet.
    pub fn launched(&self) {
        self.set(&mut self.lock(), None);
    }

    /// The launch that runs may compute until then, unless something later was told.
    pub fn begin(&self, until: Option<Duration>) {
        let mut state = self.lock();
        if let State::Running { until: None } = *state {
            self.set(&mut state, until);
        }
    }

    /// The launch that runs may compute until then. What was told before counts no more.
    pub fn told(&self, until: Duration) {
        let mut state = self.lock();
        match *state {
            State::Running { .. } => self.set(&mut state, Some(until)),
            State::Idle => {}
        }
    }

    /// The launch is over.
    pub fn rest(&self) {
        let mut state = self.lock();
        self.set(&mut state, None);
        *state = State::Idle;
    }

    /// Waits until there is input, or until the rank must stand still. Input comes first: it may say that it need not.
    pub fn wait(&self, input: BorrowedFd<'_>) -> Wake {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = vec![readable(input)];
        fds.extend(self.timer.as_ref().map(|timer| readable(timer.as_fd())));
        loop {
            // Interrupted, or, which only a wrong descriptor can bring about, refused: then reading says so.
            let woken = poll(&mut fds, PollTimeout::NONE);
            if woken.is_err_and(|error| error != nix::errno::Errno::EINTR) {
                return Wake::Input;
            }
            if woken.is_ok() && fds[0].any().unwrap_or(true) {
                return Wake::Input;
            }
            if self.is_due() {
                return Wake::Due;
            }
        }
    }

    /// Stops the process until somebody lets it go on.
    pub fn stand_still(&self) {
        // Nothing is logged before: that may wait for a disk.
        match kill(Pid::this(), Signal::SIGSTOP) {
            Ok(()) => tracing::warn!("stood still, because the agent's lease was over as far as it had told"),
            Err(error) => tracing::error!(%error, "cannot stand still"),
        }
    }

    fn is_due(&self) -> bool {
        match *self.lock() {
            State::Running { until: Some(until) } => now() >= until,
            State::Running { until: None } | State::Idle => false,
        }
    }

    fn set(&self, state: &mut State, until: Option<Duration>) {
        *state = State::Running { until };
        let Some(timer) = &self.timer else { return };
        let set = match until {
            // A time of zero would mean none.
            Some(until) => timer.set(
                Expiration::OneShot(TimeSpec::from(until.max(Duration::from_nanos(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => timer.unset(),
        };
        if let Err(error) = set {
            tracing::error!(%error, "cannot set the timer of the lease");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time since the machine was started, its sleep included.
fn now() -> Duration {
    // Only an unknown clock is an error, and every Linux since 2.6.39 has this one.
    clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use std::io::{Write as _, pipe};
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_millis(30);

    /// Whether the rank would stand still within ten times the time to its fence.
    fn comes_due(fence: &Arc<Fence>) -> bool {
        let (input, mut output) = pipe().unwrap();
        let writer = thread::spawn(move || {
            thread::sleep(SOON * 10);
            output.write_all(b"\n").unwrap();
        });
        let due = matches!(fence.wait(input.as_fd()), Wake::Due);
        writer.join().unwrap();
        due
    }

    #[test]
    fn it_is_due_when_the_time_comes_that_was_told_last_and_not_before() {
        let fence = Fence::of_launch();
        assert!(!comes_due(&fence), "none was told");
        let until = now() + SOON;
        fence.told(until);
        assert!(comes_due(&fence));
        assert!(now() >= until);
        fence.told(now() + SOON * 1_000);
        assert!(!comes_due(&fence));
    }

    #[test]
    fn what_is_told_in_the_launch_counts_unless_more_was_said_meanwhile() {
        let fence = Fence::of_launch();
        fence.told(now() + SOON * 1_000);
        fence.begin(Some(now()));
        assert!(!comes_due(&fence));
        let fence = Fence::of_launch();
        fence.begin(Some(now() + SOON));
        assert!(comes_due(&fence));
    }

    #[test]
    fn nothing_of_a_lease_is_left_for_the_next_launch() {
        let fence = Fence::of_launch();
        fence.told(now() + SOON);
        fence.rest();
        assert!(!comes_due(&fence));
        fence.told(now());
        assert!(!comes_due(&fence), "it was told too late");
        fence.launched();
        assert!(!comes_due(&fence));
    }

    #[test]
    fn what_was_said_is_read_before_anything_is_due() {
        let fence = Fence::of_launch();
        fence.told(now());
        let (input, mut output) = pipe().unwrap();
        output.write_all(b"\n").unwrap();
        assert!(matches!(fence.wait(input.as_fd()), Wake::Input));
        drop(output);
    }
}
