//! What the agent knows of a replica's VM: how it is connected to it, what it runs on, and how it went over the last hour.

use proto::replicas::{ErlangNode, Mesh, Missed, Replica, Vm, VmLevel};
use proto::state::{HostLevel, Tone};
use yew::{Html, Properties, component, html};

use crate::client::use_vm_history;
use crate::components::notice::shown;
use crate::components::time::{Ago, TimeOfDay};
use crate::pages::vm_charts::VmCharts;
use crate::shared::Shared;
use crate::words;

/// As `deployex app show` says it.
const SHARED_CERTIFICATE: &str = "It talks TLS with other Erlang nodes, with the one certificate of its host: that its authority \
    signed the other's is verified, the name in it is not.";

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) replica: Shared<Replica>,
}

/// One paragraph each: of the connection, of versions, and of what is wrong.
#[component]
pub(super) fn About(props: &Props) -> Html {
    let it = &props.replica;
    let vm = it.vm.as_ref();
    html! {
        <div class="vm">
            <p data-vm="connection">{ match &it.erlang {
                Some(node) => connection(node),
                None => html! { words::no_connection(it) },
            } }</p>
            if let Some(node) = &it.erlang {
                if node.tls.as_deref() == Some("shared") { <p data-vm="tls">{ SHARED_CERTIFICATE }</p> }
                if let Some(mesh) = &node.mesh { { meshed(mesh) } }
            }
            if let Some(vm) = vm { { at(&vm.urls) } }
            if let Some(on) = vm.and_then(Vm::runs_on) { <p data-vm="versions">{ format!("On {on}") }</p> }
            if let Some(fault) = vm.and_then(|it| it.fault.as_ref()) { <p class="trouble">{ words::sentence(fault) }</p> }
            { for vm.iter().flat_map(|it| &it.levels).map(passed) }
        </div>
    }
}

fn connection(node: &ErlangNode) -> Html {
    let name = html! { <code>{ &node.name }</code> };
    match (node.connected_since, &node.because) {
        (Some(at), _) => {
            html! { <>{ "Its agent is connected to its Erlang node " }{ name }{ " since " }<TimeOfDay {at} /></> }
        }
        (None, Some(because)) => {
            html! { <>{ "Its Erlang node " }{ name }{ " is not connected: " }{ words::full_stop(because) }</> }
        }
        (None, None) => {
            html! { <>{ "Its agent has not connected to its Erlang node " }{ name }{ " yet." }</> }
        }
    }
}

/// How it stands with its siblings; nothing where it has none.
fn meshed(mesh: &Mesh) -> Html {
    if !mesh.missed.is_empty() {
        return mesh.missed.iter().map(missed).collect();
    }
    match mesh.connected.len() {
        0 => html! {},
        1 => html! { <p data-vm="mesh">{ "It is connected to its sibling." }</p> },
        count => html! { <p data-vm="mesh">{ format!("It is connected to all its {count} siblings.") }</p> },
    }
}

fn missed(sibling: &Missed) -> Html {
    let because =
        sibling.because.as_deref().map_or_else(|| ".".to_owned(), |it| format!(": {}", words::full_stop(it)));
    html! {
        <p data-vm="mesh" data-tone={Tone::Waiting.word()}>
            { "It is not connected to its sibling " }<code>{ &sibling.name }</code>{ because }
        </p>
    }
}

/// Where its endpoints say that they are reached.
fn at(urls: &[String]) -> Html {
    let link = |(nth, url): (usize, &String)| {
        html! { <>{ if nth == 0 { "At " } else { ", " } }<a href={url.clone()} target="_blank" rel="noreferrer">{ url }</a></> }
    };
    match urls {
        [] => html! {},
        urls => html! { <p data-vm="urls">{ for urls.iter().enumerate().map(link) }</p> },
    }
}

fn passed(level: &VmLevel) -> Html {
    let (tone, does) = match level.level {
        HostLevel::Exceeded => (Tone::Bad, "it is restarted when it is its turn."),
        HostLevel::Warning | HostLevel::Normal => (Tone::Waiting, "that is warned of."),
    };
    html! { <p data-tone={tone.word()}>{ "It passed a limit " }<Ago at={level.since} />{ format!(", {}: {does}", level.sentence()) }</p> }
}

/// Read from when it is there until it is gone.
#[component]
pub(super) fn LastHour(props: &Props) -> Html {
    let it = &props.replica;
    let look = use_vm_history(format!("/replicas/{}/{}/{}/metrics", it.node, it.application, it.slot));
    html! {
        <section class="vm-hour" aria-label="The last hour of its VM">
            <header class="section-head"><h2>{ "The last hour of its VM" }</h2></header>
            { shown(&look, "hour of its VM", |history| html! { <VmCharts history={history.clone()} /> }) }
        </section>
    }
}
