//! `deployex node …`: hosts that run an agent, and the tokens by which a host joins.

mod label;
mod service;

use clap::Subcommand;
use proto::ids::NodeName;
use proto::nodes::{
    HostDetail, HostLimit, HostUsage, JoinToken, NewJoinToken, Node as NodeView, NodeRemoved, NodeSummary,
};
use proto::state::{HostLevel, Liveness, Service, Tone};
use proto::timestamp::Timestamp;

use super::client::Client;
use super::output::{Cell, Out, Paint, Table, age, bytes, duration, facts, or_dash, wrap};
use super::{CliError, app};

#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// List the nodes.
    #[command(after_help = "Example:\n  deployex node list")]
    List,
    /// Show one node with its replicas.
    #[command(after_help = "Example:\n  deployex node show web-1")]
    Show {
        /// The node's name.
        node: NodeName,
    },
    Label(label::Label),
    Cordon(service::Cordon),
    Uncordon(service::Uncordon),
    Drain(service::Drain),
    /// Revoke a node's certificate and end its session. What runs on the host goes on running.
    #[command(after_help = "Example:\n  deployex node remove web-1")]
    Remove {
        /// The node's name.
        node: NodeName,
    },
    /// Make a token with which a host joins, and print the command to type there.
    #[command(after_help = "Example:\n  deployex node token --uses 5 --lifetime-hours 24 --label role=web")]
    Token {
        /// How many hosts may join with it.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        uses: u32,
        /// How long it is good for.
        #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=720))]
        lifetime_hours: u64,
        /// A label of every host that joins with it; may be given more than once.
        #[arg(long = "label", value_name = "K=V", value_parser = label::pair)]
        labels: Vec<(String, String)>,
    },
}

impl Node {
    pub(super) async fn run(self, client: &Client, out: &mut Out) -> Result<(), CliError> {
        let (paint, now) = (out.paint, out.now());
        match self {
            Self::List => {
                let nodes: Vec<NodeSummary> = client.get_all("/nodes").await?;
                out.show(&nodes, |nodes| match nodes.is_empty() {
                    true => "No host has joined: `deployex node token` prints the command to type on one.\n"
                        .to_owned(),
                    false => table(nodes, paint, now),
                })
            }
            Self::Show { node } => {
                let node: NodeView = client.get(&format!("/nodes/{node}")).await?;
                out.show(&node, |node| render(node, paint, now))
            }
            Self::Remove { node } => {
                let removed: NodeRemoved = client.delete(&format!("/nodes/{node}")).await?;
                out.show(&removed, |removed| wrap(&said_of_removal(removed)))
            }
            Self::Label(label) => label.run(client, out).await,
            Self::Cordon(cordon) => cordon.run(client, out).await,
            Self::Uncordon(uncordon) => uncordon.run(client, out).await,
            Self::Drain(drain) => drain.run(client, out).await,
            Self::Token { uses, lifetime_hours, labels } => {
                let wish = NewJoinToken {
                    uses: Some(uses),
                    lifetime_ms: Some(lifetime_hours * 3_600_000),
                    labels: labels.into_iter().collect(),
                };
                let token: JoinToken = client.post("/join-tokens", &wish).await?;
                out.show(&token, |token| render_token(token, now))
            }
        }
    }
}

/// Whether it is held by a session, and whether replicas are kept away from it.
fn state(node: &NodeSummary, paint: Paint) -> Cell {
    let tone = match (node.liveness, node.service) {
        (Liveness::Up, Service::Open) => Tone::Ok,
        (Liveness::Up, Service::Draining) => Tone::Moving,
        (Liveness::Up, Service::Cordoned) | (Liveness::Suspect, _) => Tone::Waiting,
        (Liveness::Lost, _) => Tone::Bad,
    };
    match node.service {
        Service::Open => paint.state(tone, node.liveness),
        service => paint.state(tone, format!("{}, {service}", node.liveness)),
    }
}

