//! `credence-trainer`: one rank of one trial. Started by an agent, never by hand.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use common::report::exit;
use common::spec::NUMERICS;
use trainer::error::chain;
use trainer::{log, rank, warm};

const HELP: &str = "\
One rank of one trial of Credence. Started by `credence worker`, never by hand.

Usage: credence-trainer LAUNCH.json
       credence-trainer --warm OWNER
       credence-trainer --version | --help

With --warm, it loads libtorch, says that it is ready, and runs the launches that it is then told of, one after the
other, until one fails. OWNER, the folder of the agent, is for those who list processes.

Reads commands on standard input and writes reports on standard output, one JSON object a line; the end of
standard input means that the agent is gone, and ends the process. Logs to standard error.

Environment:
  CREDENCE_LOG         filter of the log (default: info)
  CREDENCE_LOG_FORMAT  text (default) or json

Exit status:
  0  the rank did what it was asked
  1  a cause was reported on standard output
  2  the launch file is missing or not understood
  3  the agent went away
";

fn main() -> ExitCode {
    c10d::prepare_environment();
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let status = match arguments.as_slice() {
        [flag] if flag == "--help" || flag == "-h" => print(HELP),
        [flag] if flag == "--version" || flag == "-V" => {
            print(&format!("credence-trainer {} (numerics {NUMERICS})\n", env!("CARGO_PKG_VERSION")))
        }
        [flag, _owner] if flag == "--warm" => {
            log::start();
            warm::serve()
        }
        [path] if !path.to_string_lossy().starts_with('-') => start(Path::new(path)),
        _ => usage("expected the path of a launch file"),
    };
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

fn start(path: &Path) -> i32 {
    match rank::read_launch(path) {
        Ok(launch) => {
            log::start();
            rank::run(&launch)
        }
        Err(error) => usage(&chain(&error)),
    }
}

fn print(text: &str) -> i32 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => exit::SUCCESS,
        Err(_) => exit::FAILED,
    }
}

fn usage(problem: &str) -> i32 {
    // Nothing is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "credence-trainer: {problem}\nTry `credence-trainer --help`.");
    exit::USAGE
}
