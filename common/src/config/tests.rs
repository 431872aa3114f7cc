//! Layers, and what is said about wrong ones.

use std::time::Duration;

use serde::Deserialize;

use super::*;

const DEFAULT: &str = r##"
# Where to listen.
listen = "127.0.0.1:7400"
#advertise = "10.0.0.1:7400"
lease = "15s"
max-failures = 3
share = 0.5
tags = ["a"]
labels = {}

# How to log.
[log]
format = "text"
color = true
"##;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Example {
    listen: std::net::SocketAddr,
    advertise: Option<String>,
    #[serde(deserialize_with = "duration")]
    lease: Duration,
    max_failures: u32,
    share: f64,
    tags: Vec<String>,
    labels: BTreeMap<String, String>,
    log: Log,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    format: Format,
    color: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    Text,
    Json,
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

/// Loads with the text of a file, variables and flags.
fn example(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Example, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.toml");
    std::fs::write(&path, file).unwrap();
    let overrides: Vec<(&str, String)> =
        flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let layers =
        Layers { default: DEFAULT, file: Some(&path), env_prefix: "CREDENCE_TEST", overrides: &overrides };
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(layers, variables)
}

/// The error and its sources on one line, as a command prints them.
fn message(result: Result<Example, ConfigError>) -> String {
    let error = result.expect_err("the configuration should be refused");
    let mut chain = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        chain.push(error.to_string());
        source = error.source();
    }
    chain.join(": ")
}

#[test]
fn without_other_layers_the_default_holds() {
    let layers = Layers { default: DEFAULT, file: None, env_prefix: "CREDENCE_TEST_UNUSED", overrides: &[] };
    let config: Example = load(layers).unwrap();
    assert_eq!((config.lease, config.max_failures, config.advertise), (Duration::from_secs(15), 3, None));
    assert_eq!((config.log.format, config.log.color), (Format::Text, true));
}

#[test]
fn each_layer_wins_over_those_below_it() {
    let file = "max-failures = 4\nlease = \"20s\"\nshare = 1\n[log]\nformat = \"json\"\n";
    let variables = [("CREDENCE_TEST_LEASE", "30s"), ("CREDENCE_TEST_SHARE", "0.25")];
    let config = example(file, &variables, &[("share", "0.75")]).unwrap();
    assert_eq!(config.max_failures, 4);
    assert_eq!(config.lease, Duration::from_secs(30));
    assert_eq!(config.share, 0.75);
    assert_eq!((config.log.format, config.log.color), (Format::Json, true));
}

#[test]
fn values_of_variables_and_flags_have_the_type_of_their_key() {
    let variables = [
        ("CREDENCE_TEST_MAX_FAILURES", "7"),
        ("CREDENCE_TEST_LOG_COLOR", "false"),
        ("CREDENCE_TEST_TAGS", "x, y"),
        ("CREDENCE_TEST_ADVERTISE", "12"),
        ("CREDENCE_TEST_CONFIG", "read by the caller"),
        ("CREDENCE_TESTING", "somebody else's"),
    ];
    let config = example("", &variables, &[("labels.zone", "1"), ("tags", "[\"z,z\"]")]).unwrap();
    assert_eq!((config.max_failures, config.log.color), (7, false));
    assert_eq!(config.tags, ["z,z"]);
    assert_eq!(config.advertise.as_deref(), Some("12"));
    assert_eq!(config.labels["zone"], "1");
    let wrong = message(example("", &[("CREDENCE_TEST_MAX_FAILURES", "many")], &[]));
    assert_eq!(wrong, "the environment variable `CREDENCE_TEST_MAX_FAILURES`: `many` is not a whole number");
    let wrong = message(example("", &[], &[("log.color", "yes")]));
    assert_eq!(wrong, "the command line's `log.color`: `yes` is not `true` or `false`");
}

#[test]
fn unknown_keys_of_all_layers_are_named_together_with_the_nearest_valid_one() {
    let file = "\nlisen = \"x\"\n[log]\ncolour = true\n[metrics]\nport = 1\n";
    let said = message(example(file, &[("CREDENCE_TEST_LEASES", "1s")], &[("log.fromat", "json")]));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(
        lines[0].contains("example.toml`, line 2: unknown key `lisen`: did you mean `listen`?"),
        "{said}"
    );
    let line = "example.toml`, line 4: unknown key `log.colour`: did you mean `log.color`? valid names are \
                `log.color`, `log.format`";
    assert!(lines[1].ends_with(line), "{said}");
    assert!(lines[2].contains("line 5: unknown key `metrics`"), "{said}");
    let line = "unknown environment variable `CREDENCE_TEST_LEASES`: did you mean `CREDENCE_TEST_LEASE`?";
    assert!(lines[3].starts_with(line), "{said}");
    let line = "the command line: unknown key `log.fromat`: did you mean `log.format`?";
    assert!(lines[4].starts_with(line), "{said}");
}

#[test]
fn a_value_that_the_program_refuses_is_traced_to_its_layer() {
    let said = message(example("lease = \"soon\"\n", &[], &[]));
    assert!(
        said.starts_with("the file `") && said.contains("example.toml`: `lease` is not valid: "),
        "{said}"
    );
    let said = message(example("lease = \"1s\"\n", &[("CREDENCE_TEST_LEASE", "soon")], &[]));
    assert!(
        said.starts_with("the environment variable `CREDENCE_TEST_LEASE`: `lease` is not valid: "),
        "{said}"
    );
    let said = message(example("", &[], &[("log.format", "xml")]));
    assert!(said.starts_with("the command line's `log.format`: `log.format` is not valid: "), "{said}");
    let said = message(example("[labels]\nzone = [1]\n", &[], &[]));
    assert!(said.contains("example.toml`: `labels.zone` is not valid: "), "{said}");
}

#[test]
fn a_section_that_is_no_table_is_refused() {
    let said = message(example("log = \"json\"\n", &[], &[]));
    assert!(said.ends_with("example.toml`: `log` is not a table"), "{said}");
}

#[test]
fn a_file_that_is_missing_or_broken_is_named() {
    let path = Path::new("no/such/file.toml");
    let layers = Layers { default: DEFAULT, file: Some(path), env_prefix: "CREDENCE_TEST", overrides: &[] };
    let said = message(load_from(layers, std::iter::empty()));
    assert!(said.starts_with("cannot read the configuration `no/such/file.toml`: "), "{said}");
    let said = message(example("listen = \n", &[], &[]));
    assert!(said.contains("example.toml` is not valid TOML: ") && said.contains("line 1"), "{said}");
}

#[test]
fn only_settings_that_are_commented_out_are_keys_without_default() {
    let keys: Vec<String> = Schema::of(DEFAULT).unwrap().keys.into_keys().collect();
    assert_eq!(
        keys,
        [
            "advertise",
            "labels",
            "lease",
            "listen",
            "log.color",
            "log.format",
            "max-failures",
            "share",
            "tags"
        ]
    );
}
