//! Tests of the program as an agent sees it: launch files, pipes, signals, files.

mod evaluation;
mod failure;
mod gang;
mod resume;
mod support;
