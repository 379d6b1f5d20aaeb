//! Replicas as rows that open: of an application, or of a node.

mod history;
mod vm;

use std::cmp::Ordering;

use proto::replicas::{PreCommands, Replica};
use yew::{Callback, Html, Properties, component, html, use_callback, use_state_eq};

use super::restart::RestartDialog;
use crate::components::dialog::use_dialog;
use crate::components::evidence;
use crate::components::state::slot;
use crate::components::table::{Column, Kind, Table};
use crate::components::time::{Ago, Elapsed};
use crate::format;
use crate::route::{Route, Tab};
use crate::session::use_account;
use crate::shared::Shared;
use crate::words;
use history::ReplicaHistory;

const NODE: Column<Replica> = Column {
    title: "Node",
    class: "",
    cell: |it| html! { <a href={Route::node(&it.node).path()}>{ it.node.to_string() }</a> },
    text: |it| it.node.to_string(),
    compare: |a, b| (&a.node, a.slot).cmp(&(&b.node, b.slot)),
};
const APPLICATION: Column<Replica> = Column {
    title: "Application",
    class: "",
    cell: |it| html! { <a href={Route::application(&it.application).path()}>{ it.application.to_string() }</a> },
    text: |it| it.application.to_string(),
    compare: |a, b| (&a.application, a.slot).cmp(&(&b.application, b.slot)),
};
const SLOT: Column<Replica> = Column {
    title: "Slot",
    class: "number",
    cell: |it| html! { it.slot.to_string() },
    text: |it| it.slot.to_string(),
    compare: |a, b| a.slot.cmp(&b.slot),
};
const STATE: Column<Replica> = Column {
    title: "State",
    class: "",
    cell: |it| slot(it.state),
    text: |it| words::state(it.state).to_owned(),
    compare: |a, b| a.state.cmp(&b.state),
};
const VERSION: Column<Replica> = Column {
    title: "Version",
    class: "",
    cell: version,
    text: |it| it.running.as_ref().map(|key| key.version.to_string()).unwrap_or_default(),
    compare: |a, b| a.running.cmp(&b.running),
};
const UPTIME: Column<Replica> = Column {
    title: "Uptime",
    class: "number middle",
    cell: |it| match (it.started_at, it.next_start_at) {
        (_, Some(at)) => html! { <><span class="dim">{ "next start " }</span><Ago {at} /></> },
        (Some(at), None) => html! { <Elapsed {at} /> },
        (None, None) => html! {},
    },
    text: |_| String::new(),
    compare: |a, b| b.started_at.cmp(&a.started_at),
};
const RESTARTS: Column<Replica> = Column {
    title: "Restarts",
    class: "number wide",
    cell: |it| {
        let title = format!("{} after a crash, {} on request", it.crash_restarts, it.forced_restarts);
        html! { <span {title} data-bad={(it.crash_restarts > 0).to_string()}>{ format!("{} / {}", it.crash_restarts, it.forced_restarts) }</span> }
    },
    text: |_| String::new(),
    compare: |a, b| (a.crash_restarts, a.forced_restarts).cmp(&(b.crash_restarts, b.forced_restarts)),
};
const MEMORY: Column<Replica> = Column {
    title: "Memory",
    class: "number middle",
    cell: |it| match it.usage {
        Some(usage) => {
            let limit = usage.memory_limit_bytes.map(|it| format!("of {}", format::bytes(it)));
            html! { <span title={limit}>{ format::bytes(usage.memory_bytes) }</span> }
        }
        None => html! {},
    },
    text: |_| String::new(),
    compare: |a, b| memory(a).cmp(&memory(b)),
};
const CPU: Column<Replica> = Column {
    title: "CPU",
    class: "number wide",
    cell: |it| match it.usage {
        Some(usage) => html! { format::percent(usage.cpu_percent) },
        None => html! {},
    },
    text: |_| String::new(),
    compare: |a, b| cpu(a).partial_cmp(&cpu(b)).unwrap_or(Ordering::Equal),
};
const PORT: Column<Replica> = Column {
    title: "Port",
    class: "number middle",
    cell: |it| {
        let all = it.ports.iter().map(|port| format!("{}={}", port.key, port.port)).collect::<Vec<_>>();
        let shown = it.ports.first().map(|port| port.port.to_string()).unwrap_or_default();
        html! { <span title={all.join(", ")}>{ shown }</span> }
    },
    text: |it| it.ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(" "),
    compare: |a, b| a.ports.first().map(|it| it.port).cmp(&b.ports.first().map(|it| it.port)),
};

const OF_APPLICATION: Kind<Replica> = Kind {
    id: "replicas",
    label: "Replicas",
    columns: &[NODE, SLOT, STATE, VERSION, UPTIME, RESTARTS, MEMORY, CPU, PORT],
    name,
    href: None,
};
const OF_NODE: Kind<Replica> = Kind {
    columns: &[APPLICATION, SLOT, STATE, VERSION, UPTIME, RESTARTS, MEMORY, CPU, PORT],
    ..OF_APPLICATION
};

fn memory(replica: &Replica) -> u64 {
    replica.usage.map_or(0, |it| it.memory_bytes)
}

fn cpu(replica: &Replica) -> f64 {
    replica.usage.map_or(0.0, |it| it.cpu_percent)
}

