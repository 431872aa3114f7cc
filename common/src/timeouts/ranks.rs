//! Time-outs of ranks.

use std::time::Duration;

/// Time after which a rank that may have stopped itself is let go on once more.
pub const WAKE_AGAIN: Duration = Duration::from_millis(500);
