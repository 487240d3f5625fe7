//! From flags, environment and file to one configuration, and back to where each value came from.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};
use posthaste::config::{Config, SETTINGS, Setting, setting};
use posthaste::{Error, Result};
use toml::{Table, Value};

use super::input;

/// A valid configuration, and where each of its values came from.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// One for each of [`SETTINGS`], in their order.
    pub(crate) sources: Vec<Source>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Flag(String),
    Variable(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Adds `--config` and a flag for each setting that `wanted` picks, secrets never among them.
pub(crate) fn arguments(command: Command, wanted: impl Fn(&Setting) -> bool) -> Command {
    let flags = SETTINGS
        .iter()
        .filter(|setting| wanted(setting) && !setting.is_secret());
    command.arg(config_file()).args(flags.map(flag))
}

/// Reads the settings: a flag goes before the environment, that before the file, and that before the default.
pub(crate) fn load(args: &ArgMatches) -> Result<Loaded> {
    let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let path = args.get_one::<PathBuf>(CONFIG).cloned();
    let path = path.or_else(|| environment(CONFIG_VARIABLE).map(PathBuf::from));
    let file = path
        .map(|path| Ok::<_, Error>((read(&path)?, path)))
        .transpose()?;
    let flags = |setting: &Setting| {
        let typed = args.try_contains_id(setting.key).is_ok()
            && args.value_source(setting.key) == Some(ValueSource::CommandLine);
        typed
            .then(|| args.get_one::<String>(setting.key).cloned())
            .flatten()
    };
    combine(
        flags,
        environment,
        file.as_ref().map(|(table, path)| (table, path.as_path())),
    )
}

fn combine(
    flags: impl Fn(&Setting) -> Option<String>,
    environment: impl Fn(&str) -> Option<OsString>,
    file: Option<(&Table, &Path)>,
) -> Result<Loaded> {
    let mut config = Config::default();
    let mut sources = Vec::with_capacity(SETTINGS.len());
    if let Some((table, path)) = file {
        refuse_unknown(table).map_err(|error| from(&Source::File(path.to_owned()), error))?;
    }
    for setting in SETTINGS {
        let found = match flags(setting) {
            Some(value) => Some((value, Source::Flag(setting.flag()))),
            None => in_environment(setting, &environment)?.or(in_file(setting, file)?),
        };
        let (value, source) = found.unzip();
        let source = source.unwrap_or(Source::Default);
        if let Some(value) = value {
            config
                .set(setting.key, &value)
                .map_err(|error| from(&source, error))?;
        }
        sources.push(source);
    }
    config.validate()?;
    Ok(Loaded { config, sources })
}

fn in_environment(
    setting: &Setting,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, Source)>> {
    let mut names = setting.variables().into_iter();
    let Some((name, value)) = names.find_map(|name| environment(&name).map(|value| (name, value)))
    else {
        return Ok(None);
    };
    match value.into_string() {
        Ok(value) => Ok(Some((value, Source::Variable(name)))),
        Err(_) => Err(Error::Config(format!("{name}: must be UTF-8 text"))),
    }
}

fn in_file(setting: &Setting, file: Option<(&Table, &Path)>) -> Result<Option<(String, Source)>> {
    let found = file.and_then(|(table, path)| Some((table.get(setting.key)?, path)));
    let Some((value, path)) = found else {
        return Ok(None);
    };
    let source = Source::File(path.to_owned());
    match written(value) {
        Some(value) => Ok(Some((value, source))),
        None => Err(Error::Config(format!(
            "{}: must be {} ({source})",
            setting.key,
            setting.allowed()
        ))),
    }
}

/// A value of the file as a flag would write it.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(on) => Some(on.to_string()),
        Value::Array(parts) => {
            let parts: Option<Vec<&str>> = parts.iter().map(Value::as_str).collect();
            Some(parts?.join(","))
        }
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn refuse_unknown(table: &Table) -> Result<()> {
    table.keys().try_for_each(|key| setting(key).map(|_| ()))
}

/// The parser's own message ends with the line that it did not understand, which may hold a secret:
/// we tell its number instead.
fn read(path: &Path) -> Result<Table> {
    let text = input::read_text(path)?;
    text.parse().map_err(|error: toml::de::Error| {
        let end = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(end).filter(|byte| *byte == b'\n').count();
        Error::Config(format!("{}, line {line}: is not TOML", path.display()))
    })
}

fn from(source: &Source, error: Error) -> Error {
    match error {
        Error::Config(text) => Error::Config(format!("{text} ({source})")),
        other => other,
    }
}

fn config_file() -> Arg {
    let help = "A TOML file with settings, under the names of the flags with `_` for `-` [POSTHASTE_CONFIG]";
    Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(help)
}

fn flag(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.key)
        .long(setting.flag())
        .value_name(setting.unit().to_uppercase())
        .help_heading(setting.section)
        .help(help(setting));
    if setting.is_switch() {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
    } else {
        arg
    }
}

fn help(setting: &Setting) -> String {
    let said = [setting.default(), setting.bounds()];
    let said: Vec<String> = said.into_iter().filter(|part| !part.is_empty()).collect();
    let meaning = setting.meaning.trim();
    if said.is_empty() {
        meaning.to_owned()
    } else {
        format!("{meaning} [{}]", said.join("; "))
    }
}

