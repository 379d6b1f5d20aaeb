//! The dialog that says what will happen before it is asked for, and shows why it was refused.

use wasm_bindgen_futures::spawn_local;
use yew::{AttrValue, Callback, Html, Properties, component, html, use_effect_with, use_state, use_state_eq};

use crate::client::ClientError;
use crate::components::dialog::Dialog;
use crate::session::use_account;

#[derive(Properties, Clone, PartialEq)]
pub(crate) struct Props {
    /// Of the dialog: `{id}-dialog`, and of its button: `{id}-confirm`.
    pub(crate) id: &'static str,
    pub(crate) title: AttrValue,
    /// On the button.
    pub(crate) verb: AttrValue,
    pub(crate) consequence: AttrValue,
    /// Of the API, where it is asked for.
    pub(crate) path: AttrValue,
    /// Sent with it: JSON.
    #[prop_or(AttrValue::Static("{}"))]
    pub(crate) body: AttrValue,
    pub(crate) onclose: Callback<()>,
}

#[component]
pub(crate) fn ConfirmDialog(props: &Props) -> Html {
    // What one has read is what is asked for, wherever the page has gone meanwhile.
    let shown = use_state(|| props.clone());
    let Props { id, title, verb, consequence, path, body, onclose } = &*shown;
    // Gone with its page, it is not there again by itself when that is back.
    let closed = onclose.clone();
    use_effect_with((), move |()| move || closed.emit(()));
    let client = use_account().client;
    let busy = use_state_eq(|| false);
    let refused = use_state(|| None::<ClientError>);
    let ask = {
        let (path, body, onclose) = (path.clone(), body.clone(), onclose.clone());
        let (busy, refused) = (busy.clone(), refused.clone());
        Callback::from(move |_| {
            let (client, path, onclose) = (client.clone(), path.clone(), onclose.clone());
            let body = body.clone();
            let (busy, refused) = (busy.clone(), refused.clone());
            busy.set(true);
            spawn_local(async move {
                // What becomes of it, the page shows by itself.
                match client.ask_text("POST", &path, Some(body.to_string())).await {
                    Ok(()) => onclose.emit(()),
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
        <Dialog id={format!("{id}-dialog")} title={title.clone()} onclose={onclose.clone()}>
            <p class="consequence">{ consequence }</p>
            if let Some(error) = &*refused { <p class="refusal" role="alert">{ error.sentence() }</p> }
            <div class="buttons">
                <button onclick={cancel}>{ "Cancel" }</button>
                <button id={format!("{id}-confirm")} class="primary" disabled={*busy} onclick={ask}>{ verb }</button>
            </div>
        </Dialog>
    }
}
