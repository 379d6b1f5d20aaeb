//! What a replica sees of the world, in each language: its allow-list, what its own start script adds, and nothing of the
//! agent's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::replicas::OnHost;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

/// In every language.
const ALWAYS: [&str; 14] = [
    "ERL_CRASH_DUMP",
    "ERL_CRASH_DUMP_BYTES",
    "ERL_EPMD_PORT",
    "HOME",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "PATH",
    "RELEASE_COOKIE",
    "RELEASE_NODE",
    "RELEASE_TMP",
    "SHELL",
    "TERM",
    "TMPDIR",
];

/// What the test itself configures: from `env_file`, from `env`, and ports.
const CONFIGURED: [&str; 6] =
    ["FROM_BOTH", "FROM_ENV", "FROM_FILE", "METRICS_PORT", "PORT", "SAMPLE_BEHAVIOUR"];

/// What must not be seen by a replica although the agent has it.
const AGENTS_OWN: [(&str, &str); 8] = [
    ("AWS_ACCESS_KEY_ID", "leaked"),
    ("AWS_SECRET_ACCESS_KEY", "leaked"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "/leaked"),
    ("DEPLOYEX_SECRET_KEY_BASE", "leaked"),
    ("DEPLOYEX_ERLANG_COOKIE", "leaked"),
    ("ERL_FLAGS", "+S 1"),
    ("HEART_COMMAND", "leaked"),
    ("ANYTHING_ELSE", "leaked"),
];

/// Ours for that language.
fn for_language(sample: Sample) -> &'static [&'static str] {
    match sample {
        Sample::Elixir | Sample::Umbrella => &["RELEASE_DISTRIBUTION"],
        Sample::Erlang => &["RELEASE_SSL_OPTIONS", "RELX_REPLACE_OS_VARS"],
        Sample::Gleam => &[],
    }
}

/// What `erl` and the release's own script set on their way.
fn by_its_script(sample: Sample) -> &'static [&'static str] {
    match sample {
        Sample::Elixir | Sample::Umbrella => &[
            "BINDIR",
            "EMU",
            "PROGNAME",
            "PWD",
            "RELEASE_BOOT_SCRIPT",
            "RELEASE_BOOT_SCRIPT_CLEAN",
            "RELEASE_COMMAND",
            "RELEASE_MODE",
            "RELEASE_NAME",
            "RELEASE_PROG",
            "RELEASE_REMOTE_VM_ARGS",
            "RELEASE_ROOT",
            "RELEASE_SYS_CONFIG",
            "RELEASE_VM_ARGS",
            "RELEASE_VSN",
            "ROOTDIR",
        ],
        Sample::Erlang => &[
            "BINDIR",
            "EMU",
            "ERTS_DIR",
            "ESCRIPT_NAME",
            "LD_LIBRARY_PATH",
            "NAME",
            "OLDPWD",
            "PROGNAME",
            "PWD",
            "RELEASE_NAME",
            "RELEASE_PROG",
            "RELEASE_ROOT_DIR",
            "RELEASE_VSN",
            "RELX_RPC_TIMEOUT",
            "REL_NAME",
            "ROOTDIR",
            "RUN_ERL_DISABLE_FLOWCNTRL",
        ],
        Sample::Gleam => &["BINDIR", "EMU", "PROGNAME", "PWD", "ROOTDIR"],
    }
}

struct Seeing {
    agent: Agent,
    _control_plane: ControlPlane,
    _bucket: Bucket,
    port: u16,
    notes: tempfile::TempDir,
}

async fn started(sample: Sample, more: &str) -> Seeing {
    let bucket = Bucket::new();
    bucket.publish(sample, "0.1.0").await;
    let notes = tempfile::tempdir().unwrap();
    let env_file = notes.path().join("env");
    fs::write(&env_file, "# of this host\nFROM_FILE='of the file'\nFROM_BOTH=file\nSAMPLE_BEHAVIOUR=none\n")
        .unwrap();
    let (port, language) = (ports::free(2), sample.language());
    let applications = format!(
        "  - name: {sample}\n    language: {language}\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}, {{ key: METRICS_PORT, base: {} }}]\n    \
         env_file: {}\n    \
         env:\n      - {{ key: SAMPLE_BEHAVIOUR, value: environment }}\n      - {{ key: FROM_ENV, value: \"a b\" }}\n      \
         - {{ key: FROM_BOTH, value: env }}\n{more}    \
         deploy: {{ strategy: stop_first, stable_after_ms: 100, stop_grace_ms: 500 }}\n",
        port + 1,
        env_file.display()
    );
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agent = Agent::enrolled(&control_plane, control_plane.agents_address(), "first", &[]).await;
    agent.set_environment(&AGENTS_OWN);
    agent.resume();
    control_plane.settles_on(sample.name(), "0.1.0").await;
    Seeing { agent, _control_plane: control_plane, _bucket: bucket, port, notes }
}

