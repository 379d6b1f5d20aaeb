//! How a release of each language is started, and with which environment: pure, from the application's settings and the
//! slot's places to a program, its words and its variables.
//!
//! The environment is an allow-list, never the agent's own; later entries win over earlier ones: the system's, the host's
//! `env_file`, the application's `env`, its ports, then what we set where nobody else did. Cookies are put into no argument
//! list of ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use proto::pb;
use proto::words::{Unfinished, split};

/// What every program gets, whoever starts it: the places where a system keeps its programs.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// An `erl_crash.dump` of a large node can fill a disk.
const CRASH_DUMP_BYTES: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LaunchPlanError {
    #[error("{} is missing: is this a release of {app} in {language}?", path.display())]
    Missing { path: PathBuf, app: String, language: &'static str },
    #[error(
        "no `erl` in {path}: a Gleam application runs on the host's Erlang; install it (Debian: apt-get install erlang-base)"
    )]
    NoErlang { path: String },
    #[error("no program {name:?} in {path}")]
    NoProgram { name: String, path: String },
    #[error(transparent)]
    Words(#[from] Unfinished),
    #[error("the assignment names no language that this agent knows; update the agent")]
    Language,
    #[error("the release's folder cannot be read")]
    Release(#[from] std::io::Error),
}

/// The places of one slot.
#[derive(Clone, Debug)]
pub struct Places {
    /// The release: `current` for the replica, `new` for its pre-commands.
    pub release: PathBuf,
    pub home: PathBuf,
    /// Writable, of the slot alone: `TMPDIR` and `RELEASE_TMP`.
    pub tmp: PathBuf,
    /// Working folder: outlives the release; `erl_crash.dump` lands here.
    pub work: PathBuf,
}

/// What the host adds.
#[derive(Clone, Debug, Default)]
pub struct Host {
    pub user: String,
    pub epmd_port: u16,
    pub timezone: Option<String>,
    /// Options of the TLS that Erlang nodes talk to each other: a file of the slot.
    pub otp_tls: Option<PathBuf>,
    /// What `env_file` holds.
    pub env_file: Vec<(String, String)>,
}

/// A program to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: BTreeMap<OsString, OsString>,
}

/// The port of each key in slot `slot`.
pub fn ports(app: &pb::Application, slot: u16) -> Vec<(String, u16)> {
    let port = |base: u32| u16::try_from(base).ok()?.checked_add(slot.saturating_sub(1));
    app.ports.iter().filter_map(|it| Some((it.key.clone(), port(it.base)?))).collect()
}

/// The node's name as the release is told it, without the host part save where one is configured.
pub fn node_name(app: &pb::Application, slot: u16) -> String {
    let host = app.distribution.as_ref().map_or("", |it| it.host.as_str());
    if host.is_empty() { format!("{}-{slot}", app.name) } else { format!("{}-{slot}@{host}", app.name) }
}

/// The host part of the node's name, as far as it can be known before it runs: of what `env` or `env_file` call it, of the
/// application's settings, else the machine's own name, `nodename`.
pub fn node_host(app: &pb::Application, host: &Host, nodename: &str) -> String {
    let named = set_by_others("RELEASE_NODE", app, host).and_then(|it| it.split_once('@')).map(|it| it.1);
    let configured = app.distribution.as_ref().map(|it| it.host.as_str());
    if let Some(host) = named.or(configured).filter(|it| !it.is_empty()) {
        return host.to_owned();
    }
    let mode = set_by_others("RELEASE_DISTRIBUTION", app, host).unwrap_or_else(|| mode(app));
    let short = nodename.split('.').next().unwrap_or(nodename);
    if mode == "name" { nodename } else { short }.to_owned()
}

