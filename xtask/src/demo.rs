//! `cargo xtask demo`: a coordinator and two workers on this machine, from a grid file to its table.
//!
//! Drives the released programs by their command lines, as a user would. Everything it makes is in `demo/`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::{self, Interrupt, Service, cargo};
use crate::setup;

/// The grid that is submitted, and the name that it gives its experiment.
const GRID: &str = "examples/quickstart.toml";
const EXPERIMENT: &str = "quickstart";

/// Names of the workers; each offers one slot, so a trial of world size 2 needs both.
const WORKERS: [&str; 2] = ["w1", "w2"];

/// How long the coordinator may take to listen.
const START: Duration = Duration::from_secs(30);

/// How long coordinator and workers may take to end: a worker gives its trainers 5 s.
const GRACE: Duration = Duration::from_secs(10);

/// Exit status of a program that Ctrl-C ended, as shells count.
const INTERRUPTED: u8 = 130;

/// What happens to the folder of an earlier demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Earlier {
    /// It is removed first.
    Removed,
    /// It is gone on with: what was trained is not trained again.
    Kept,
}

/// How the demo ended.
enum End {
    Done,
    Interrupted,
}

/// Sets up, builds, and runs the demo.
pub fn run(workspace: &Path, earlier: Earlier) -> anyhow::Result<ExitCode> {
    setup::run(workspace)?;
    process::run(&mut cargo(workspace, &["build", "--locked", "--release", "-p", "cli", "-p", "trainer"]))?;
    let demo = Demo {
        programs: process::release_folder()?,
        folder: workspace.join("demo"),
        grid: workspace.join(GRID),
    };
    demo.prepare(earlier)?;

    let interrupt = Interrupt::take_over()?;
    process::adopt_orphans()?;
    let started = Instant::now();
    let mut services = Vec::new();
    let end = demo.play(&mut services, &interrupt);
    // Workers first: the coordinator then sees them leave instead of losing them.
    let mut coordinator: Vec<Service> = services.drain(..services.len().min(1)).collect();
    process::stop(&mut services, GRACE, Some(&interrupt));
    process::stop(&mut coordinator, GRACE, Some(&interrupt));
    let left = process::end_orphans()?;
    if left > 0 {
        eprintln!("{left} processes did not end by themselves and were killed");
    }
    match end? {
        End::Interrupted => {
            eprintln!("interrupted; no process is left. Go on with `cargo xtask demo --keep`");
            Ok(ExitCode::from(INTERRUPTED))
        }
        End::Done => {
            let seconds = started.elapsed().as_secs();
            eprintln!(
                "\nThe demo took {}:{:02} min. Logs, checkpoints and predictions are in `{}`.",
                seconds / 60,
                seconds % 60,
                demo.folder.display()
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

struct Demo {
    programs: PathBuf,
    folder: PathBuf,
    grid: PathBuf,
}

impl Demo {
    fn prepare(&self, earlier: Earlier) -> anyhow::Result<()> {
        let folder = self.folder.display();
        if earlier == Earlier::Removed {
            match fs::remove_dir_all(&self.folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove `{folder}`"));
                }
                Ok(()) | Err(_) => {}
            }
        }
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot create `{folder}`"))?;
        let address = self.address_file();
        match fs::remove_file(&address) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove `{}`", address.display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Starts the services, the coordinator first, and follows the experiment to its table.
    fn play(&self, services: &mut Vec<Service>, interrupt: &Interrupt) -> anyhow::Result<End> {
        services.push(self.service("coordinator", &mut self.coordinator())?);
        let Some(address) = self.address(&mut services[0], interrupt)? else { return Ok(End::Interrupted) };
        let url = format!("http://{address}");
        for name in WORKERS {
            services.push(self.service(name, &mut self.worker(name, &url))?);
        }
        eprintln!("\ncoordinator at {url}, workers {}; Ctrl-C ends all of them\n", WORKERS.join(" and "));

        let grid = self.grid.to_string_lossy().into_owned();
        let mut submit = self.client(&url, &["submit", &grid, "--watch"]);
        let mut watch = submit.spawn().context("cannot start credence")?;
        let Some(status) = process::wait(&mut watch, interrupt)? else { return Ok(End::Interrupted) };
        for service in services.iter_mut() {
            service.check()?;
        }

        let mut table = self.client(&url, &["table", EXPERIMENT]).spawn().context("cannot start credence")?;
        let Some(shown) = process::wait(&mut table, interrupt)? else { return Ok(End::Interrupted) };
        if !status.success() || !shown.success() {
            bail!(
                "the experiment did not end well ({status}); logs are in `{}`, and `cargo xtask demo --keep` \
                 goes on from what was trained",
                self.folder.display()
            );
        }
        Ok(End::Done)
    }

    fn credence(&self) -> Command {
        let mut command = Command::new(self.programs.join("credence"));
        // The user's settings are for the user's own cluster.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CREDENCE_") {
                command.env_remove(name);
            }
        }
        command
    }

    fn coordinator(&self) -> Command {
        let mut command = self.credence();
        command.args(["coordinator", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(self.folder.join("coordinator"));
        command.arg("--address-file").arg(self.address_file());
        command
    }

    fn worker(&self, name: &str, url: &str) -> Command {
        let mut command = self.credence();
        command.args(["worker", "--coordinator", url, "--name", name, "--slots", "1"]);
        // Two workers on one machine would take the same GPU.
        command.args(["--device", "cpu"]);
        // The workers share this machine, and each would take all of its cores.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / WORKERS.len()).max(1);
        command.args(["--threads-per-slot", &threads.to_string(), "--host", "127.0.0.1"]);
        command.arg("--trainer").arg(self.programs.join("credence-trainer"));
        command.arg("--data-dir").arg(self.folder.join(name));
        command
    }

    fn client(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = self.credence();
        command.args(["--coordinator", url]).args(arguments);
        command
    }

    fn service(&self, name: &str, command: &mut Command) -> anyhow::Result<Service> {
        Service::start(name, command, self.folder.join(format!("{name}.log")))
    }

    fn address_file(&self) -> PathBuf {
        self.folder.join("address")
    }

    /// Waits until the coordinator says where it listens; `None` when the user asks to stop.
    fn address(&self, coordinator: &mut Service, interrupt: &Interrupt) -> anyhow::Result<Option<String>> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            if interrupt.requests() > 0 {
                return Ok(None);
            }
            match fs::read_to_string(self.address_file()) {
                Ok(text) if !text.trim().is_empty() => return Ok(Some(text.trim().to_owned())),
                Ok(_) | Err(_) => coordinator.check()?,
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the coordinator does not listen after {START:?}; its log is in `{}`", self.folder.display())
    }
}
