//! The dialog that starts replicas anew.

use yew::{AttrValue, Callback, Html, Properties, component, html};

use super::confirm::ConfirmDialog;

#[derive(Properties, PartialEq)]
pub(crate) struct Props {
    /// As in "Restart myapp".
    pub(crate) what: AttrValue,
    pub(crate) consequence: AttrValue,
    /// Of the API, where it is asked for.
    pub(crate) path: AttrValue,
    pub(crate) onclose: Callback<()>,
}

#[component]
pub(crate) fn RestartDialog(props: &Props) -> Html {
    let Props { what, consequence, path, onclose } = props;
    html! {
        <ConfirmDialog id="restart" title={format!("Restart {what}")} verb="Restart" consequence={consequence.clone()}
            path={path.clone()} onclose={onclose.clone()} />
    }
}