/// A variable that is not ours: `env` wins over `env_file`.
fn set_by_others<'a>(name: &str, app: &'a pb::Application, host: &'a Host) -> Option<&'a str> {
    let own = app.env.iter().map(|it| (&it.key, &it.value));
    let file = host.env_file.iter().map(|it| (&it.0, &it.1));
    file.chain(own).rfind(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

/// The cookie that applies, unless the release itself sets another: what `env` or `env_file` say, else the application's.
pub fn cookie(app: &pb::Application, host: &Host) -> String {
    set_by_others("RELEASE_COOKIE", app, host).unwrap_or(&app.cookie).to_owned()
}

/// The replica itself.
pub fn replica(
    app: &pb::Application,
    slot: u16,
    places: &Places,
    host: &Host,
) -> Result<Command, LaunchPlanError> {
    let mut env = environment(app, slot, places, host);
    let (program, args) = match app.language() {
        pb::Language::Elixir => (script(app, places, "Elixir")?, vec!["start".into()]),
        pb::Language::Erlang => (script(app, places, "Erlang")?, vec!["foreground".into()]),
        pb::Language::Gleam => {
            let mut args = code_paths(&places.release)?;
            let name = erlang_atom(&app.name);
            let main = erlang_atom(&format!("{}@@main", app.name));
            args.extend(["-eval".into(), format!("{main}:run({name})").into(), "-noshell".into()]);
            args.extend(tls_flags(app, host));
            args.extend(distribution_flags(app, slot));
            (host_erl(&env)?, args)
        }
        pb::Language::Unspecified => return Err(LaunchPlanError::Language),
    };
    listen_within(app, &mut env);
    Ok(Command { program, args, env })
}

/// A pre-command, out of a release that nothing runs yet.
pub fn pre_command(
    app: &pb::Application,
    slot: u16,
    places: &Places,
    host: &Host,
    line: &str,
) -> Result<Command, LaunchPlanError> {
    let words = words_of_a_pre_command(line)?;
    let mut env = environment(app, slot, places, host);
    match app.language() {
        pb::Language::Elixir => {
            let program = script(app, places, "Elixir")?;
            Ok(Command { program, args: words.into_iter().map(OsString::from).collect(), env })
        }
        pb::Language::Erlang => {
            let release = erlang_release(places)?;
            let bin = release.erts.join("bin");
            env.insert("ROOTDIR".into(), places.release.clone().into());
            env.insert("BINDIR".into(), bin.clone().into());
            env.insert("EMU".into(), "beam".into());
            env.insert("PROGNAME".into(), "erl".into());
            let mut args: Vec<OsString> = vec!["-boot".into(), release.version.join("start_clean").into()];
            args.extend(["-boot_var".into(), "ERTS_LIB_DIR".into(), places.release.join("lib").into()]);
            args.extend(code_paths(&places.release.join("lib"))?);
            let config = release.version.join("sys.config");
            if config.is_file() {
                args.extend(["-config".into(), config.into()]);
            }
            args.extend(evaluation(&words));
            Ok(Command { program: bin.join("erlexec"), args, env })
        }
        pb::Language::Gleam => {
            let mut args: Vec<OsString> = vec!["-boot".into(), "start_clean".into()];
            args.extend(code_paths(&places.release)?);
            args.extend(evaluation(&words));
            Ok(Command { program: host_erl(&env)?, args, env })
        }
        pb::Language::Unspecified => Err(LaunchPlanError::Language),
    }
}

/// Text after a leading `eval` that is not quoted is one word, as in `eval MyApp.Migrator.migrate()`.
fn words_of_a_pre_command(line: &str) -> Result<Vec<String>, Unfinished> {
    if let Some(rest) = line.trim().strip_prefix("eval").filter(|rest| rest.starts_with(char::is_whitespace))
    {
        let rest = rest.trim_start();
        if !rest.starts_with(['"', '\'']) {
            return Ok(vec!["eval".to_owned(), rest.to_owned()]);
        }
    }
    split(line)
}

/// A command that asks something of the replica. A program that is named with a folder lies in the release, unless the
/// folder begins at the root; one that is not, where the environment's `PATH` says.
pub fn probe(
    app: &pb::Application,
    slot: u16,
    places: &Places,
    host: &Host,
    line: &str,
) -> Result<Command, LaunchPlanError> {
    let mut words = split(line)?.into_iter();
    let env = environment(app, slot, places, host);
    let name = words.next().unwrap_or_default();
    let program = match name.contains('/') {
        true => places.release.join(&name),
        false => on_path(&name, &env).map_err(|path| LaunchPlanError::NoProgram { name, path })?,
    };
    Ok(Command { program, args: words.map(OsString::from).collect(), env })
}

/// `eval EXPR`, or the expression alone: evaluated in a virtual machine of its own, whose exit status decides.
fn evaluation(words: &[String]) -> Vec<OsString> {
    let expression = match words {
        [first, rest @ ..] if first == "eval" => rest.join(" "),
        words => words.join(" "),
    };
    let expression = expression.trim_end().trim_end_matches('.').to_owned();
    vec!["-noshell".into(), "-eval".into(), expression.into(), "-s".into(), "init".into(), "stop".into()]
}

fn environment(
    app: &pb::Application,
    slot: u16,
    places: &Places,
    host: &Host,
) -> BTreeMap<OsString, OsString> {
    let mut env = BTreeMap::<OsString, OsString>::new();
    let mut set = |key: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        env.insert(key.into(), value.as_ref().to_owned());
    };
    set("PATH", &SYSTEM_PATH);
    set("HOME", &places.home);
    set("USER", &host.user);
    set("LOGNAME", &host.user);
    set("SHELL", &"/bin/sh");
    set("LANG", &"C.UTF-8");
    set("LC_ALL", &"C.UTF-8");
    set("TERM", &"dumb");
    set("TMPDIR", &places.tmp);
    set("RELEASE_TMP", &places.tmp);
    set("ERL_CRASH_DUMP", &places.work.join("erl_crash.dump"));
    set("ERL_CRASH_DUMP_BYTES", &CRASH_DUMP_BYTES.to_string());
    set("ERL_EPMD_PORT", &host.epmd_port.to_string());
    if let Some(timezone) = &host.timezone {
        set("TZ", timezone);
    }
    for (key, value) in &host.env_file {
        set(key, value);
    }
    for entry in &app.env {
        set(&entry.key, &entry.value);
    }
    for (key, port) in ports(app, slot) {
        set(&key, &port.to_string());
    }
    let mut default = |key: &str, value: String| {
        env.entry(key.into()).or_insert_with(|| value.into());
    };
    default("RELEASE_NODE", node_name(app, slot));
    default("RELEASE_COOKIE", app.cookie.clone());
    match app.language() {
        pb::Language::Elixir => {
            default("RELEASE_DISTRIBUTION", mode(app).to_owned());
            let flags = tls_flags(app, host).join(" ".as_ref());
            if !flags.is_empty() {
                default("ELIXIR_ERL_OPTIONS", flags.to_string_lossy().into_owned());
            }
        }
        pb::Language::Erlang => {
            default("RELX_REPLACE_OS_VARS", "true".to_owned());
            let flags = tls_flags(app, host).join(" ".as_ref());
            default("RELEASE_SSL_OPTIONS", flags.to_string_lossy().into_owned());
        }
        pb::Language::Gleam | pb::Language::Unspecified => {}
    }
    env
}

/// In the words of Elixir's `RELEASE_DISTRIBUTION`.
fn mode(app: &pb::Application) -> &'static str {
    match app.distribution.as_ref().map_or(pb::DistributionMode::Short, pb::Distribution::mode) {
        pb::DistributionMode::Short => "sname",
        pb::DistributionMode::Long => "name",
        pb::DistributionMode::Off => "none",
    }
}

