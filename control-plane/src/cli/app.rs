//! `deployex app …`: applications.

mod doctor;
mod history;
mod telemetry;

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use proto::apps::{Application, ApplicationSummary};
use proto::ids::AppName;
use proto::replicas::{ErlangNode, FailedCheck, ProbeList, Replica, Usage, Vm, VmLevel};
use proto::state::{HostLevel, SlotState};
use proto::timestamp::Timestamp;

use super::CliError;
use super::client::Client;
use super::ghosted::evidence;
use super::output::{Out, Paint, Table, age, bytes, facts, one_line, or_dash, place, wrap};

#[derive(Debug, Subcommand)]
pub(super) enum App {
    /// List the applications.
    #[command(after_help = "Example:\n  deployex app list")]
    List,
    /// Show one application with its replicas.
    #[command(after_help = "Example:\n  deployex app show myapp")]
    Show {
        /// The application's name.
        application: AppName,
    },
    /// Look at the application's Erlang nodes and what connects them, and say what is wrong and what to do.
    #[command(after_help = "Exits with 1 where something is wrong.\n\nExample:\n  deployex app doctor myapp")]
    Doctor {
        /// The application's name.
        application: AppName,
    },
    /// Show what its replicas have counted of its events: how many, and how long they took.
    #[command(
        after_help = "Events are counted where `telemetry.events` of the application names some.\n\nExample:\n  deployex app telemetry myapp"
    )]
    Telemetry {
        /// The application's name.
        application: AppName,
    },
    History(history::History),
}

impl App {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let (paint, now) = (out.paint, out.now());
        match self {
            Self::List => {
                let applications: Vec<ApplicationSummary> = client.get_all("/applications").await?;
                out.show(&applications, |applications| match applications.is_empty() {
                    true => "No application is configured: name one in deployex.yaml.\n".to_owned(),
                    false => table(applications, paint),
                })
            }
            Self::Show { application } => {
                let application: Application = client.get(&format!("/applications/{application}")).await?;
                out.show(&application, |application| render(application, paint, now))
            }
            Self::Doctor { application } => doctor::run(&application, client, out).await,
            Self::Telemetry { application } => telemetry::run(&application, client, out).await,
            Self::History(history) => history.run(client, out).await,
        }
    }
}

pub(super) fn table(applications: &[ApplicationSummary], paint: Paint) -> String {
    let mut table = Table::new(&["APPLICATION", "LANGUAGE", "VERSION", "READY", "STATE"]);
    for app in applications {
        table.row(vec![
            (&app.name).into(),
            app.language.into(),
            or_dash(app.in_force.as_ref().map(|it| &it.version)).into(),
            format!("{}/{}", app.replicas_ready, app.replicas_wanted).into(),
            paint.state(app.tone, &app.sentence),
        ]);
    }
    let mut text = table.render();
    // What asks for somebody is said to its end; the table may have cut it.
    for app in applications.iter().filter(|app| app.needs_attention) {
        text.push_str(&wrap(&format!("{}: {}", app.name, app.sentence)));
    }
    text
}

fn render(application: &Application, paint: Paint, now: Timestamp) -> String {
    let Application {
        summary,
        settings,
        release_fault,
        slots,
        current_rollout,
        ghosts,
        pinned,
        rolls_back_to: _,
    } = application;
    let mut text = format!("{}  {}\n", summary.name, paint.headline(summary.tone, &summary.sentence));
    let ports: Vec<String> =
        settings.ports.iter().map(|port| format!("{}={}", port.key, port.base)).collect();
    text.push_str(&facts(&[
        ("language", summary.language.to_string()),
        ("in force", or_dash(summary.in_force.as_ref())),
        ("wanted", or_dash(summary.wanted.as_ref())),
        ("strategy", settings.strategy.to_string()),
        ("replicas", format!("{} per node, {} ready", settings.replicas_per_node, summary.replicas_ready)),
        ("ports", if ports.is_empty() { "-".to_owned() } else { ports.join(" ") }),
        ("runs as", settings.run_as.clone()),
    ]));
    if let Some(pin) = pinned {
        text.push_str(&wrap(&format!(
            "Pinned to {} by {} {} ago: what the bucket names does not count until `deployex unpin {}`.",
            pin.release,
            pin.by,
            age(Some(pin.at), now),
            summary.name
        )));
    }
    if let Some(fault) = release_fault {
        text.push_str(&wrap(&format!("In the bucket since {}: {}", age(Some(fault.since), now), fault.text)));
    }
    for ghost in ghosts {
        text.push_str(&wrap(&format!("Ghosted: {}: {}", ghost.key, ghost.reason)));
        text.push_str(&evidence(ghost, now));
    }
    if let Some(rollout) = current_rollout {
        let summary = &rollout.summary;
        text.push_str(&wrap(&format!("Rollout {} to {}: {}", summary.id, summary.release, summary.phase)));
        for waiting in &summary.waiting {
            text.push_str(&wrap(&format!("  {waiting}")));
        }
    }
    if !slots.is_empty() {
        text.push('\n');
        text.push_str(&replicas(slots, paint, now));
    }
    text
}