/// What the replica itself printed.
async fn printed(seeing: &Seeing, sample: Sample) -> BTreeMap<String, String> {
    let log = seeing.agent.log(sample.name(), 1, "stdout");
    eventually("the environment in the log", || async {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let variables: BTreeMap<_, _> = text
            .lines()
            .filter_map(|line| line.strip_prefix("env ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // It prints them in their order, and this one comes last.
        if variables.contains_key("USER") { Seen::Done(variables) } else { Seen::NotYet(text) }
    })
    .await
}

async fn sees_its_allow_list(sample: Sample) {
    let seeing = started(sample, "").await;
    let printed = printed(&seeing, sample).await;
    let names: BTreeSet<&str> = printed.keys().map(String::as_str).collect();
    let lists = [&ALWAYS[..], &CONFIGURED, for_language(sample), &["USER"]];
    let ours: BTreeSet<&str> = lists.into_iter().flatten().copied().collect();
    let scripts: BTreeSet<&str> = by_its_script(sample).iter().copied().collect();
    let timezone = BTreeSet::from(["TZ"]);
    let beyond: Vec<_> =
        names.difference(&ours).filter(|it| !scripts.contains(*it) && !timezone.contains(*it)).collect();
    let missing: Vec<_> = ours.difference(&names).collect();
    assert!(beyond.is_empty() && missing.is_empty(), "beyond: {beyond:?}, missing: {missing:?}");
    for (name, value) in &printed {
        assert!(!value.contains("leaked"), "{name}={value}");
    }

    let slot = seeing.agent.var_path().join("service").join(sample.name()).join("1");
    let tmp = slot.join("tmp").display().to_string();
    let home = slot.with_file_name("home").display().to_string();
    let (port, metrics) = (seeing.port.to_string(), (seeing.port + 1).to_string());
    let node = format!("{sample}-1");
    let epmd = seeing.agent.epmd_port().to_string();
    for (name, value) in [
        ("FROM_FILE", "of the file"),
        ("FROM_BOTH", "env"),
        ("FROM_ENV", "a b"),
        ("PORT", &port),
        ("METRICS_PORT", &metrics),
        ("RELEASE_NODE", &node),
        ("RELEASE_TMP", &tmp),
        ("TMPDIR", &tmp),
        ("HOME", &home),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        // The start script of relx has its own mind about it.
        ("TERM", if sample == Sample::Erlang { "screen" } else { "dumb" }),
        ("SHELL", "/bin/sh"),
        ("ERL_EPMD_PORT", &epmd),
    ] {
        assert_eq!(printed.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!printed.contains_key("ERL_FLAGS") && !printed.contains_key("HEART_COMMAND"));
    cookie_stays_out_of_arguments(&seeing, sample, &printed["RELEASE_COOKIE"]);
}

/// Start scripts of Elixir and relx put the cookie into the machine's arguments, which nobody can keep them from; we do not.
fn cookie_stays_out_of_arguments(seeing: &Seeing, sample: Sample, cookie: &str) {
    assert!(cookie.len() >= 20, "a random cookie: {cookie}");
    let found = OnHost::of(seeing.agent.folder(), None);
    let machines: BTreeSet<u32> = found.machines.into_values().flatten().collect();
    assert_eq!(machines.len(), 1);
    for pid in xtask::processes::under(seeing.agent.folder()) {
        let pid = pid.as_raw_nonzero().get().unsigned_abs();
        if sample != Sample::Gleam && machines.contains(&pid) {
            continue;
        }
        let words = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default())
            .replace('\0', " ");
        assert!(!words.contains(cookie), "{words}");
    }
    let home = seeing.agent.var_path().join("service").join(sample.name()).join("home");
    assert_eq!(fs::read_to_string(home.join(".erlang.cookie")).unwrap(), cookie);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_elixir_replica_sees_its_allow_list_and_nothing_of_the_agents() {
    sees_its_allow_list(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erlang_replica_sees_its_allow_list_and_nothing_of_the_agents() {
    sees_its_allow_list(Sample::Erlang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gleam_replica_sees_its_allow_list_and_nothing_of_the_agents() {
    sees_its_allow_list(Sample::Gleam).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_sets_its_name_and_cookie_itself_wins() {
    let more = "      - { key: RELEASE_COOKIE, value: its-own-cookie-of-some-length }\n      \
                - { key: RELEASE_NODE, value: its_own }\n";
    let seeing = started(Sample::Erlang, more).await;
    let printed = printed(&seeing, Sample::Erlang).await;
    assert_eq!(printed["RELEASE_COOKIE"], "its-own-cookie-of-some-length");
    assert_eq!(printed["RELEASE_NODE"], "its_own");
    cookie_stays_out_of_arguments(&seeing, Sample::Erlang, "its-own-cookie-of-some-length");
    assert!(seeing.notes.path().exists());
}
