//! One node: what it is, how full it is, what runs on it.

pub mod charts;
mod labels;
mod remove;
mod service;

use proto::ids::NodeName;
use proto::live::Topic;
use proto::nodes::{HostLimit, HostUsage, Inventory};
use proto::state::{HostLevel, Liveness, Tone};
use yew::{Html, Properties, component, html};

use super::View;
use super::replica_table::{Of, ReplicaTable};
use super::restart::RestartDialog;
use crate::components::dialog::use_dialog;
use crate::components::meter::Meter;
use crate::components::notice::{Banner, Empty, shown};
use crate::components::state::{label, liveness, service as service_badge};
use crate::components::time::Ago;
use crate::format::{bytes, duration, share};
use crate::live::store::NodeNow;
use crate::live::{use_store, use_topic};
use crate::route::Route;
use crate::session::use_account;
use crate::words;
use charts::HostCharts;
use labels::LabelsDialog;
use remove::RemoveDialog;
use service::ServiceButtons;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub name: NodeName,
}

#[component]
pub fn NodePage(props: &Props) -> Html {
    let Props { name } = props;
    use_topic(Topic::Node { name: name.clone() });
    let account = use_account();
    let store = use_store();
    let remove = use_dialog();
    let restart = use_dialog();
    let restart_agent = use_dialog();
    let labels = use_dialog();
    shown(&store.node(name), &format!("node {name}"), |it| {
        let actions = html! {
            <>
                if account.may_operate() && it.slots.iter().any(|slot| slot.assigned.is_some()) {
                    <button id="restart" onclick={restart.open.clone()}>{ "Restart replicas…" }</button>
                }
                if account.may_operate() && it.node.summary.liveness != Liveness::Lost {
                    <button id="restart-agent" onclick={restart_agent.open.clone()}>{ "Restart agent…" }</button>
                }
                if account.may_operate() {
                    <button id="edit-labels" onclick={labels.open.clone()}>{ "Labels…" }</button>
                    <ServiceButtons node={it.node.summary.name.clone()} service={it.node.summary.service} holds={it.node.holds.clone()} />
                }
                if account.may_administer() {
                    <button id="remove-node" class="danger" onclick={remove.open.clone()}>{ "Remove…" }</button>
                }
            </>
        };
        let crumbs =
            html! { <><a href={Route::Nodes.path()}>{ "Nodes" }</a><span class="slash">{ "/" }</span></> };
        html! {
            <View id="node" title={name.to_string()} {crumbs} {actions}>
                { link(it) }
                { service::banner(&it.node) }
                { for it.node.summary.warnings.iter().map(warning) }
                { for words::faults(it.slots.iter().map(|it| &**it)).into_iter().map(|text| html! { <Banner tone={Tone::Bad} kind="fault" {text} /> }) }
                { for it.node.summary.usage.map(usage) }
                { facts(it) }
                <HostCharts name={name.clone()} usage={it.node.summary.usage} limits={it.node.limits.clone()}
                    cpus={it.node.inventory.as_ref().map(|it| it.cpus)} />
                <section aria-label="Replicas of this node">
                    <header class="section-head"><h2>{ "Replicas" }</h2></header>
                    if it.slots.is_empty() {
                        <Empty title="Replicas appear here once an application may run on this node." />
                    } else {
                        <ReplicaTable of={Of::Node} slots={it.slots.clone()} />
                    }
                </section>
                if restart.is_open {
                    <RestartDialog what={format!("everything on {name}")} path={format!("/nodes/{name}/restart")} onclose={restart.close.clone()}
                        consequence={words::restart_node_sentence(&it.node.summary)} />
                }
                if restart_agent.is_open {
                    <RestartDialog what={format!("the agent of {name}")} path={format!("/nodes/{name}/restart-agent")} onclose={restart_agent.close.clone()}
                        consequence="Its replicas go on running; one that ends while the agent is away, for a moment, is started by the next one." />
                }
                if labels.is_open { <LabelsDialog node={it.node.summary.clone()} onclose={labels.close.clone()} /> }
                if remove.is_open { <RemoveDialog node={it.node.summary.clone()} onclose={remove.close.clone()} /> }
            </View>
        }
    })
}

