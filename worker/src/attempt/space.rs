//! Waits until the disk takes what an attempt begins with.
//!
//! A full disk is a pause and no failure: an attempt that failed at once would be placed here again at once, a thousand
//! times a second, and its trial would lose its budget to a disk. While it waits it holds its slots, so that nothing else is
//! placed where nothing can run, and it hears orders as ever.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use common::FailureCause;

use super::{Attempt, AttemptEvent, Note};

/// What must fit before anything is fetched or started: the small files of a launch.
const LEAST: usize = 64 << 10;

/// Pause between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// Makes the attempt's folder as soon as there is space; the user is told why it does not start.
///
/// # Errors
///
/// When the folder cannot be written for another reason.
pub(super) async fn wait(attempt: &Attempt) -> Result<(), FailureCause> {
    let folder = attempt.context.folder(attempt.launch.attempt);
    let mut told = false;
    loop {
        match try_once(&folder).await {
            Err(error) if is_full(&error) => {
                if !told {
                    told = true;
                    let place = folder.display();
                    let message = format!("it waits for space: cannot write `{place}`: {error}");
                    tracing::warn!(message);
                    attempt.tell(AttemptEvent::Note(Note::Warning(message))).await;
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => {
                let message = format!("cannot write `{}`: {error}", folder.display());
                return Err(FailureCause::LaunchFailed { message });
            }
            Ok(()) => return Ok(()),
        }
    }
}

async fn try_once(folder: &Path) -> io::Result<()> {
    tokio::fs::create_dir_all(folder).await?;
    let probe = folder.join("space.part");
    let written = tokio::fs::write(&probe, vec![0; LEAST]).await;
    // Whether it was written whole, in part or not at all.
    let removed = tokio::fs::remove_file(&probe).await;
    written.and(removed)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_there_is_space_the_folder_is_made_and_left_empty() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        try_once(&folder).await.unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn only_a_lack_of_space_is_waited_for() {
        assert!(is_full(&ErrorKind::StorageFull.into()) && is_full(&ErrorKind::QuotaExceeded.into()));
        assert!(!is_full(&ErrorKind::PermissionDenied.into()));
    }
}