/// What runs, and where it is told to go if that is elsewhere.
fn version(it: &Replica) -> Html {
    let running = it.running.as_ref().map(|key| {
        html! { <code data-version={key.version.to_string()}>{ key.version.to_string() }</code> }
    });
    let next = it.assigned.as_ref().filter(|assigned| it.running.as_ref() != Some(assigned)).map(|key| {
        html! { <span class="dim" title="what it was told to run">{ " → " }{ key.version.to_string() }</span> }
    });
    html! { <>{ running }{ next }</> }
}

fn name(it: &Replica) -> String {
    format!("{}/{}/{}", it.node, it.application, it.slot)
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Of {
    Application,
    Node,
}

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) of: Of,
    pub(super) slots: Vec<Shared<Replica>>,
    /// The row that is open at first.
    #[prop_or_default]
    pub(super) open: Option<String>,
}

#[component]
pub(super) fn ReplicaTable(props: &Props) -> Html {
    let kind = match props.of {
        Of::Application => &OF_APPLICATION,
        Of::Node => &OF_NODE,
    };
    let detail: Callback<Shared<Replica>, Html> =
        use_callback((), |replica: Shared<Replica>, ()| html! { <Detail {replica} /> });
    html! {
        <Table<Replica> {kind} rows={props.slots.clone()} {detail} open={props.open.clone()} />
    }
}

#[derive(Properties, PartialEq)]
struct DetailProps {
    replica: Shared<Replica>,
}

/// What a row shows when it is opened.
#[component]
fn Detail(props: &DetailProps) -> Html {
    let it = &props.replica;
    let account = use_account();
    let restart = use_dialog();
    let past = use_state_eq(|| false);
    let toggle = {
        let past = past.clone();
        Callback::from(move |_| past.set(!*past))
    };
    let fact = |name: &'static str, value: Html| html! { <div><dt>{ name }</dt><dd>{ value }</dd></div> };
    let log = format!("{}?replica={}/{}", Route::tab(&it.application, Tab::Logs).path(), it.node, it.slot);
    html! {
        <div class="replica" data-detail={name(it)}>
            if let Some(trouble) = words::trouble(it) { <p class="trouble">{ trouble }</p> }
            <dl class="facts">
                if let Some(pid) = it.pid { { fact("Process", html! { pid }) } }
                if let Some(at) = it.started_at { { fact("Started", html! { <Ago {at} /> }) } }
                { for it.ports.iter().map(|port| fact("Port", html! { <code>{ format!("{}={}", port.key, port.port) }</code> })) }
                { fact("Crashes since deployed", html! { it.crashes_since_deploy }) }
                if let Some(key) = &it.running { { fact("Release", html! { <code>{ key.to_string() }</code> }) } }
                if let Some(limit) = it.usage.and_then(|it| it.memory_limit_bytes) { { fact("Memory limit", html! { format::bytes(limit) }) } }
                if let Some(pids) = it.usage.and_then(|it| it.pids) { { fact("Processes and threads", html! { pids }) } }
                if let Some(at) = it.reported_at { { fact("Heard", html! { <Ago {at} /> }) } }
            </dl>
            <vm::About replica={it.clone()} />
            if let Some(staging) = &it.staging { <p class="staging">{ words::staging(staging) }</p> }
            if let Some(upgrade) = &it.upgrade {
                <p class={if upgrade.because.is_some() { "trouble" } else { "staging" }}>{ words::sentence(&upgrade.sentence()) }</p>
            }
            if let Some(waits) = it.waits_for_a_start() { <p class="staging">{ words::sentence(&waits) }</p> }
            { pre_commands(it.pre_commands.as_ref()) }
            { for it.failed_check.iter().map(|check| evidence::failed_check(check, true)) }
            { for it.last_exit.iter().map(|exit| evidence::last_exit(exit, true)) }
            if *past { <ReplicaHistory replica={it.clone()} /> }
            <p class="row-actions">
                <button class="replica-history" aria-expanded={past.to_string()} onclick={toggle}>{ if *past { "Hide its history" } else { "Its history" } }</button>
                <a class="button" href={log}>{ "Follow its log" }</a>
                if account.may_operate() && it.assigned.is_some() {
                    <button class="restart-replica" onclick={restart.open}>{ "Restart…" }</button>
                }
            </p>
            <vm::LastHour replica={it.clone()} />
            if restart.is_open {
                <RestartDialog what={format!("slot {} on {}", it.slot, it.node)} onclose={restart.close}
                    path={format!("/replicas/{}/{}/{}/restart", it.node, it.application, it.slot)}
                    consequence="It is stopped and started anew at once, and serves nobody until it is ready." />
            }
        </div>
    }
}

fn pre_commands(state: Option<&PreCommands>) -> Html {
    match state {
        Some(PreCommands::Failed { error, output }) => html! {
            <section class="exit" aria-label="Pre-commands">
                <p>{ "Pre-commands failed: " }{ words::full_stop(error) }</p>
                if !output.is_empty() { <pre tabindex="0">{ output }</pre> }
            </section>
        },
        Some(PreCommands::Running) => html! { <p>{ "Its pre-commands run." }</p> },
        Some(PreCommands::Passed { .. }) | None => html! {},
    }
}
