//! One file a command. Each connects, asks, prints, and says how it went.

pub mod artifacts;
pub mod cancel;
pub mod coordinator;
pub mod curves;
pub mod data;
pub mod doctor;
pub mod drain;
pub mod explain;
pub mod list;
pub mod logs;
pub mod metrics;
pub mod pause;
pub mod pin;
pub mod priority;
pub mod status;
pub mod store;
pub mod submit;
pub mod table;
pub mod watch;
pub mod worker;
pub mod workers;

/// Whether a name is of the form of a trial's id or key, rather than an experiment's.
fn names_trial(target: &str) -> bool {
    let is_key = target.len() >= 8 && target.bytes().all(|b| b.is_ascii_hexdigit());
    target.parse::<common::TrialId>().is_ok() || is_key
}

#[cfg(test)]
mod tests {
    use super::names_trial;

    #[test]
    fn an_id_or_key_of_a_trial_is_told_from_an_experiment() {
        assert!(names_trial("t7"));
        assert!(names_trial("0123abcd"));
        assert!(!names_trial("quickstart"));
        assert!(!names_trial("e3"));
    }
}
