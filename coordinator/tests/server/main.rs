//! The coordinator as its clients and workers see it: a real server on a loopback port that the system chooses.

mod clients;
mod files;
mod lifecycle;
mod support;
mod watch;
mod workers;