fn tls_flags(app: &pb::Application, host: &Host) -> Vec<OsString> {
    match &host.otp_tls {
        Some(options) if mode(app) != "none" => {
            vec!["-proto_dist".into(), "inet_tls".into(), "-ssl_dist_optfile".into(), options.into()]
        }
        _ => Vec::new(),
    }
}

fn distribution_flags(app: &pb::Application, slot: u16) -> Vec<OsString> {
    match mode(app) {
        "none" => Vec::new(),
        mode => vec![format!("-{mode}").into(), node_name(app, slot).into()],
    }
}

/// The ports that the node may listen on for others of its cluster, behind whatever flags the application has.
fn listen_within(app: &pb::Application, env: &mut BTreeMap<OsString, OsString>) {
    let Some(distribution) = app.distribution.as_ref().filter(|it| it.port_first > 0) else { return };
    let flags = env.entry("ERL_AFLAGS".into()).or_default();
    if !flags.is_empty() {
        flags.push(" ");
    }
    let (first, last) = (distribution.port_first, distribution.port_last.max(distribution.port_first));
    flags.push(format!("-kernel inet_dist_listen_min {first} inet_dist_listen_max {last}"));
}

fn script(
    app: &pb::Application,
    places: &Places,
    language: &'static str,
) -> Result<PathBuf, LaunchPlanError> {
    let path = places.release.join("bin").join(&app.name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(LaunchPlanError::Missing { path, app: app.name.clone(), language })
    }
}

