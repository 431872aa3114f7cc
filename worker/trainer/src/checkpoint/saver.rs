//! Writes checkpoints on a thread of its own, one at a time, while training goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::report::Report;
use common::timeouts::ranks::{SPACE, SPACE_PAUSE_GROWS};

use super::{Snapshot, write};
use crate::agent::Reporter;
use crate::storage::StorageError;

/// Time before the second try.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest time between two tries.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The thread that writes checkpoints.
pub struct Saver {
    sender: Sender<Snapshot>,
    busy: Arc<AtomicBool>,
    /// Ends with the step of the last checkpoint that was written.
    thread: JoinHandle<Option<u64>>,
    target: Target,
}

#[derive(Clone)]
struct Target {
    folder: PathBuf,
    reporter: Arc<Reporter>,
}

impl Saver {
    /// Starts the thread. It writes into `folder` and reports each file that is complete.
    pub fn start(folder: PathBuf, reporter: Arc<Reporter>) -> Self {
        let (sender, receiver) = mpsc::channel();
        let busy = Arc::new(AtomicBool::new(false));
        let target = Target { folder, reporter };
        let thread = thread::spawn({
            let (busy, target, span) = (Arc::clone(&busy), target.clone(), tracing::Span::current());
            move || span.in_scope(|| target.save_all(&receiver, &busy))
        });
        Self { sender, busy, thread, target }
    }

    /// Whether the last checkpoint is on disk. A snapshot is as large as the network, so there is never
    /// more than one.
    pub fn is_idle(&self) -> bool {
        !self.busy.load(Ordering::Acquire)
    }

    /// Writes `snapshot` in the background. Call it only when [`is_idle`](Self::is_idle).
    ///
    /// A file that cannot be written is a warning: training goes on, and the checkpoint before it stays.
    pub fn save(&self, snapshot: Snapshot) {
        self.busy.store(true, Ordering::Release);
        // The receiver lives until `finish` drops the sender.
        let _ = self.sender.send(snapshot);
    }

    /// Waits for the thread, then writes `last`, and waits for space if there is none. `again` is called before each other try.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when `last` cannot be written: without it the trial has no result.
    pub fn finish(self, last: &Snapshot, again: impl FnMut()) -> Result<(), StorageError> {
        drop(self.sender);
        // A panic of the thread has ended the process by the panic hook.
        let _ = self.thread.join();
        self.target.save_patiently(last, again)
    }

    /// Waits for the thread, then writes `last`, unless the thread wrote the checkpoint of that step: the agent takes a
    /// file away once it has stored it, so none is written twice.
    ///
    /// # Errors
    ///
    /// [`StorageError`] when `last` cannot be written.
    pub fn leave(self, last: &Snapshot) -> Result<(), StorageError> {
        drop(self.sender);
        match self.thread.join() {
            Ok(Some(step)) if step == last.step() => Ok(()),
            // A panic of the thread has ended the process by the panic hook.
            Ok(_) | Err(_) => self.target.save(last),
        }
    }
}

impl Target {
    fn save_all(&self, snapshots: &Receiver<Snapshot>, busy: &AtomicBool) -> Option<u64> {
        let mut written = None;
        for snapshot in snapshots {
            let saved = self.save(&snapshot);
            if saved.is_ok() {
                written = Some(snapshot.step());
            }
            if let Err(error) = saved {
                let message = format!(
                    "the checkpoint of step {} was not written, and training goes on without it: {}; check the space \
                     left in `{}`",
                    snapshot.step(),
                    crate::error::chain(&error),
                    self.folder.display()
                );
                tracing::error!(error = %crate::error::chain(&error), "checkpoint not written");
                self.reporter.send(&Report::Warning { message });
            }
            busy.store(false, Ordering::Release);
        }
        written
    }

    /// All of training is in this one, so a full disk does not end the trial at once.
    fn save_patiently(&self, last: &Snapshot, again: impl FnMut()) -> Result<(), StorageError> {
        let warn = |error: &StorageError| {
            let message = format!(
                "the last checkpoint is not written yet, and is tried again for {SPACE:?}: {}",
                crate::error::chain(error)
            );
            tracing::error!("{message}");
            self.reporter.send(&Report::Warning { message });
        };
        patiently(|| self.save(last), warn, again)
    }

    fn save(&self, snapshot: &Snapshot) -> Result<(), StorageError> {
        let path = write(&self.folder, snapshot)?;
        tracing::info!(step = snapshot.step(), path = %path.display(), "checkpoint written");
        let (step, score) = (snapshot.step(), snapshot.score());
        self.reporter.send(&Report::Checkpoint { step, path, score });
        Ok(())
    }
}

/// Saves, and while there is no space tries again, for [`SPACE`] at most. `warn` is called once, `again` before each other try.
fn patiently(
    mut save: impl FnMut() -> Result<(), StorageError>,
    warn: impl Fn(&StorageError),
    mut again: impl FnMut(),
) -> Result<(), StorageError> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match save() {
            Err(error) if error.is_full() && begun.elapsed() < SPACE => {
                if pause == FIRST_PAUSE {
                    warn(&error);
                }
                thread::sleep(pause);
                pause = LAST_PAUSE.min(pause * SPACE_PAUSE_GROWS);
                again();
            }
            saved => return saved,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::ErrorKind;

    use super::*;

    fn full() -> StorageError {
        StorageError::Io { action: "write", path: PathBuf::from("x"), source: ErrorKind::StorageFull.into() }
    }

    /// Who does nothing for a few times as long as it usually takes is taken for hung.
    #[test]
    fn one_that_waits_for_space_shows_that_it_is_alive_at_each_try() {
        let (tries, warnings, shown) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let add = |count: &Cell<u32>| count.set(count.get() + 1);
        let save = || {
            add(&tries);
            assert_eq!(shown.get() + 1, tries.get());
            if tries.get() < 3 { Err(full()) } else { Ok(()) }
        };
        patiently(save, |_| add(&warnings), || add(&shown)).unwrap();
        assert_eq!((tries.get(), warnings.get(), shown.get()), (3, 1, 2));
    }
}