fn link(it: &NodeNow) -> Html {
    let summary = &it.node.summary;
    let heard = summary.heard_at.map(|at| html! { <span>{ "heard " }<Ago {at} /></span> });
    let lost = (summary.liveness == Liveness::Lost).then(|| html! {
        <Banner tone={Tone::Bad} kind="lost"
            text="Its agent is not connected. What runs there goes on running; what is shown below is what it said last. Look at deployex-agent on that host." />
    });
    html! {
        <>
            <p class="line">{ liveness(summary.liveness) }{ service_badge(summary.service) }{ heard }<span>{ "agent " }{ &summary.agent_version }</span>
                { for summary.labels.iter().map(label) }
            </p>
            { lost }
        </>
    }
}

/// A limit that is passed now.
fn warning(limit: &HostLimit) -> Html {
    let tone = if limit.level == HostLevel::Exceeded { Tone::Bad } else { Tone::Waiting };
    html! { <Banner {tone} kind="limit" text={words::limit_sentence(limit)} /> }
}

fn usage(usage: HostUsage) -> Html {
    let of = |used: u64, total: u64| format!("{} of {}", bytes(used), bytes(total));
    let [one, five, fifteen] = usage.load;
    html! {
        <section class="gauges" aria-label="Usage">
            <div><span>{ "CPU" }</span><Meter percent={usage.cpu_percent} label="CPU" /></div>
            <div><span>{ "Memory" }</span>
                <Meter percent={share(usage.memory_used_bytes, usage.memory_total_bytes)} label="Memory" text={of(usage.memory_used_bytes, usage.memory_total_bytes)} /></div>
            <div><span>{ "Disk" }</span>
                <Meter percent={share(usage.disk_used_bytes, usage.disk_total_bytes)} label="Disk" text={of(usage.disk_used_bytes, usage.disk_total_bytes)} /></div>
            <div><span>{ "Load" }</span><span class="plain">{ format!("{one:.2}  {five:.2}  {fifteen:.2}") }</span></div>
            <div><span>{ "Up for" }</span><span class="plain">{ duration(usage.uptime_ms) }</span></div>
        </section>
    }
}

fn facts(it: &NodeNow) -> Html {
    let fact = |name: &'static str, value: Html| html! { <div><dt>{ name }</dt><dd>{ value }</dd></div> };
    html! {
        <dl class="facts">
            { for it.node.inventory.as_ref().map(inventory) }
            { fact("Joined", html! { <Ago at={it.node.enrolled_at} /> }) }
            if let Some(at) = it.node.certificate_expires_at { { fact("Certificate until", html! { <Ago {at} /> }) } }
            if let Some(at) = it.node.agent_started_at { { fact("Agent started", html! { <Ago {at} /> }) } }
            if let Some(ahead) = it.node.clock_ahead_ms { { fact("Clock", html! { clock(ahead) }) } }
            if it.node.vm_samples_dropped > 0 { { fact("VM samples lost", html! { it.node.vm_samples_dropped }) } }
        </dl>
    }
}

fn inventory(it: &Inventory) -> Html {
    let fact = |name: &'static str, value: String| html! { <div><dt>{ name }</dt><dd>{ value }</dd></div> };
    html! {
        <>
            { fact("Host", it.hostname.clone()) }
            { fact("System", format!("{}, {} {}", it.os, it.kernel, it.arch)) }
            { fact("Size", format!("{} CPUs, {}", it.cpus, bytes(it.memory_bytes))) }
            { fact("Agent runs as", it.user.clone()) }
            { fact("Its own Erlang", it.erl.clone().map_or_else(|| "none".to_owned(), |otp| format!("OTP {otp}"))) }
            { fact("Limits replicas in", limits(it)) }
        </>
    }
}

/// What replicas can be bounded in, and why not in all.
fn limits(it: &Inventory) -> String {
    let can = if it.limits.is_empty() { "nothing".to_owned() } else { it.limits.join(", ") };
    it.limits_fault.as_ref().map_or_else(|| can.clone(), |fault| format!("{can}: {fault}"))
}

/// A clock that is off confuses people and certificates, so it is said.
fn clock(ahead: i64) -> String {
    match ahead {
        -1_000..=1_000 => "right".to_owned(),
        ahead if ahead > 0 => format!("{} ahead", duration(ahead.unsigned_abs())),
        ahead => format!("{} behind", duration(ahead.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_says_which_way() {
        assert_eq!(clock(-400), "right");
        assert_eq!(clock(61_000), "1 min ahead");
        assert_eq!(clock(-2_000), "2 s behind");
    }
}