/// Replicas of one application or on one node, then what is wrong with each.
pub(super) fn replicas(replicas: &[Replica], paint: Paint, now: Timestamp) -> String {
    let mut table =
        Table::new(&["REPLICA", "STATE", "VERSION", "UPTIME", "CRASHED", "MEMORY", "PORT", "PID"]);
    for replica in replicas {
        table.row(vec![
            place(&replica.node, replica.slot).into(),
            paint.state(replica.state.tone(), replica.state),
            or_dash(replica.running.as_ref().map(|it| &it.version)).into(),
            age(replica.started_at, now).into(),
            replica.crash_restarts.into(),
            or_dash(replica.usage.map(memory)).into(),
            or_dash(replica.ports.first().map(|it| it.port)).into(),
            or_dash(replica.pid).into(),
        ]);
    }
    let mut text = table.render();
    for replica in replicas {
        let at = format!("{} of {}", place(&replica.node, replica.slot), replica.application);
        if let Some(next) = next_start(replica, now) {
            text.push_str(&wrap(&format!("{at}: {next}")));
        }
        if let Some(fault) = &replica.fault {
            text.push_str(&wrap(&format!("{at}: {}", one_line(fault))));
        }
        if let Some(ErlangNode { name, because: Some(because), .. }) = &replica.erlang {
            text.push_str(&wrap(&format!(
                "{at}: its Erlang node {name} is not connected: {}",
                one_line(because)
            )));
        }
        if let Some(fault) = replica.vm.as_ref().and_then(|it| it.fault.as_ref()) {
            text.push_str(&wrap(&format!("{at}: {}", one_line(fault))));
        }
        for level in replica.vm.iter().flat_map(|it| &it.levels) {
            text.push_str(&wrap(&format!("{at}: {}", passed(level, now))));
        }
        if let Some(check) = &replica.failed_check {
            text.push_str(&wrap(&format!("{at}: {}", failed_check(check, now))));
        }
        if let Some(upgrade) = &replica.upgrade {
            text.push_str(&wrap(&format!("{at}: {}", one_line(&upgrade.sentence()))));
        }
        if let Some(waits) = replica.waits_for_a_start() {
            text.push_str(&wrap(&format!("{at}: {}", one_line(&waits))));
        }
    }
    text.push_str(&how_they_are_connected(replicas));
    text.push_str(&what_they_run_on(replicas));
    text.push_str(&where_they_are_reached(replicas));
    text.push_str(&how_they_talk(replicas));
    text
}

/// Whether those that are to be connected to each other are; of each that is not, whom it misses.
fn how_they_are_connected(replicas: &[Replica]) -> String {
    let meshes: Vec<_> = replicas
        .iter()
        .filter_map(|it| Some((it, it.erlang.as_ref()?.mesh.as_ref()?)))
        .filter(|(_, mesh)| !(mesh.connected.is_empty() && mesh.missed.is_empty()))
        .collect();
    let (whole, split): (Vec<_>, Vec<_>) = meshes.into_iter().partition(|(_, mesh)| mesh.missed.is_empty());
    let mut text = String::new();
    if !whole.is_empty() {
        let all = if split.is_empty() { "each" } else { "the others each" };
        let sentence = match whole.as_slice() {
            [(replica, mesh)] if !split.is_empty() => {
                let at = place(&replica.node, replica.slot);
                format!("{at}: connected to all its siblings, {} Erlang nodes", mesh.connected.len())
            }
            _ => format!("Erlang nodes: {} of them, {all} connected to all its siblings", whole.len()),
        };
        text.push_str(&wrap(&sentence));
    }
    for (replica, mesh) in split {
        let at = format!("{} of {}", place(&replica.node, replica.slot), replica.application);
        for missed in &mesh.missed {
            let because = missed.because.as_ref().map(|it| format!(": {}", one_line(it))).unwrap_or_default();
            let sentence = format!("{at}: its Erlang node is not connected to {}{because}", missed.name);
            text.push_str(&wrap(&sentence));
        }
    }
    text
}

