//! What the facts come to.

use std::fmt;

use serde::Serialize;
use worker::DeviceKind;

use super::facts::{Driver, Facts, Folder};

/// The first driver that runs programs of CUDA 13.0.
const DRIVER: u32 = 580;

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Not there, and not asked for.
    Absent,
    /// Trials run without it, but not as they could.
    Warning,
    /// Trials do not run as the configuration asks, or GPUs are not used.
    Gap,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What.
    part: &'static str,
    state: State,
    /// What was found, in words.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Everything that was looked at.
#[derive(Debug, Serialize)]
pub struct Report {
    findings: Vec<Finding>,
    gaps: usize,
}

impl Report {
    /// Judges what was found.
    pub fn of(facts: &Facts) -> Self {
        let mut report = Self { findings: Vec::new(), gaps: 0 };
        report.trainer(facts);
        report.driver(facts);
        report.cuda(facts);
        report.nccl(facts);
        report.offer(facts);
        report.folder(&facts.folder);
        report.data(facts);
        report.coordinator(facts);
        report
    }

    /// How many gaps there are.
    pub fn gaps(&self) -> usize {
        self.gaps
    }

    fn add(&mut self, part: &'static str, state: State, found: String, remedy: Option<&str>) {
        self.gaps += usize::from(state == State::Gap);
        self.findings.push(Finding { part, state, found, remedy: remedy.map(str::to_owned) });
    }

    fn trainer(&mut self, facts: &Facts) {
        match &facts.trainer {
            Ok(trainer) => {
                let found = format!("{}, `{}`", trainer.version, trainer.path.display());
                self.add("trainer", State::Ok, found, None);
            }
            Err(why) => self.add(
                "trainer",
                State::Gap,
                why.clone(),
                Some(
                    "build it with `cargo xtask setup` and `cargo build --release -p trainer`; where it was copied to, its \
                     libtorch belongs into `../lib` beside it",
                ),
            ),
        }
    }

    fn driver(&mut self, facts: &Facts) {
        match &facts.driver {
            Driver::Absent(why) => match facts.wanted {
                DeviceKind::Cuda => {
                    self.add("driver", State::Gap, why.clone(), Some("install NVIDIA's driver, 580 or newer"))
                }
                DeviceKind::Auto | DeviceKind::Cpu => {
                    self.add(
                        "driver",
                        State::Absent,
                        "no NVIDIA driver; trials run on the processor".to_owned(),
                        None,
                    );
                }
            },
            Driver::Silent(why) => {
                let state = if facts.wanted == DeviceKind::Cpu { State::Warning } else { State::Gap };
                let remedy = "see what `nvidia-smi` and the kernel's log (`dmesg`, lines with NVRM) say; load the driver or \
                              restart the machine";
                self.add("driver", state, why.clone(), Some(remedy));
            }
            Driver::Answers { version, gpus, faults } => {
                self.driver_version(facts, version);
                let state = match (gpus.is_empty(), facts.wanted) {
                    (true, DeviceKind::Cuda) => State::Gap,
                    (true, _) => State::Absent,
                    (false, _) => State::Ok,
                };
                let found =
                    if gpus.is_empty() { "the driver lists none".to_owned() } else { gpus.join("\n") };
                self.add("gpus", state, found, None);
                for fault in faults {
                    let remedy = "reset it (`nvidia-smi --gpu-reset`), end who holds it, or leave it out with `devices`; a \
                                  worker that offers it is in quarantine";
                    self.add("health", bad(facts), fault.clone(), Some(remedy));
                }
            }
        }
    }