pub(super) fn table(nodes: &[NodeSummary], paint: Paint, now: Timestamp) -> String {
    let mut table =
        Table::new(&["NODE", "STATE", "HEARD", "READY", "CPU", "MEMORY", "DISK", "AGENT", "LABELS"]);
    for node in nodes {
        let used = |used: u64, total: u64| format!("{}/{}", bytes(used), bytes(total));
        table.row(vec![
            (&node.name).into(),
            state(node, paint),
            age(node.heard_at, now).into(),
            format!("{}/{}", node.replicas_ready, node.replicas).into(),
            or_dash(node.usage.map(|it| format!("{:.0}%", it.cpu_percent))).into(),
            or_dash(node.usage.map(|it| used(it.memory_used_bytes, it.memory_total_bytes))).into(),
            or_dash(node.usage.map(|it| used(it.disk_used_bytes, it.disk_total_bytes))).into(),
            (&node.agent_version).into(),
            label::said(&node.labels).into(),
        ]);
    }
    table.render()
}

fn render(node: &NodeView, paint: Paint, now: Timestamp) -> String {
    let NodeView {
        summary,
        enrolled_at,
        certificate_expires_at,
        agent_started_at,
        clock_ahead_ms,
        vm_samples_dropped,
        inventory,
        host,
        limits,
        slots,
        holds: _,
        waiting,
    } = node;
    let mut text = table(std::slice::from_ref(summary), paint, now);
    text.push('\n');
    let mut lines = vec![
        ("id", summary.id.to_string()),
        ("labels", label::said(&summary.labels)),
        ("enrolled", enrolled_at.to_string()),
        ("certificate until", or_dash(*certificate_expires_at)),
        ("agent started", or_dash(*agent_started_at)),
        ("clock", or_dash(clock_ahead_ms.map(clock))),
    ];
    if *vm_samples_dropped > 0 {
        lines.push(("VM samples lost", vm_samples_dropped.to_string()));
    }
    if let Some(host) = inventory {
        lines.extend([
            ("host", format!("{}, {} {}, {}", host.hostname, host.os, host.kernel, host.arch)),
            ("size", format!("{} processors, {}", host.cpus, bytes(host.memory_bytes))),
            ("agent's user", host.user.clone()),
            ("Erlang on the host", or_dash(host.erl.as_ref())),
            ("limits", if host.limits.is_empty() { "none".to_owned() } else { host.limits.join(", ") }),
        ]);
        lines.extend(host.limits_fault.iter().map(|fault| ("", fault.clone())));
    }
    lines.extend(usage(summary.usage.as_ref(), host.as_ref()));
    text.push_str(&facts(&lines));
    text.extend(service::means(summary.service).map(wrap));
    for why in waiting {
        text.push_str(&wrap(&format!("Waiting: {why}")));
    }
    if !limits.is_empty() {
        text.push('\n');
        text.push_str(&limits_table(limits, paint, now));
    }
    if !slots.is_empty() {
        text.push('\n');
        text.push_str(&app::replicas(slots, paint, now));
    }
    text
}

/// Certificates count by it, and what people read of the host is dated by it.
fn clock(ahead_ms: i64) -> String {
    let by = duration(ahead_ms.unsigned_abs());
    match ahead_ms {
        -1_000..=1_000 => "right".to_owned(),
        -30_000..=30_000 => format!("{by} {} ours", if ahead_ms > 0 { "ahead of" } else { "behind" }),
        30_001.. => format!("{by} ahead of ours: set one of them right"),
        _ => format!("{by} behind ours: set one of them right"),
    }
}

