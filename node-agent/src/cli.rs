//! The agent's commands: `enrol` once, `run` for ever, `upgrade` where another program is to go on. Everything else about a fleet is asked of the control plane.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use proto::ids::NodeName;
use proto::join_token::JoinToken;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::cgroup::home::{Hierarchy, Home};
use crate::host;
use crate::inherited::Inherited;
use crate::limits;
use crate::link::{Address, Edges, Enrolment, Identity, Link, enrol};
use crate::logs::LogFolder;
use crate::oom;
use crate::program::{self, KEEPER, VERSION};
use crate::succession::{self, Asked, Succession};
use crate::supervisor::process::Keepers;
use crate::supervisor::{Paths, Settings, Supervisor};
use crate::systemd::Systemd;
use crate::telemetry::{LogFormat, start_logging};

const VAR_PATH: &str = "/var/lib/deployex";
const LOG_PATH: &str = "/var/log";
/// Erlang's own default for its name server.
const EPMD_PORT: u16 = 4369;
/// Orders are few and large.
const ORDERS: usize = 8;
/// Threads of the link beside its own.
const LINK_HELPERS: usize = 4;
const FOR_GOOD: Duration = Duration::from_hours(24 * 365);
/// Shorter than an idle thread lives.
const THREAD_EVERY: Duration = Duration::from_secs(5);
/// The link takes them at once.
const EVENTS: usize = 256;

/// What the link has asked of a thread that waits for a disk or for the network.
const LINK_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// `DeployEx`'s agent: supervises the replicas of this host.
#[derive(Debug, Parser)]
#[command(name = "deployex-agent", version, long_version = program::LONG_VERSION)]
pub struct Cli {
    #[command(subcommand)]
    command: Does,
    /// How the lines of its own log look, which go to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "DEPLOYEX_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged, such as `warn` or `info,node_agent::link=debug`.
    #[arg(long, global = true, default_value = "info", env = "DEPLOYEX_LOG", value_name = "FILTER")]
    log: String,
}

#[derive(Debug, Subcommand)]
enum Does {
    /// Joins a fleet: makes a key, has it certified, and keeps both below the var path.
    #[command(
        after_help = "Example:\n  deployex-agent enrol --control-plane https://deployex.example.com:5002 --token dpxj_…"
    )]
    Enrol(EnrolArgs),
    /// Supervises this host's replicas until it is told to stop; they go on running then.
    #[command(after_help = "Example:\n  deployex-agent run --var-path /var/lib/deployex")]
    Run(PathArgs),
    /// Has the agent that runs make room for the program that lies in its place now. No replica is touched.
    #[command(after_help = "Example:\n  deployex-agent upgrade --var-path /var/lib/deployex")]
    Upgrade(UpgradeArgs),
    /// Says which agent this is.
    Version,
}

