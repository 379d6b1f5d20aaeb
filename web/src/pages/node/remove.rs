//! The dialog that removes a node: what it means is said first, and its name is typed, for nothing brings it back.

use proto::nodes::NodeSummary;
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Html, Properties, component, html, use_state, use_state_eq};

use crate::client::ClientError;
use crate::components::dialog::Dialog;
use crate::components::form::Field;
use crate::route::Route;
use crate::router::use_go;
use crate::session::use_account;
use crate::words;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) node: NodeSummary,
    pub(super) onclose: Callback<()>,
}

#[component]
pub(super) fn RemoveDialog(props: &Props) -> Html {
    let Props { node, onclose } = props;
    let client = use_account().client;
    let go = use_go();
    let typed = use_state_eq(String::new);
    let busy = use_state_eq(|| false);
    let refused = use_state(|| None::<ClientError>);
    let sure = *typed == node.name.as_str();
    let remove = {
        let (path, busy, refused) = (format!("/nodes/{}", node.name), busy.clone(), refused.clone());
        Callback::from(move |_| {
            let (client, go) = (client.clone(), go.clone());
            let (path, busy, refused) = (path.clone(), busy.clone(), refused.clone());
            busy.set(true);
            spawn_local(async move {
                match client.ask("DELETE", &path, None::<&()>).await {
                    Ok(()) => go.emit(Route::Nodes.path()),
                    Err(error) => {
                        refused.set(Some(error));
                        busy.set(false);
                    }
                }
            });
        })
    };
    let cancel = onclose.reform(|_| ());
    html! {
        <Dialog id="remove-dialog" title={format!("Remove {}", node.name)} onclose={onclose.clone()}>
            <p class="consequence">{ words::remove_sentence(node) }</p>
            <Field name="name" label={format!("Type {} to confirm", node.name)} value={(*typed).clone()}
                oninput={Callback::from(move |value| typed.set(value))} autocomplete="off" first=true />
            if let Some(error) = &*refused { <p class="refusal" role="alert">{ error.sentence() }</p> }
            <div class="buttons">
                <button onclick={cancel}>{ "Cancel" }</button>
                <button id="remove-confirm" class="danger" disabled={!sure || *busy} onclick={remove}>{ format!("Remove {}", node.name) }</button>
            </div>
        </Dialog>
    }
}