fn usage(usage: Option<&HostUsage>, host: Option<&HostDetail>) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(HostUsage { load: [one, five, fifteen], uptime_ms, .. }) = usage {
        lines.push(("load", format!("{one:.2} {five:.2} {fifteen:.2} over 1, 5 and 15 minutes")));
        lines.push(("up for", duration(*uptime_ms)));
    }
    let Some(host) = host else { return lines };
    if !host.cores_percent.is_empty() {
        let cores = host.cores_percent.iter().map(|it| format!("{it:.0}%")).collect::<Vec<_>>().join(" ");
        lines.push(("each core", cores));
    }
    let available = bytes(host.memory_available_bytes);
    lines.push((
        "memory",
        match host.swap_total_bytes {
            0 => format!("{available} available, no swap"),
            total => format!(
                "{available} available, {} of {} swap used",
                bytes(host.swap_used_bytes),
                bytes(total)
            ),
        },
    ));
    lines.push((
        "pressure",
        match host.pressure {
            None => "this kernel does not say".to_owned(),
            Some(it) => format!(
                "waited in the last 10 s: CPU {:.1}%, memory {:.1}% (all {:.1}%), I/O {:.1}% (all {:.1}%)",
                it.cpu_some, it.memory_some, it.memory_full, it.io_some, it.io_full
            ),
        },
    ));
    let disk = (bytes(host.disk_available_bytes), per_second(host.disk_read), per_second(host.disk_write));
    lines.push(("disk", format!("{} available, {} read, {} written", disk.0, disk.1, disk.2)));
    let network = (per_second(host.network_received), per_second(host.network_sent));
    lines.push(("network", format!("{} received, {} sent", network.0, network.1)));
    lines
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are not negative")]
fn per_second(rate: f64) -> String {
    format!("{}/s", bytes(rate.max(0.0).round() as u64))
}

fn limits_table(limits: &[HostLimit], paint: Paint, now: Timestamp) -> String {
    let mut table = Table::new(&["LIMIT", "STATE", "NOW", "WARNS AT", "RESTARTS AT", "FOR"]);
    for limit in limits {
        let tone = match limit.level {
            HostLevel::Normal => Tone::Ok,
            HostLevel::Warning => Tone::Waiting,
            HostLevel::Exceeded => Tone::Bad,
        };
        table.row(vec![
            (&limit.kind).into(),
            paint.state(tone, limit.level),
            format!("{:.0}%", limit.percent).into(),
            format!("{}%", limit.warning_percent).into(),
            or_dash(limit.restart_percent.map(|it| format!("{it}%"))).into(),
            duration(now.0.saturating_sub(limit.since.0)).into(),
        ]);
    }
    let mut text = table.render();
    for limit in limits {
        text.push_str(
            &limit.sentence.as_ref().map(|it| wrap(&format!("{}: {it}", limit.kind))).unwrap_or_default(),
        );
    }
    text
}

fn said_of_removal(removed: &NodeRemoved) -> String {
    let NodeRemoved { node, replicas_left } = removed;
    match replicas_left {
        0 => format!("{node} is removed: its certificate is revoked and its session ended."),
        left => format!(
            "{node} is removed: its certificate is revoked and its session ended. {left} of its replicas go on running \
             there until the agent's service is stopped and its folder deleted on the host."
        ),
    }
}

