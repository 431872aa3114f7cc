//! How ranks on GPUs are told which network NCCL takes, and what it logs: by variables that NCCL reads itself.
//!
//! What the agent's own environment says of them holds. Gloo is not told: its address is the worker's `host`.

use std::ffi::OsString;
use std::path::Path;

/// Names the interfaces.
const INTERFACE: &str = "NCCL_SOCKET_IFNAME";

/// Says how much is logged.
const DEBUG: &str = "NCCL_DEBUG";

/// How much NCCL can be told to log, in its own words.
const LEVELS: [&str; 4] = ["VERSION", "WARN", "INFO", "TRACE"];

/// Where the kernel lists the network interfaces of this machine, or of this container.
const INTERFACES: &str = "/sys/class/net";

/// Why NCCL cannot be told what the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum NcclError {
    /// No such interface.
    #[error("`nccl-interface` names `{name}`, which is no network interface of this machine; there is {}", found.join(", "))]
    Interface {
        /// The name.
        name: String,
        /// Those that there are.
        found: Vec<String>,
    },
    /// The interfaces are not known.
    #[error("`nccl-interface` is set, and `{INTERFACES}` does not say which network interfaces there are")]
    Unlisted(#[source] std::io::Error),
    /// No such level.
    #[error("`nccl-debug` is `{level}`; NCCL knows {}", LEVELS.join(", "))]
    Debug {
        /// The word.
        level: String,
    },
}

/// What the configuration says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nccl<'a> {
    /// Interfaces, with commas between them. Empty: NCCL chooses.
    pub interface: &'a str,
    /// How much is logged. Empty: as NCCL has it.
    pub debug: &'a str,
}

impl Nccl<'_> {
    /// What a rank on a GPU finds in its environment, of what the agent's own leaves open.
    ///
    /// # Errors
    ///
    /// [`NcclError`] names what there is instead.
    pub fn variables(
        self,
        own: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<(&'static str, OsString)>, NcclError> {
        let chosen = [(INTERFACE, self.interfaces(Path::new(INTERFACES))?), (DEBUG, self.level()?)];
        let open = chosen.into_iter().filter(|&(name, _)| own(name).is_none());
        Ok(open.filter_map(|(name, value)| Some((name, value?.into()))).collect())
    }

    /// With `=`, without which `eth1` would be `eth10`, too.
    fn interfaces(self, list: &Path) -> Result<Option<String>, NcclError> {
        if self.interface.is_empty() {
            return Ok(None);
        }
        let found = interfaces(list).map_err(NcclError::Unlisted)?;
        let names: Vec<&str> = self.interface.split(',').map(str::trim).collect();
        if let Some(name) = names.iter().find(|name| !found.iter().any(|other| other == *name)) {
            return Err(NcclError::Interface { name: (*name).to_owned(), found });
        }
        Ok(Some(format!("={}", names.join(","))))
    }

    fn level(self) -> Result<Option<String>, NcclError> {
        let level = self.debug.to_ascii_uppercase();
        match level.as_str() {
            "" => Ok(None),
            known if LEVELS.contains(&known) => Ok(Some(level)),
            _ => Err(NcclError::Debug { level: self.debug.to_owned() }),
        }
    }
}

/// Names of the network interfaces, in their order. Each is a folder; what else lies there is a driver's.
fn interfaces(list: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(list)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let list = tempfile::tempdir().unwrap();
        for name in ["lo", "eth1", "eth0"] {
            std::fs::create_dir(list.path().join(name)).unwrap();
        }
        std::fs::write(list.path().join("bonding_masters"), "").unwrap();
        list
    }

    #[test]
    fn an_interface_is_named_whole_and_one_that_is_not_there_is_refused_with_those_that_are() {
        let list = machine();
        let named = |interface| Nccl { interface, debug: "" }.interfaces(list.path());
        assert_eq!(named("").unwrap(), None);
        assert_eq!(named("eth1").unwrap().unwrap(), "=eth1");
        assert_eq!(named("eth1, lo").unwrap().unwrap(), "=eth1,lo");
        for (wrong, name) in
            [("eth", "eth"), ("lo,ib0", "ib0"), ("^lo", "^lo"), ("bonding_masters", "bonding_masters")]
        {
            let expected = format!(
                "`nccl-interface` names `{name}`, which is no network interface of this machine; there is eth0, eth1, lo"
            );
            assert_eq!(named(wrong).unwrap_err().to_string(), expected);
        }
        let unlisted = Nccl { interface: "lo", debug: "" }.interfaces(&list.path().join("none"));
        assert!(matches!(unlisted, Err(NcclError::Unlisted(_))), "{unlisted:?}");
    }

    #[test]
    fn a_level_is_one_that_nccl_knows() {
        let told = |debug| Nccl { interface: "", debug }.variables(|_| None);
        assert_eq!(told("").unwrap(), []);
        assert_eq!(told("info").unwrap(), [(DEBUG, OsString::from("INFO"))]);
        assert_eq!(
            told("LOUD").unwrap_err().to_string(),
            "`nccl-debug` is `LOUD`; NCCL knows VERSION, WARN, INFO, TRACE"
        );
    }

    #[test]
    fn what_the_agents_own_environment_says_holds() {
        // Every machine has it.
        let nccl = Nccl { interface: "lo", debug: "WARN" };
        let both = [(INTERFACE, OsString::from("=lo")), (DEBUG, OsString::from("WARN"))];
        assert_eq!(nccl.variables(|_| None).unwrap(), both);
        let own = |wanted| move |name: &str| (name == wanted).then(|| OsString::from("other"));
        assert_eq!(nccl.variables(own(INTERFACE)).unwrap(), both[1..]);
        assert_eq!(nccl.variables(own(DEBUG)).unwrap(), both[..1]);
    }
}
