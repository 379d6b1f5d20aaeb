//! Whether replicas are kept away from a node: what is said of it, and the buttons that change it.

use proto::ids::NodeName;
use proto::nodes::{Holding, Node, drain_sentence};
use proto::state::{Service, Tone};
use yew::{Html, Properties, component, html};

use crate::components::dialog::use_dialog;
use crate::components::notice::Banner;
use crate::pages::confirm::ConfirmDialog;
use crate::words;

/// Nothing of a node that is in service.
pub(super) fn banner(node: &Node) -> Html {
    let (tone, text) = match node.summary.service {
        Service::Open => return html! {},
        Service::Cordoned => (
            Tone::Waiting,
            "It is cordoned: it keeps what it has, which follows rollouts, and is given no replica more."
                .to_owned(),
        ),
        Service::Draining if node.slots.is_empty() && node.holds.is_empty() => {
            (Tone::Moving, "It was drained: it holds nothing, and is given nothing.".to_owned())
        }
        Service::Draining => {
            (Tone::Moving, "It is being drained: what it has is withdrawn little by little.".to_owned())
        }
    };
    html! {
        <>
            <Banner {tone} kind="service" {text} />
            if !node.waiting.is_empty() {
                <div class="sentences">
                    { for node.waiting.iter().map(|why| html! { <p class="waiting">{ "Waiting: " }{ words::full_stop(why) }</p> }) }
                </div>
            }
        </>
    }
}

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) node: NodeName,
    pub(super) service: Service,
    pub(super) holds: Vec<Holding>,
}

/// Cordon, drain, and back into service: each says first what it does.
#[component]
pub(super) fn ServiceButtons(props: &Props) -> Html {
    let Props { node, service, holds } = props;
    let (cordon, drain, uncordon) = (use_dialog(), use_dialog(), use_dialog());
    let ends_drain = if *service == Service::Draining { " The drain ends." } else { "" };
    html! {
        <>
            if *service != Service::Cordoned { <button id="cordon" onclick={cordon.open.clone()}>{ "Cordon…" }</button> }
            if *service != Service::Draining { <button id="drain" onclick={drain.open.clone()}>{ "Drain…" }</button> }
            if *service != Service::Open { <button id="uncordon" onclick={uncordon.open.clone()}>{ "Uncordon…" }</button> }
            if cordon.is_open {
                <ConfirmDialog id="cordon" title={format!("Cordon {node}")} verb="Cordon" path={format!("/nodes/{node}/cordon")} onclose={cordon.close.clone()}
                    consequence={format!("{node} keeps what it has, which follows rollouts, and is given no replica more.{ends_drain}")} />
            }
            if drain.is_open {
                <ConfirmDialog id="drain" title={format!("Drain {node}")} verb="Drain" path={format!("/nodes/{node}/drain")} onclose={drain.close.clone()}
                    consequence={drain_sentence(holds)} />
            }
            if uncordon.is_open {
                <ConfirmDialog id="uncordon" title={format!("Uncordon {node}")} verb="Uncordon" path={format!("/nodes/{node}/uncordon")} onclose={uncordon.close.clone()}
                    consequence={format!("{node} is given replicas again: what may run there is started.{ends_drain}")} />
            }
        </>
    }
}
