//! Waiting for a condition, with a limit and a reason.

use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for anything that a cluster does. Far longer than it takes on an idle machine of two cores,
/// because tests share the machine with builds.
pub const PATIENCE: Duration = Duration::from_secs(120);

const POLL: Duration = Duration::from_millis(40);

/// Looks again and again until `look` finds something.
///
/// # Panics
///
/// When nothing was found within `patience`; the message holds `what`.
pub fn until<T>(what: &str, patience: Duration, look: impl FnMut() -> Option<T>) -> T {
    within(patience, look).unwrap_or_else(|| panic!("waited {patience:?} in vain: {what}"))
}

/// As [`until`], but nothing found is an answer.
pub(crate) fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() >= patience {
            return found;
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_later_is_returned() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found, 3);
    }

    #[test]
    #[should_panic(expected = "in vain: a miracle")]
    fn waiting_ends_with_the_reason() {
        until("a miracle", Duration::from_millis(1), || None::<()>);
    }
}