/// The `ebin` folders of every library under `lib`, in the order of their names. Gleam's are below `erlang-shipment`.
fn code_paths(lib: &Path) -> Result<Vec<OsString>, LaunchPlanError> {
    let shipment = lib.join("erlang-shipment");
    let lib = if shipment.is_dir() { shipment } else { lib.to_owned() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&lib)? {
        let ebin = entry?.path().join("ebin");
        if ebin.is_dir() {
            found.push(ebin);
        }
    }
    found.sort();
    Ok(found.into_iter().flat_map(|ebin| ["-pa".into(), ebin.into_os_string()]).collect())
}

struct ErlangRelease {
    erts: PathBuf,
    version: PathBuf,
}

/// Where a release of relx has its emulator and its boot files, by `releases/start_erl.data`.
fn erlang_release(places: &Places) -> Result<ErlangRelease, LaunchPlanError> {
    let data = std::fs::read_to_string(places.release.join("releases/start_erl.data"))?;
    let mut words = data.split_whitespace();
    let (erts, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(ErlangRelease {
        erts: places.release.join(format!("erts-{erts}")),
        version: places.release.join("releases").join(version),
    })
}

fn host_erl(env: &BTreeMap<OsString, OsString>) -> Result<PathBuf, LaunchPlanError> {
    on_path("erl", env).map_err(|path| LaunchPlanError::NoErlang { path })
}

/// An error: the folders that were looked in.
fn on_path(name: &str, env: &BTreeMap<OsString, OsString>) -> Result<PathBuf, String> {
    let path = env.get(std::ffi::OsStr::new("PATH")).cloned().unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|it| it.is_file());
    found.ok_or_else(|| path.to_string_lossy().into_owned())
}

fn erlang_atom(name: &str) -> String {
    let plain = name.starts_with(|it: char| it.is_ascii_lowercase())
        && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_' || it == '@');
    if plain { name.to_owned() } else { format!("'{name}'") }
}