fn render_token(token: &JoinToken, now: Timestamp) -> String {
    let hosts = if token.uses == 1 { "1 host".to_owned() } else { format!("{} hosts", token.uses) };
    let lifetime = duration(token.expires_at.0.saturating_sub(now.0));
    // The command is not wrapped: it is there to be copied.
    let note = token.note.as_ref().map(|note| format!("\n{}", wrap(note))).unwrap_or_default();
    let labelled = match token.labels.is_empty() {
        true => String::new(),
        false => format!(", labelled {}", label::said(&token.labels)),
    };
    format!(
        "Type this on the host, as root (good for {hosts}{labelled}, {lifetime}):\n\n  {}\n{note}",
        token.command
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proto::ids::NodeId;
    use proto::nodes::{Inventory, Pressure};

    use super::*;

    pub(in crate::cli) fn summary() -> NodeSummary {
        NodeSummary {
            id: NodeId(uuid::Uuid::nil()),
            name: "web-1".parse().unwrap(),
            liveness: Liveness::Up,
            labels: BTreeMap::from([("role".to_owned(), "web".to_owned())]),
            service: Service::Open,
            agent_version: "0.1.0".to_owned(),
            heard_at: Some(Timestamp(198_000)),
            replicas: 3,
            replicas_ready: 2,
            usage: Some(HostUsage {
                cpu_percent: 12.4,
                memory_used_bytes: 2 << 30,
                memory_total_bytes: 8 << 30,
                disk_used_bytes: 10 << 30,
                disk_total_bytes: 80 << 30,
                load: [0.1, 0.2, 0.3],
                uptime_ms: 86_400_000,
            }),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_node_shows_its_host_and_its_replicas() {
        let node = NodeView {
            summary: NodeSummary { service: Service::Draining, ..summary() },
            enrolled_at: Timestamp(1_000),
            certificate_expires_at: Some(Timestamp(2_592_000_000)),
            agent_started_at: Some(Timestamp(60_000)),
            clock_ahead_ms: Some(-12),
            vm_samples_dropped: 7,
            inventory: Some(Inventory {
                hostname: "web-1".to_owned(),
                os: "Debian GNU/Linux 12".to_owned(),
                kernel: "6.1.0".to_owned(),
                arch: "x86_64".to_owned(),
                cpus: 4,
                memory_bytes: 8 << 30,
                user: "root".to_owned(),
                erl: None,
                limits: vec!["cpu".to_owned()],
                limits_fault: Some("cgroup v2 has no controller for memory, pids".to_owned()),
            }),
            host: Some(HostDetail {
                cores_percent: vec![3.2, 40.0, 0.0, 6.6],
                memory_available_bytes: 6 << 30,
                swap_used_bytes: 0,
                swap_total_bytes: 0,
                disk_available_bytes: 66 << 30,
                disk_read: 0.0,
                disk_write: 123_456.0,
                network_received: 1_234.5,
                network_sent: 2_000_000.0,
                pressure: Some(Pressure { cpu_some: 1.25, ..Pressure::default() }),
            }),
            limits: vec![
                HostLimit {
                    kind: "memory".to_owned(),
                    percent: 91.2,
                    warning_percent: 75,
                    restart_percent: Some(90),
                    level: HostLevel::Exceeded,
                    since: Timestamp(80_000),
                    sentence: Some(
                        "slot 1 of myapp was restarted: the next restart is in 180 s at the earliest"
                            .to_owned(),
                    ),
                },
                HostLimit {
                    kind: "disk".to_owned(),
                    percent: 12.5,
                    warning_percent: 90,
                    restart_percent: None,
                    level: HostLevel::Normal,
                    since: Timestamp(0),
                    sentence: None,
                },
            ],
            slots: vec![app::tests::replica()],
            holds: vec![],
            waiting: vec!["myapp: slot 1 on web-1 is being stopped".to_owned()],
        };
        insta::assert_snapshot!(render(&node, Paint { on: false }, Timestamp(200_000)));
    }

    #[test]
    fn a_clock_that_is_wrong_is_said_to_be() {
        let said = [12, -4_000, 3_600_000, -3_600_000].map(clock);
        let wrong = ["1h ahead of ours: set one of them right", "1h behind ours: set one of them right"];
        assert_eq!(said, ["right", "4s behind ours", wrong[0], wrong[1]]);
    }

    #[test]
    fn removing_a_node_says_what_goes_on_there() {
        let removed = |replicas_left| NodeRemoved { node: "web-1".parse().unwrap(), replicas_left };
        assert!(said_of_removal(&removed(3)).contains("3 of its replicas go on running"));
        assert!(!said_of_removal(&removed(0)).contains("go on"));
    }
}