#[derive(Clone, Debug, Args)]
struct PathArgs {
    /// Releases, state and keys [default: what the control plane says, else /var/lib/deployex].
    #[arg(long, value_name = "DIR")]
    var_path: Option<PathBuf>,
    /// Applications' logs, each in a folder of its own [default: what the control plane says, else /var/log].
    #[arg(long, value_name = "DIR")]
    log_path: Option<PathBuf>,
    /// `ca.crt`, `deployex.crt` and `deployex.key` for TLS between Erlang nodes [default: what the control plane says, else none].
    #[arg(long, value_name = "DIR")]
    otp_tls_certificates: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct UpgradeArgs {
    /// Of the agent that is meant [default: what the control plane says, else /var/lib/deployex].
    #[arg(long, value_name = "DIR")]
    var_path: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct EnrolArgs {
    /// Where agents dial, as in `https://HOST:5002`.
    #[arg(long, value_name = "URL")]
    control_plane: Address,
    /// From `deployex node token`.
    #[arg(long, env = "DEPLOYEX_JOIN_TOKEN", hide_env_values = true)]
    token: JoinToken,
    /// What people call this host [default: its host name].
    #[arg(long)]
    name: Option<NodeName>,
    /// `key=value`, as often as needed.
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Give up the identity that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    paths: PathArgs,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is key=value".to_owned()),
    }
}

pub async fn run(cli: Cli) -> ExitCode {
    let result = async {
        start_logging(cli.log_format, &cli.log)?;
        match cli.command {
            Does::Enrol(args) => join(args).await,
            Does::Run(paths) => supervise(paths).await,
            Does::Upgrade(args) => upgrade(args).await,
            Does::Version => say(&format!("deployex-agent {VERSION}")),
        }
    };
    let result = result.await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "deployex-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

async fn join(args: EnrolArgs) -> anyhow::Result<()> {
    let run = run_command(&args.paths);
    let var = args.paths.var_path.unwrap_or_else(|| VAR_PATH.into());
    let name = match args.name {
        Some(name) => name,
        None => {
            let host = host::inventory(None).hostname;
            host.parse().with_context(|| {
                format!("the host's name {host:?} cannot be a node's; give one with --name")
            })?
        }
    };
    // Made here with the usual mode: only what is below `agent` is the agent's alone, the rest replicas pass through.
    std::fs::create_dir_all(&var).with_context(|| format!("cannot make {}", var.display()))?;
    let folder = identity_folder(&var);
    let labels = args.labels.into_iter().collect();
    let wish = Enrolment {
        control_plane: args.control_plane,
        token: args.token,
        name,
        labels,
        folder,
        force: args.force,
    };
    let identity = enrol(wish).await?;
    say(&format!("{} joined as node {}; start it with: {run}", identity.name, identity.node))
}

/// With the paths that were given, and no others: what is given wins over what the control plane says.
fn run_command(paths: &PathArgs) -> String {
    let mut command = "deployex-agent run".to_owned();
    for (argument, path) in [
        ("--var-path", &paths.var_path),
        ("--log-path", &paths.log_path),
        ("--otp-tls-certificates", &paths.otp_tls_certificates),
    ] {
        if let Some(path) = path {
            command = format!("{command} {argument} {}", path.display());
        }
    }
    command
}

fn identity_folder(var: &Path) -> PathBuf {
    Paths::new(var.to_owned(), PathBuf::new()).agent().join("identity")
}

async fn upgrade(args: UpgradeArgs) -> anyhow::Result<()> {
    let looked_in = args.var_path.clone().unwrap_or_else(|| VAR_PATH.into());
    let said = || Identity::load(&identity_folder(&looked_in)).ok().and_then(|it| it.host.var_path);
    let var = args.var_path.clone().or_else(said).unwrap_or_else(|| VAR_PATH.into());
    say(&succession::ask(&Paths::new(var, PathBuf::new())).await?)
}

async fn supervise(args: PathArgs) -> anyhow::Result<()> {
    // Before all else: whoever does not listen yet ends when it is asked.
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    // Asked before anybody can have put another program in its place.
    let program = program::lies().context("cannot tell where this program lies")?;
    let again_as = program::by_its_name(&program);
    let inherited = Inherited::take().context("cannot listen for the end of children")?;
    let looked_in = args.var_path.clone().unwrap_or_else(|| VAR_PATH.into());
    let identity = Identity::load(&identity_folder(&looked_in))?;
    let var = args.var_path.or_else(|| identity.host.var_path.clone()).unwrap_or_else(|| VAR_PATH.into());
    let logs = args
        .log_path
        .or_else(|| identity.host.monitored_app_log_path.clone())
        .unwrap_or_else(|| LOG_PATH.into());
    let otp_tls = args.otp_tls_certificates.or_else(|| identity.host.otp_tls_certificates.clone());
    let (name, control_plane) = (identity.name.clone(), identity.control_plane.clone());
    let cancel = CancellationToken::new();
    let link = Link::new(identity);
    let (notes, events) = mpsc::channel(EVENTS);
    oom::spare_me();
    let keepers = keepers(keeper(&program)?, &var);
    let inventory = host::inventory(Some(keepers.home()));
    let settings = Settings {
        paths: Paths::new(var.clone(), logs.clone()),
        keepers,
        epmd_port: variable("ERL_EPMD_PORT").and_then(|it| it.parse().ok()).unwrap_or(EPMD_PORT),
        timezone: variable("TZ"),
        otp_tls,
        certify: link.certify(),
        boot_id: host::boot_id(),
        standing: link.standing(),
    };
    // Also for keepers and replicas, which begin with what the agent has.
    let files = limits::raise_files();
    if !rustix::process::geteuid().is_root() {
        tracing::warn!("not root: every replica runs as the agent's own user, whatever run_as says");
    }
    let mut supervisor = Supervisor::start(settings, link.fetch(), notes.clone(), cancel.clone()).await?;
    let succession = Succession::new(again_as, &Paths::new(var.clone(), logs.clone()), notes);
    succession.begun();
    let (orders, ordered) = mpsc::channel(ORDERS);
    let begin_anew = Arc::new(Notify::new());
    let (sampled, samples) = watch::channel(None);
    let limits = supervisor.watch_host(samples);
    let edges = Edges {
        begin_anew: begin_anew.clone(),
        orders,
        observed: supervisor.observed(),
        events,
        logs: LogFolder(logs),
        evaluate: supervisor.evaluate(),
        var_path: var.clone(),
        inventory,
        sampled,
        vm_samples: supervisor.vm_samples(),
        telemetry: supervisor.telemetry(),
        siblings: supervisor.siblings(),
        limits,
    };
    info!(node = %name, control_plane = %control_plane, var_path = %var.display(), files, "running");
    let tasks = TaskTracker::new();
    // On a thread of its own: a disk that stalls under the ledgers must not make the node look lost.
    let own_thread = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(LINK_HELPERS)
        .thread_keep_alive(FOR_GOOD)
        .build()
        .context("cannot start the link")?;
    // Names are looked up and logs read on threads that are made when needed. Where the host lets none be made the work waits
    // for one that is there: so there is one from the beginning, or the link would end with the first that is refused.
    let helper = own_thread.spawn_blocking(|| ());
    let linked = cancel.clone();
    tasks.spawn_blocking(move || {
        own_thread.block_on(async {
            drop(helper.await);
            link.run(edges, linked).await;
        });
        // A name or a file that is not to be had holds back nobody who is to end or to begin.
        own_thread.shutdown_timeout(LINK_ENDS_WITHIN);
    });
    tasks.spawn(keep_a_thread(cancel.clone()));
    tasks.spawn(supervisor.run(ordered));
    tasks.spawn(inherited.reap(cancel.clone()));
    tasks.close();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let again = loop {
        let asked = tokio::select! {
            biased; // who is told to stop does not begin anew
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break false,
            () = begin_anew.notified() => Asked::Anew,
            Some(()) = hangup.recv() => Asked::Upgrade,
            () = tasks.wait() => break false,
        };
        // Whoever ended first and could not begin would leave this host to itself.
        tokio::select! {
            biased; // nor does whoever is told meanwhile
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break false,
            due = succession.is_due(asked) => if due { break true },
        }
    };
    info!(again, "stopping; replicas go on running");
    cancel.cancel();
    tasks.wait().await;
    let again = again
        && tokio::select! {
            biased; // also where it was told meanwhile, which is heard once the runtime has looked
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            () = sleep(Duration::from_millis(1)) => true,
        };
    if again {
        return Err(succession.make_room()).context("neither another agent nor this one can be begun");
    }
    Ok(())
}

/// Where keepers are, and the control groups of what they start.
fn keepers(program: PathBuf, var: &Path) -> Keepers {
    let user = rustix::process::geteuid();
    let keepers = match Systemd::of_this_host(user.as_raw()) {
        Some(systemd) if user.is_root() => Keepers::in_scopes(program, systemd),
        Some(_) => {
            let why = "the agent is not root, and systemd gives scopes of its own to root alone";
            Keepers::new(program, Home::none(why))
        }
        None => {
            // Two agents on one host have one var path each.
            let digest = Sha256::digest(var.as_os_str().as_bytes());
            let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
            let name = format!("deployex-{number:08x}");
            let home = Home::settle(Hierarchy::of_this_process().as_ref(), &name);
            Keepers::new(program, home)
        }
    };
    if let Some(why) = keepers.why_not() {
        info!(why, "replicas cannot be limited on this host in all that they use");
    }
    keepers
}

/// Work that touches a disk waits for a thread where the host lets none be made; it is taken up by the next that is. So one is
/// asked for again and again, and mostly there.
async fn keep_a_thread(cancel: CancellationToken) {
    loop {
        drop(tokio::task::spawn_blocking(|| ()));
        tokio::select! {
            biased; // stopping comes before all
            () = cancel.cancelled() => return,
            () = sleep(THREAD_EVERY) => {}
        }
    }
}

/// Beside this program.
fn keeper(program: &Path) -> anyhow::Result<PathBuf> {
    let keeper = program.with_file_name(KEEPER);
    anyhow::ensure!(
        keeper.is_file(),
        "{} is missing; it is installed beside deployex-agent",
        keeper.display()
    );
    Ok(keeper)
}

#[expect(clippy::disallowed_methods, reason = "what the agent takes from its environment, all of it here")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_that_starts_an_agent_has_the_paths_that_were_given_alone() {
        let run = |words: &str| {
            let words = format!("deployex-agent enrol --control-plane https://h:5002 {words}");
            let token = format!("dpxj_{}.{}", "s".repeat(32), "0".repeat(64));
            let words = words.split_whitespace().chain(["--token", &token]);
            let Does::Enrol(args) = Cli::parse_from(words).command else {
                panic!("another command");
            };
            run_command(&args.paths)
        };
        assert_eq!(run(""), "deployex-agent run");
        assert_eq!(run("--var-path /srv/x"), "deployex-agent run --var-path /srv/x");
        let both = "--var-path /srv/x --log-path /srv/log";
        assert_eq!(run(both), format!("deployex-agent run {both}"));
    }

    #[test]
    fn what_is_logged_and_how_can_be_said_behind_any_command() {
        let cli = Cli::parse_from(["deployex-agent", "run", "--log-format", "json", "--log", "warn"]);
        assert_eq!((cli.log_format, cli.log.as_str()), (LogFormat::Json, "warn"));
        let error = start_logging(LogFormat::Text, "a=b=c").unwrap_err().to_string();
        assert!(error.starts_with("\"a=b=c\" is no filter for logs"), "{error}");
    }

    #[test]
    fn a_label_needs_its_key() {
        assert_eq!(label("role=web").unwrap(), ("role".to_owned(), "web".to_owned()));
        assert!(label("=web").is_err());
        assert!(label("web").is_err());
    }
}
