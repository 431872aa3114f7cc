//! The coordinator as its clients and workers see it: a real server on a loopback port that the system chooses.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod clients;
mod cost;
mod files;
mod full_disk;
mod killed;
mod lifecycle;
mod operations;
mod support;
mod watch;
mod workers;