    fn driver_version(&mut self, facts: &Facts, version: &str) {
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major < DRIVER) {
            let found = format!(
                "{version} is too old for CUDA 13.0, which PyTorch {} is built for",
                common::cuda::WANTED
            );
            self.add("driver", bad(facts), found, Some("install NVIDIA's driver, 580 or newer"));
        } else {
            self.add("driver", State::Ok, format!("{version}, which runs CUDA 13.0"), None);
        }
    }

    fn cuda(&mut self, facts: &Facts) {
        match &facts.cuda {
            Ok(install) => {
                let nccl = match (&install.nccl_version, &install.nccl) {
                    (Some(version), _) => format!("with NCCL {version}"),
                    (None, Some(_)) => "with NCCL of a version that it does not say".to_owned(),
                    (None, None) => "without NCCL".to_owned(),
                };
                let found = format!("PyTorch {} {nccl}, `{}`", install.version, install.lib.display());
                self.add("cuda", State::Ok, found, None);
            }
            Err(error) if wants_gpus(facts) => {
                let remedy = format!(
                    "`pip install torch==2.11.0` into a Python environment, and activate it or name it in `cuda-libtorch` or \
                     {}",
                    common::cuda::VARIABLE
                );
                let found = format!("no PyTorch {} with CUDA", common::cuda::WANTED);
                let rejected = error.rejected.iter().map(|rejected| {
                    format!("\n`{}` ({}): {}", rejected.lib.display(), rejected.origin, rejected.flaw)
                });
                self.add("cuda", State::Gap, found + &rejected.collect::<String>(), Some(&remedy));
            }
            Err(_) => self.add("cuda", State::Absent, "no PyTorch with CUDA".to_owned(), None),
        }
    }

    fn nccl(&mut self, facts: &Facts) {
        let remedy = "compile it with `cargo xtask setup --cuda`, which needs no GPU, and copy it there; or name it in \
                      CREDENCE_NCCL";
        match &facts.nccl {
            Ok(path) => {
                let told = facts.offer.iter().flat_map(|inventory| inventory.nccl());
                let told = told.map(|(name, value)| format!(", {name}={}", value.to_string_lossy()));
                let found = format!("`{}`{}", path.display(), told.collect::<String>());
                self.add("nccl", State::Ok, found, None);
            }
            Err(path) if wants_gpus(facts) => {
                let state = if gpus(facts) > 1 { State::Gap } else { State::Warning };
                let found = format!("no `{}`: trials of several ranks do not run on GPUs", path.display());
                self.add("nccl", state, found, Some(remedy));
            }
            Err(_) => self.add("nccl", State::Absent, "no library for ranks on GPUs".to_owned(), None),
        }
    }

    fn offer(&mut self, facts: &Facts) {
        match &facts.offer {
            Ok(inventory) => {
                let slots = inventory.slots();
                let s = if slots == 1 { "" } else { "s" };
                let memory =
                    inventory.slot_memory_mib().map(|mib| format!(", {mib} MiB each")).unwrap_or_default();
                let labels = inventory.labels().iter().map(|(key, value)| format!(", {key} = {value}"));
                let labels: String = labels.collect();
                let found = format!("{slots} slot{s} of kind {}{memory}{labels}", inventory.kind());
                // That GPUs are left unused is a gap already, where it is said why.
                self.add("slots", State::Ok, found, None);
            }
            Err(why) => {
                let remedy = "mend what is named, or change `device`, `devices`, `slots`, `slots-per-device` or `nccl-interface`";
                self.add("slots", State::Gap, why.clone(), Some(remedy));
            }
        }
    }

    fn folder(&mut self, folder: &Folder) {
        let Folder { path, refused, free_mib, wanted_mib } = folder;
        let path = path.display();
        match (refused, free_mib) {
            (Some(why), _) => {
                let remedy = "make it writable for this user, or name another with `data-dir`";
                self.add("folder", State::Gap, format!("`{path}` cannot be written: {why}"), Some(remedy));
            }
            (None, Some(free)) if free < wanted_mib => {
                let found =
                    format!("`{path}` has {free} MiB free; `cache-mib` and `spool-mib` allow {wanted_mib}");
                self.add("folder", State::Warning, found, Some("make space, or lower them"));
            }
            (None, Some(free)) => self.add("folder", State::Ok, format!("`{path}`, {free} MiB free"), None),
            (None, None) => self.add("folder", State::Ok, format!("`{path}`"), None),
        }
    }

    fn data(&mut self, facts: &Facts) {
        let (folder, names) = &facts.data;
        let folder = folder.display();
        if names.is_empty() {
            let found = format!("none but the bundled digits in `{folder}`");
            let remedy = format!("`credence data fetch NAME --to {folder}`; `credence data list` names them");
            self.add("data sets", State::Warning, found, Some(&remedy));
        } else {
            self.add("data sets", State::Ok, format!("{} in `{folder}`", names.join(", ")), None);
        }
    }

    fn coordinator(&mut self, facts: &Facts) {
        match &facts.coordinator {
            (url, None) => self.add("coordinator", State::Ok, format!("{url} accepts connections"), None),
            (url, Some(why)) => {
                let remedy = "start it with `credence coordinator`, or name it with --coordinator";
                self.add("coordinator", State::Warning, format!("{url}: {why}"), Some(remedy));
            }
        }
    }
}

/// What is wrong with a GPU matters where it would be used.
fn bad(facts: &Facts) -> State {
    if facts.wanted == DeviceKind::Cpu { State::Warning } else { State::Gap }
}

fn gpus(facts: &Facts) -> usize {
    match &facts.driver {
        Driver::Answers { gpus, .. } => gpus.len(),
        Driver::Absent(_) | Driver::Silent(_) => 0,
    }
}

/// Whether trials are to run on GPUs.
fn wants_gpus(facts: &Facts) -> bool {
    match facts.wanted {
        DeviceKind::Cuda => true,
        // A driver that says nothing is there for a reason.
        DeviceKind::Auto => gpus(facts) > 0 || matches!(facts.driver, Driver::Silent(_)),
        DeviceKind::Cpu => false,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { part, state, found, remedy } in &self.findings {
            let state = match state {
                State::Ok => "ok",
                State::Absent => "-",
                State::Warning => "warning",
                State::Gap => "GAP",
            };
            let mut lines = found.lines();
            writeln!(f, "{state:8}{part:13}{}", lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(f, "{:21}{line}", "")?;
            }
            if let Some(remedy) = remedy {
                writeln!(f, "{:21}-> {remedy}", "")?;
            }
        }
        match self.gaps {
            0 => write!(f, "\nA worker runs here."),
            1 => write!(f, "\n1 gap: a worker does not run here as its configuration asks."),
            gaps => write!(f, "\n{gaps} gaps: a worker does not run here as its configuration asks."),
        }
    }
}

#[cfg(test)]
mod tests;
