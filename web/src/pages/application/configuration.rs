//! What an application is configured to be; read only, the configuration owns it.

use proto::apps::Settings;
use yew::{Html, Properties, component, html};

use crate::format::duration;
use crate::route::Route;
use crate::words;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) settings: Settings,
}

#[component]
pub(super) fn Configuration(props: &Props) -> Html {
    let Settings {
        replicas_per_node,
        strategy,
        stable_after_ms,
        rollback_timeout_ms,
        ports,
        run_as,
        nodes,
        env_keys,
    } = &props.settings;
    let row = |name: &'static str, value: String, what: &'static str| {
        html! { <div><dt>{ name }</dt><dd>{ value }<small>{ what }</small></dd></div> }
    };
    let ports = ports.iter().map(|it| format!("{}={}", it.key, it.base)).collect::<Vec<_>>();
    html! {
        <section aria-label="Configuration" data-tab-panel="configuration">
            <p class="dim">{ "Read from deployex.yaml. What a changed file would do, and what was applied, is on the page " }<a href={Route::Configuration.path()}>{ "Configuration" }</a>{ "." }</p>
            <dl class="facts wide-facts">
                { row("Replicas per node", replicas_per_node.to_string(), "slots 1 to this number on each node that may hold it") }
                { row("Nodes", listed(nodes, "every node"), "labels that a node must have") }
                { row("Strategy", words::strategy(*strategy).to_owned(), "") }
                { row("Stable after", duration(*stable_after_ms), "ready so long without a break") }
                { row("Rolled back after", duration(*rollback_timeout_ms), "where it has not become stable by then") }
                { row("Ports", listed(&ports, "none"), "of slot 1; each next slot has the next port") }
                { row("Runs as", run_as.clone(), "") }
                { row("Environment", listed(env_keys, "nothing of its own"), "names only; values are not shown") }
            </dl>
        </section>
    }
}

fn listed(items: &[String], none: &str) -> String {
    if items.is_empty() { none.to_owned() } else { items.join(", ") }
}