/// The lines of an `env_file`: `KEY=value`, `export KEY=value`, comments; a value may stand in quotes.
pub fn env_file(text: &str) -> Vec<(String, String)> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("export ").unwrap_or(line).split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), unquoted(value.trim()).to_owned()))
        .filter(|(key, _)| !key.is_empty() && !key.contains(char::is_whitespace))
        .collect()
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(language: pb::Language) -> pb::Application {
        pb::Application {
            name: "shop".to_owned(),
            language: language.into(),
            ports: vec![pb::PortBase { key: "PORT".to_owned(), base: 4000 }],
            cookie: "secret".to_owned(),
            ..Default::default()
        }
    }

    fn places() -> (tempfile::TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in
            ["current/bin", "current/erlang-shipment/shop/ebin", "current/erlang-shipment/gleam_stdlib/ebin"]
        {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::fs::write(root.join("current/bin/shop"), "").unwrap();
        let places = Places {
            release: root.join("current"),
            home: root.join("home"),
            tmp: root.join("tmp"),
            work: root.join("work"),
        };
        (folder, places)
    }

    fn get(command: &Command, key: &str) -> Option<String> {
        command.env.get(std::ffi::OsStr::new(key)).map(|it| it.to_string_lossy().into_owned())
    }

    #[test]
    fn the_environment_is_an_allow_list() {
        let (_folder, places) = places();
        let host = Host { user: "deployex".to_owned(), epmd_port: 4369, ..Default::default() };
        let command = replica(&app(pb::Language::Elixir), 2, &places, &host).unwrap();
        let keys: Vec<_> = command.env.keys().map(|it| it.to_string_lossy().into_owned()).collect();
        assert_eq!(
            keys,
            [
                "ERL_CRASH_DUMP",
                "ERL_CRASH_DUMP_BYTES",
                "ERL_EPMD_PORT",
                "HOME",
                "LANG",
                "LC_ALL",
                "LOGNAME",
                "PATH",
                "PORT",
                "RELEASE_COOKIE",
                "RELEASE_DISTRIBUTION",
                "RELEASE_NODE",
                "RELEASE_TMP",
                "SHELL",
                "TERM",
                "TMPDIR",
                "USER"
            ]
        );
        assert_eq!(get(&command, "PORT").as_deref(), Some("4001"));
        assert_eq!(get(&command, "RELEASE_NODE").as_deref(), Some("shop-2"));
        assert_eq!(get(&command, "RELEASE_DISTRIBUTION").as_deref(), Some("sname"));
        assert_eq!(command.args, ["start"]);
    }

    #[test]
    fn the_application_wins_over_us_and_over_the_file_on_the_host() {
        let (_folder, places) = places();
        let mut app = app(pb::Language::Elixir);
        app.env = vec![
            pb::EnvEntry { key: "RELEASE_NODE".to_owned(), value: "own@host".to_owned() },
            pb::EnvEntry { key: "A".to_owned(), value: "from env".to_owned() },
        ];
        let env_file =
            env_file("# a comment\nA=from file\nexport B='two words'\nRELEASE_COOKIE=\"filed\"\nnonsense\n");
        let host = Host { env_file, ..Default::default() };
        let command = replica(&app, 1, &places, &host).unwrap();
        assert_eq!(get(&command, "RELEASE_NODE").as_deref(), Some("own@host"));
        assert_eq!(get(&command, "A").as_deref(), Some("from env"));
        assert_eq!(get(&command, "B").as_deref(), Some("two words"));
        assert_eq!(get(&command, "RELEASE_COOKIE").as_deref(), Some("filed"));
        assert_eq!(cookie(&app, &host), "filed");
    }

    #[test]
    fn a_gleam_application_is_started_without_a_cookie_in_its_arguments() {
        let (folder, places) = places();
        let mut app = app(pb::Language::Gleam);
        std::fs::write(folder.path().join("erl"), "").unwrap();
        let own = format!("{}:/usr/bin", folder.path().display());
        app.env.push(pb::EnvEntry { key: "PATH".to_owned(), value: own });
        let command = replica(&app, 1, &places, &Host::default()).unwrap();
        assert_eq!(command.program, folder.path().join("erl"));
        let args: Vec<_> = command.args.iter().map(|it| it.to_string_lossy().into_owned()).collect();
        assert_eq!(args[0], "-pa");
        assert!(args[1].ends_with("erlang-shipment/gleam_stdlib/ebin"), "{args:?}");
        assert_eq!(&args[4..], ["-eval", "shop@@main:run(shop)", "-noshell", "-sname", "shop-1"]);
        assert!(!args.iter().any(|it| it.contains("secret")));
    }

    #[test]
    fn each_language_is_told_of_tls_in_its_own_way_and_an_application_that_says_otherwise_wins() {
        let (folder, places) = places();
        std::fs::write(folder.path().join("erl"), "").unwrap();
        let host = Host { otp_tls: Some("/s/1/tls/inet_tls.conf".into()), ..Default::default() };
        let flags = "-proto_dist inet_tls -ssl_dist_optfile /s/1/tls/inet_tls.conf";
        let start = |app: &pb::Application| replica(app, 1, &places, &host).unwrap();
        let elixir = start(&app(pb::Language::Elixir));
        assert_eq!(get(&elixir, "ELIXIR_ERL_OPTIONS").as_deref(), Some(flags));
        let erlang = start(&app(pb::Language::Erlang));
        assert_eq!(get(&erlang, "RELEASE_SSL_OPTIONS").as_deref(), Some(flags));
        let mut gleam = app(pb::Language::Gleam);
        let own = format!("{}:/usr/bin", folder.path().display());
        gleam.env.push(pb::EnvEntry { key: "PATH".to_owned(), value: own });
        let args: Vec<_> = start(&gleam).args.iter().map(|it| it.to_string_lossy().into_owned()).collect();
        assert!(args.join(" ").ends_with(&format!("-noshell {flags} -sname shop-1")), "{args:?}");
        let mut own = app(pb::Language::Elixir);
        own.env.push(pb::EnvEntry { key: "ELIXIR_ERL_OPTIONS".to_owned(), value: "+P 7".to_owned() });
        assert_eq!(get(&start(&own), "ELIXIR_ERL_OPTIONS").as_deref(), Some("+P 7"));
        let mut alone = app(pb::Language::Elixir);
        alone.distribution =
            Some(pb::Distribution { mode: pb::DistributionMode::Off.into(), ..Default::default() });
        assert_eq!(get(&start(&alone), "ELIXIR_ERL_OPTIONS"), None);
    }

    #[test]
    fn the_host_of_a_node_is_what_the_application_says_or_the_machine() {
        let mut app = app(pb::Language::Elixir);
        let of = |app: &pb::Application| node_host(app, &Host::default(), "web-1.example.com");
        assert_eq!(of(&app), "web-1");
        let long = pb::Distribution { mode: pb::DistributionMode::Long.into(), ..Default::default() };
        app.distribution = Some(long.clone());
        assert_eq!(of(&app), "web-1.example.com");
        app.distribution = Some(pb::Distribution { host: "10.0.0.7".to_owned(), ..long });
        assert_eq!(of(&app), "10.0.0.7");
        app.env = vec![pb::EnvEntry { key: "RELEASE_NODE".to_owned(), value: "shop@127.0.0.1".to_owned() }];
        assert_eq!(of(&app), "127.0.0.1");
    }

    #[test]
    fn names_that_are_no_plain_atoms_are_quoted() {
        assert_eq!(erlang_atom("shop"), "shop");
        assert_eq!(erlang_atom("my-shop"), "'my-shop'");
        assert_eq!(erlang_atom("Shop"), "'Shop'");
    }

    #[test]
    fn a_release_of_another_application_is_named() {
        let (_folder, places) = places();
        let mut app = app(pb::Language::Erlang);
        app.name = "other".to_owned();
        let error = replica(&app, 1, &places, &Host::default()).unwrap_err();
        assert!(error.to_string().contains("bin/other"), "{error}");
    }

    #[test]
    fn distribution_ports_come_behind_the_applications_own_flags() {
        let (_folder, places) = places();
        let mut app = app(pb::Language::Elixir);
        app.env = vec![pb::EnvEntry { key: "ERL_AFLAGS".to_owned(), value: "+S 1".to_owned() }];
        app.distribution = Some(pb::Distribution { port_first: 9100, port_last: 9200, ..Default::default() });
        let command = replica(&app, 1, &places, &Host::default()).unwrap();
        assert_eq!(
            get(&command, "ERL_AFLAGS").as_deref(),
            Some("+S 1 -kernel inet_dist_listen_min 9100 inet_dist_listen_max 9200")
        );
    }

    #[test]
    fn a_probe_runs_a_program_of_the_release_or_of_the_host() {
        let (folder, places) = places();
        let mut app = app(pb::Language::Elixir);
        std::fs::write(folder.path().join("check"), "").unwrap();
        app.env = vec![pb::EnvEntry { key: "PATH".to_owned(), value: folder.path().display().to_string() }];
        let planned = |line: &str| probe(&app, 2, &places, &Host::default(), line);
        let own = planned("bin/shop rpc 'Shop.is_well?()'").unwrap();
        assert_eq!(own.program, places.release.join("bin/shop"));
        assert_eq!(own.args, ["rpc", "Shop.is_well?()"]);
        assert_eq!(get(&own, "PORT").as_deref(), Some("4001"));
        assert_eq!(planned("/opt/check").unwrap().program, Path::new("/opt/check"));
        assert_eq!(planned("check --deep").unwrap().program, folder.path().join("check"));
        for line in ["absent", "", "''"] {
            assert!(matches!(planned(line), Err(LaunchPlanError::NoProgram { .. })), "{line}");
        }
        let unfinished = planned("check 'it").unwrap_err().to_string();
        assert_eq!(unfinished, "a quote (') is not closed in \"check 'it\"");
    }

    #[test]
    fn what_is_to_be_evaluated_is_one_word_unless_it_is_quoted() {
        for (line, expected) in [
            (" eval IO.puts(1); IO.puts(\"a b\")", vec!["eval", "IO.puts(1); IO.puts(\"a b\")"]),
            ("eval \"IO.puts(1)\"", vec!["eval", "IO.puts(1)"]),
            ("evaluate it", vec!["evaluate", "it"]),
        ] {
            assert_eq!(words_of_a_pre_command(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn a_pre_command_of_elixir_is_a_command_of_its_script() {
        let (_folder, places) = places();
        let command =
            pre_command(&app(pb::Language::Elixir), 1, &places, &Host::default(), "eval Shop.Migrator.run()")
                .unwrap();
        assert_eq!(command.program, places.release.join("bin/shop"));
        assert_eq!(command.args, ["eval", "Shop.Migrator.run()"]);
    }
}