/// What the help of a command with settings ends with.
pub(crate) const SOURCES: &str = "\
Settings:
  Each setting can be a flag, an environment variable (--max-body is POSTHASTE_MAX_BODY) or a line
  of the --config file (max_body = \"1MiB\"). A flag goes before the environment, the environment
  before the file. Brackets show the default and what is allowed.
  Secrets have no flag, since flags show in the process list: the database is DATABASE_URL (or
  POSTHASTE_DATABASE_URL), the keys are POSTHASTE_KEYS and the proxy is POSTHASTE_PROXY, or else
  they are in files of their own (key_file, proxy_file).";
const CONFIG: &str = "config";
const CONFIG_VARIABLE: &str = "POSTHASTE_CONFIG";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    fn loaded(flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str) -> Result<Loaded> {
        let table: Table = file.parse().unwrap();
        let find = |list: &[(&str, &str)], key: &str| {
            let found = list.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).to_owned())
        };
        combine(
            |setting| find(flags, setting.key),
            |name| find(environment, name).map(OsString::from),
            Some((&table, Path::new("p.toml"))),
        )
    }

    fn refusal(flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str) -> String {
        loaded(flags, environment, file).err().unwrap().to_string()
    }

    fn source(loaded: &Loaded, key: &str) -> String {
        let at = SETTINGS
            .iter()
            .position(|setting| setting.key == key)
            .unwrap();
        loaded.sources[at].to_string()
    }

    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let file = "batch = 1\nmax_in_flight = 2\nlease = '2m'";
        let environment = [("POSTHASTE_BATCH", "10"), ("POSTHASTE_MAX_IN_FLIGHT", "20")];
        let loaded = loaded(&[("batch", "100")], &environment, file).unwrap();
        let Config {
            batch,
            max_in_flight,
            lease,
            drain,
            ..
        } = loaded.config;
        assert_eq!((batch, max_in_flight), (100, 20));
        assert_eq!(
            (lease, drain),
            (Duration::from_mins(2), Duration::from_secs(25))
        );
        assert_eq!(source(&loaded, "batch"), "--batch");
        assert_eq!(source(&loaded, "max_in_flight"), "POSTHASTE_MAX_IN_FLIGHT");
        assert_eq!(source(&loaded, "lease"), "p.toml");
        assert_eq!(source(&loaded, "drain"), "default");
    }

    #[test]
    fn our_own_variable_for_the_database_beats_the_one_that_everybody_knows() {
        let known = ("DATABASE_URL", "postgres://db/known");
        let own = ("POSTHASTE_DATABASE_URL", "postgres://db/own");
        let url = |environment: &[(&str, &str)]| {
            let loaded = loaded(&[], environment, "").unwrap();
            loaded.config.required_database_url().unwrap().to_owned()
        };
        assert_eq!(url(&[known]), "postgres://db/known");
        assert_eq!(url(&[known, own]), "postgres://db/own");
    }

    #[test]
    fn a_file_writes_numbers_words_switches_and_lists() {
        let file = "batch = 7\nwake = 'poll'\nallow_http_loopback = true\nallow_networks = ['10.0.0.0/8', 'fd00::/8']";
        let config = loaded(&[], &[], file).unwrap().config;
        assert_eq!(config.batch, 7);
        assert_eq!(config.text("wake").unwrap(), "poll");
        assert!(config.allow_http_loopback);
        assert_eq!(config.allow_networks.len(), 2);
    }

    #[test]
    fn a_refused_value_tells_where_it_was_written() {
        let cases = [
            (refusal(&[("batch", "0")], &[], ""), "(--batch)"),
            (
                refusal(&[], &[("POSTHASTE_BATCH", "0")], ""),
                "(POSTHASTE_BATCH)",
            ),
            (refusal(&[], &[], "batch = 0"), "(p.toml)"),
        ];
        for (text, place) in cases {
            assert!(
                text.contains(r#"batch = "0": must be"#) && text.ends_with(place),
                "{text}"
            );
        }
        for file in [
            "batch = 1.5",
            "batch = 1979-05-27",
            "[batch]\nrows = 1",
            "allow_networks = [1]",
        ] {
            assert!(refusal(&[], &[], file).ends_with("(p.toml)"), "{file}");
        }
    }

    #[test]
    fn an_unknown_key_of_the_file_is_an_error_that_names_the_nearest() {
        let text = refusal(&[], &[], "max_in_fligt = 5");
        assert!(text.contains("did you mean `max_in_flight`?"), "{text}");
    }

    #[test]
    fn rules_between_settings_hold_wherever_they_were_set() {
        let text = refusal(&[("request_timeout", "55s")], &[], "lease = '1m'");
        assert!(text.contains("at least 10s longer"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_toml_is_refused_by_its_line_and_never_quoted() {
        let path =
            std::env::temp_dir().join(format!("posthaste-settings-{}.toml", std::process::id()));
        for broken in [
            "batch = 1\nkeys = \"k:CANARY",
            "batch = 1\nkeys = CANARY",
            "batch = 1\nCANARY\n",
            "\nCANARY = 1\nCANARY = 1",
        ] {
            std::fs::write(&path, broken).unwrap();
            let text = read(&path).unwrap_err().to_string();
            assert!(text.contains("line ") && !text.contains("CANARY"), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn secrets_have_no_flag_and_everything_else_has_one() {
        let command = arguments(Command::new("run"), |_| true);
        for setting in SETTINGS {
            let has_flag = command
                .get_arguments()
                .any(|arg| arg.get_id() == setting.key);
            assert_eq!(has_flag, !setting.is_secret(), "{}", setting.key);
        }
    }

    #[test]
    fn a_switch_needs_no_value_and_takes_one() {
        for (typed, value) in [
            ("--allow-http-loopback", "true"),
            ("--allow-http-loopback=false", "false"),
        ] {
            let command = arguments(Command::new("run"), |_| true);
            let args = command.try_get_matches_from(["run", typed]).unwrap();
            assert_eq!(
                args.get_one::<String>("allow_http_loopback").unwrap(),
                value
            );
        }
    }
}
