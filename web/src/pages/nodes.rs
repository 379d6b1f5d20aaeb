//! All nodes, and how a host becomes one.

mod token;

use std::cmp::Ordering;

use proto::nodes::NodeSummary;
use proto::state::Service;
use yew::{Callback, Html, component, html, use_effect_with, use_state_eq};

use super::View;
use crate::components::meter::Meter;
use crate::components::notice::{Command, Empty, shown};
use crate::components::state::{label, liveness, service};
use crate::components::table::{Column, Kind, Table};
use crate::components::time::Ago;
use crate::format::share;
use crate::labels;
use crate::live::use_store;
use crate::route::Route;
use crate::router::use_query;
use crate::session::use_account;
use token::TokenDialog;

const COLUMNS: &[Column<NodeSummary>] = &[
    Column {
        title: "Node",
        class: "",
        cell: |it| html! { <a href={Route::node(&it.name).path()}>{ it.name.to_string() }</a> },
        text: |it| it.name.to_string(),
        compare: |a, b| a.name.cmp(&b.name),
    },
    Column {
        title: "Link",
        class: "",
        cell: |it| html! { <>{ liveness(it.liveness) }{ service(it.service) }</> },
        text: |it| match it.service {
            Service::Open => it.liveness.word().to_owned(),
            service => format!("{} {service}", it.liveness),
        },
        compare: |a, b| (a.liveness, a.service).cmp(&(b.liveness, b.service)),
    },
    Column {
        title: "Ready",
        class: "number",
        cell: |it| html! { format!("{} of {}", it.replicas_ready, it.replicas) },
        text: |_| String::new(),
        compare: |a, b| a.replicas.cmp(&b.replicas),
    },
    Column {
        title: "CPU",
        class: "meters middle",
        cell: |it| match it.usage {
            Some(usage) => html! { <Meter percent={usage.cpu_percent} label="CPU" /> },
            None => html! {},
        },
        text: |_| String::new(),
        compare: |a, b| by(cpu(a), cpu(b)),
    },
    Column {
        title: "Memory",
        class: "meters middle",
        cell: |it| match it.usage {
            Some(usage) => {
                html! { <Meter percent={share(usage.memory_used_bytes, usage.memory_total_bytes)} label="Memory" /> }
            }
            None => html! {},
        },
        text: |_| String::new(),
        compare: |a, b| by(memory(a), memory(b)),
    },
    Column {
        title: "Disk",
        class: "meters wide",
        cell: |it| match it.usage {
            Some(usage) => {
                html! { <Meter percent={share(usage.disk_used_bytes, usage.disk_total_bytes)} label="Disk" /> }
            }
            None => html! {},
        },
        text: |_| String::new(),
        compare: |a, b| by(disk(a), disk(b)),
    },
    Column {
        title: "Labels",
        class: "grow wide",
        cell: |it| html! { <span class="clip">{ for it.labels.iter().map(label) }</span> },
        text: |it| labels::said(&it.labels),
        compare: |a, b| a.labels.cmp(&b.labels),
    },
    Column {
        title: "Agent",
        class: "wide",
        cell: |it| html! { &it.agent_version },
        text: |it| it.agent_version.clone(),
        compare: |a, b| a.agent_version.cmp(&b.agent_version),
    },
    Column {
        title: "Heard",
        class: "number wide",
        cell: |it| match it.heard_at {
            Some(at) => html! { <Ago {at} /> },
            None => html! { <span class="dim">{ "not yet" }</span> },
        },
        text: |_| String::new(),
        compare: |a, b| a.heard_at.cmp(&b.heard_at),
    },
];

const KIND: Kind<NodeSummary> = Kind {
    id: "nodes",
    label: "Nodes",
    columns: COLUMNS,
    name: |it| it.name.to_string(),
    href: Some(|it| Route::node(&it.name).path()),
};

fn cpu(node: &NodeSummary) -> f64 {
    node.usage.map_or(-1.0, |it| it.cpu_percent)
}

fn memory(node: &NodeSummary) -> f64 {
    node.usage.map_or(-1.0, |it| share(it.memory_used_bytes, it.memory_total_bytes))
}

fn disk(node: &NodeSummary) -> f64 {
    node.usage.map_or(-1.0, |it| share(it.disk_used_bytes, it.disk_total_bytes))
}

fn by(a: f64, b: f64) -> Ordering {
    a.total_cmp(&b)
}

#[component]
pub fn NodesPage() -> Html {
    let account = use_account();
    let store = use_store();
    let adding = use_state_eq(|| false);
    let query = use_query();
    {
        let adding = adding.setter();
        let asked = query == "?add" && account.may_administer();
        use_effect_with(asked, move |asked| adding.set(*asked));
    }
    let (open, close) = (adding.clone(), adding.clone());
    let open = Callback::from(move |_| open.set(true));
    let close = Callback::from(move |()| close.set(false));
    let add = |class: &'static str| match account.may_administer() {
        true => html! { <button id="add-node" {class} onclick={open.clone()}>{ "Add a node…" }</button> },
        false => html! {},
    };
    shown(&store.fleet, "fleet", |fleet| {
        let none = fleet.nodes.is_empty();
        html! {
            <View id="nodes" title="Nodes" actions={if none { html! {} } else { add("") }}>
                if none {
                    <Empty title="Each host appears here once its agent has joined.">
                        <p>{ "Make a join token on the control plane's host, and use it on the host that is to run replicas:" }</p>
                        <Command text="deployex node token" />
                        <Command text="deployex-agent enrol --control-plane https://HOST:5002 --token TOKEN" />
                        <Command text="deployex-agent run" />
                        { add("primary") }
                    </Empty>
                } else {
                    <Table<NodeSummary> kind={&KIND} rows={fleet.nodes.clone()} />
                }
                if *adding { <TokenDialog onclose={close} /> }
            </View>
        }
    })
}
