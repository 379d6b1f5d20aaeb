//! The dialog that changes a node's labels.

use proto::nodes::{NodeChange, NodeSummary};
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Html, Properties, component, html, use_state, use_state_eq};

use crate::components::dialog::Dialog;
use crate::components::form::Field;
use crate::labels;
use crate::session::use_account;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) node: NodeSummary,
    pub(super) onclose: Callback<()>,
}

#[component]
pub(super) fn LabelsDialog(props: &Props) -> Html {
    let Props { node, onclose } = props;
    let client = use_account().client;
    let typed = use_state_eq(|| labels::said(&node.labels));
    let busy = use_state_eq(|| false);
    let refused = use_state(|| None::<String>);
    let save = {
        let (path, typed, onclose) = (format!("/nodes/{}", node.name), typed.clone(), onclose.clone());
        let (busy, refused) = (busy.clone(), refused.clone());
        Callback::from(move |_| {
            let change = match labels::read(&typed) {
                Ok(labels) => NodeChange { labels },
                Err(wrong) => return refused.set(Some(wrong)),
            };
            let (client, path, onclose) = (client.clone(), path.clone(), onclose.clone());
            let (busy, refused) = (busy.clone(), refused.clone());
            busy.set(true);
            spawn_local(async move {
                match client.ask("PATCH", &path, Some(&change)).await {
                    Ok(()) => onclose.emit(()),
                    Err(error) => {
                        let of_field = error.of_field("labels").map(str::to_owned);
                        refused.set(Some(of_field.unwrap_or_else(|| error.sentence())));
                        busy.set(false);
                    }
                }
            });
        })
    };
    let cancel = onclose.reform(|_| ());
    html! {
        <Dialog id="labels-dialog" title={format!("Labels of {}", node.name)} onclose={onclose.clone()}>
            <p class="consequence">{ "By its labels applications choose whether they run here. What no longer may is withdrawn, and what now may is started." }</p>
            <Field name="labels" label="Labels" value={(*typed).clone()} oninput={Callback::from(move |value| typed.set(value))}
                error={(*refused).clone()} hint="as in role=web zone=a" autocomplete="off" first=true />
            <div class="buttons">
                <button onclick={cancel}>{ "Cancel" }</button>
                <button id="labels-confirm" class="primary" disabled={*busy} onclick={save}>{ "Save" }</button>
            </div>
        </Dialog>
    }
}
