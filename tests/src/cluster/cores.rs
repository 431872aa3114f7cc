//! Clusters take turns: each waits for as many cores as it has workers, because tests that crowd each other out measure
//! the machine's load and nothing else.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// Fewer than these would let no gang of two run.
const LEAST: usize = 2;

struct Free {
    cores: Mutex<Option<usize>>,
    more: Condvar,
}

static FREE: Free = Free { cores: Mutex::new(None), more: Condvar::new() };

fn all() -> usize {
    thread::available_parallelism().map_or(LEAST, |cores| cores.get().max(LEAST))
}

/// Cores that one cluster uses, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Cores(usize);

impl Cores {
    /// Waits until `wanted` cores are free, or all that there are.
    pub(super) fn take(wanted: usize) -> Self {
        let wanted = wanted.clamp(1, all());
        let free = FREE.cores.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = |free: &mut Option<usize>| *free.get_or_insert_with(all) < wanted;
        let mut free = FREE.more.wait_while(free, enough).unwrap_or_else(PoisonError::into_inner);
        *free = free.map(|cores| cores - wanted);
        Self(wanted)
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        let mut free = FREE.cores.lock().unwrap_or_else(PoisonError::into_inner);
        *free = free.map(|cores| cores + self.0);
        FREE.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_wants_all_cores_waits_for_the_others() {
        let held = Cores::take(1);
        let (took, heard) = mpsc::channel();
        thread::spawn(move || {
            let cores = Cores::take(usize::MAX);
            took.send(cores.0).unwrap();
        });
        assert!(heard.recv_timeout(Duration::from_millis(200)).is_err(), "it did not wait");
        drop(held);
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)), Ok(all()));
    }
}