/// That names are not verified is nothing to be found out by looking at a folder.
fn how_they_talk(replicas: &[Replica]) -> String {
    let is_shared = |it: &&Replica| it.erlang.as_ref().is_some_and(|it| it.tls.as_deref() == Some("shared"));
    let places: Vec<_> = replicas.iter().filter(is_shared).map(|it| place(&it.node, it.slot)).collect();
    if places.is_empty() {
        return String::new();
    }
    wrap(&format!(
        "{}: TLS between Erlang nodes, with the one certificate of the host: that its authority signed the other's is \
         verified, the name in it is not",
        places.join(", ")
    ))
}

fn passed(level: &VmLevel, now: Timestamp) -> String {
    let does = match level.level {
        HostLevel::Exceeded => "it is restarted when it is its turn",
        HostLevel::Warning | HostLevel::Normal => "that is warned of",
    };
    format!("passed a limit {} ago, {}: {does}", age(Some(level.since), now), level.sentence())
}

/// Once for all that run on the same.
fn what_they_run_on(replicas: &[Replica]) -> String {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for replica in replicas {
        if let Some(kind) = replica.vm.as_ref().and_then(Vm::runs_on) {
            kinds.entry(kind).or_default().push(place(&replica.node, replica.slot));
        }
    }
    let is_one = kinds.len() == 1;
    let line = |(kind, places): (String, Vec<String>)| match is_one {
        true => wrap(&format!("On {}", one_line(&kind))),
        false => wrap(&format!("{} on {}", places.join(", "), one_line(&kind))),
    };
    kinds.into_iter().map(line).collect()
}

/// Where their Phoenix endpoints say that they are reached, mostly all at the same address.
fn where_they_are_reached(replicas: &[Replica]) -> String {
    let urls: BTreeSet<String> = replicas
        .iter()
        .filter_map(|it| it.vm.as_ref())
        .flat_map(|vm| &vm.urls)
        .map(|it| one_line(it))
        .collect();
    if urls.is_empty() {
        return String::new();
    }
    wrap(&format!("At {}", urls.into_iter().collect::<Vec<_>>().join(", ")))
}

pub(super) fn failed_check(check: &FailedCheck, now: Timestamp) -> String {
    let list = match check.list {
        ProbeList::Ready => "ready",
        ProbeList::Live => "live",
    };
    let often = match check.in_a_row {
        0 => "it has passed since".to_owned(),
        times => format!("{times} in a row"),
    };
    format!("{list} check failed {} ago, {often}: {}", age(Some(check.at), now), check.sentence())
}

/// And how much of it the replica may use, where that is bounded.
fn memory(usage: Usage) -> String {
    let used = bytes(usage.memory_bytes);
    usage.memory_limit_bytes.map_or_else(|| used.clone(), |limit| format!("{used} of {}", bytes(limit)))
}

/// Of one that crashed and waits: why it ended, and how long it still waits.
fn next_start(replica: &Replica, now: Timestamp) -> Option<String> {
    let at = replica.next_start_at.filter(|_| replica.state == SlotState::BackingOff)?;
    let ended = match &replica.last_exit {
        Some(exit) => format!("ended with {}, ", exit.cause),
        None => String::new(),
    };
    let seconds = at.0.saturating_sub(now.0).div_ceil(1_000);
    Some(format!("{ended}next start in {seconds} s"))
}

#[cfg(test)]
pub(super) mod tests {
    use proto::apps::{Pin, PortBase, Settings};
    use proto::ids::{Digest, ReleaseKey};
    use proto::releases::Ghost;
    use proto::replicas::{PortInUse, Upgrade, UpgradeStep};
    use proto::state::{Language, Strategy, Tone, UpgradeState, VmFigure};

    use super::*;

    pub(in crate::cli) fn release(version: &str) -> ReleaseKey {
        ReleaseKey { version: version.parse().unwrap(), sha256: Digest([0xab; 32]) }
    }

    pub(in crate::cli) fn healthy() -> ApplicationSummary {
        ApplicationSummary {
            name: "myapp".parse().unwrap(),
            language: Language::Elixir,
            tone: Tone::Ok,
            sentence: "3 of 3 replicas are stable".to_owned(),
            needs_attention: false,
            in_force: Some(release("2.4.1")),
            in_force_since: Some(Timestamp(100_000)),
            wanted: Some(release("2.4.1")),
            replicas_wanted: 3,
            replicas_ready: 3,
            rollout: None,
            ghosted: 0,
            replicas: vec![],
        }
    }

    pub(in crate::cli) fn failing() -> ApplicationSummary {
        ApplicationSummary {
            name: "a-name-as-long-as-names-may-be-which-is-sixty-four-characters-xx".parse().unwrap(),
            language: Language::Gleam,
            tone: Tone::Bad,
            sentence:
                "current.json is no JSON: expected a comma at line 3; 0.9.0 stays in force until it is mended"
                    .to_owned(),
            needs_attention: true,
            in_force: None,
            replicas_ready: 0,
            ..healthy()
        }
    }

    pub(in crate::cli) fn replica() -> Replica {
        Replica {
            application: "myapp".parse().unwrap(),
            node: "web-1".parse().unwrap(),
            slot: "1".parse().unwrap(),
            state: SlotState::BackingOff,
            running: Some(release("2.4.1")),
            assigned: Some(release("2.4.1")),
            pid: None,
            started_at: Some(Timestamp(140_000)),
            ports: vec![PortInUse { key: "PORT".to_owned(), port: 4000 }],
            crash_restarts: 3,
            forced_restarts: 0,
            crashes_since_deploy: 1,
            last_exit: None,
            failed_check: Some(FailedCheck {
                list: ProbeList::Ready,
                asked: "GET /health on port 4000".to_owned(),
                outcome: "answered 503".to_owned(),
                body: "database down\n".to_owned(),
                at: Timestamp(195_000),
                in_a_row: 7,
                log_tail: "[error] no database\n".to_owned(),
            }),
            next_start_at: Some(Timestamp(211_001)),
            fault: Some("it crashed 3 times in 2 minutes, with signal 9 (SIGKILL)".to_owned()),
            staging: None,
            pre_commands: None,
            usage: Some(Usage {
                cpu_percent: 1.5,
                memory_bytes: 104_857_600,
                pids: Some(31),
                memory_limit_bytes: Some(2 << 30),
            }),
            erlang: Some(ErlangNode {
                name: "myapp-1@web-1".to_owned(),
                connected_since: None,
                kind: Some("cookie".to_owned()),
                because: Some("the node does not accept our cookie".to_owned()),
                tls: Some("shared".to_owned()),
                mesh: None,
            }),
            upgrade: Some(Upgrade {
                from: "1.1.0".parse().unwrap(),
                to: "1.2.0".parse().unwrap(),
                state: UpgradeState::Running,
                done: vec![UpgradeStep { step: "lay".to_owned(), took_ms: 41 }],
                step: Some("unpack".to_owned()),
                step_since: None,
                because: None,
                spoiled: false,
                finished_at: None,
            }),
            vm: Some(Vm {
                otp: Some("25".to_owned()),
                erts: Some("13.1.5".to_owned()),
                application: Some("2.4.1".to_owned()),
                elixir: Some("1.14.0".to_owned()),
                fault: Some("its figures cannot be read: no answer within 5000 ms".to_owned()),
                levels: vec![VmLevel {
                    figure: VmFigure::Atom,
                    level: HostLevel::Exceeded,
                    count: 958_399,
                    limit: 1_048_576,
                    since: Timestamp(170_000),
                }],
                ..Vm::default()
            }),
            waiting_settings: vec!["env[KEY]".into()],
            reported_at: Some(Timestamp(199_000)),
        }
    }

    #[test]
    fn an_application_shows_its_replicas_and_what_is_wrong_with_them() {
        let application = Application {
            summary: healthy(),
            settings: Settings {
                replicas_per_node: 3,
                strategy: Strategy::StartFirst,
                stable_after_ms: 30_000,
                rollback_timeout_ms: 600_000,
                ports: vec![PortBase { key: "PORT".to_owned(), base: 4000 }],
                run_as: "deployex".to_owned(),
                nodes: vec![],
                env_keys: vec![],
            },
            release_fault: None,
            slots: vec![replica()],
            current_rollout: None,
            ghosts: vec![Ghost {
                key: release("2.5.0"),
                at: Timestamp(0),
                reason:
                    "slot 4 on web-1 was not stable within 10 min (GET /health on port 4003 answered 503)"
                        .to_owned(),
                node: Some("web-1".parse().unwrap()),
                slot: Some(proto::ids::Slot::new(4).unwrap()),
                failed_check: None,
                last_exit: None,
                fault: None,
                log_tail: Some("[error] no database\n".to_owned()),
            }],
            pinned: Some(Pin { release: release("2.4.1"), by: "ann".to_owned(), at: Timestamp(80_000) }),
            rolls_back_to: Some(release("2.4.0")),
        };
        insta::assert_snapshot!(render(&application, Paint { on: false }, Timestamp(200_000)));
    }
}
