//! The keyboard map, shown.

use yew::{Callback, Html, Properties, component, html};

use crate::components::dialog::Dialog;
use crate::keys::MAP;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) onclose: Callback<()>,
}

#[component]
pub(super) fn Help(props: &Props) -> Html {
    html! {
        <Dialog id="keyboard" title="Keyboard" onclose={props.onclose.clone()}>
            <dl class="keys">
                { for MAP.iter().map(|(keys, what)| html! {
                    <><dt>{ for keys.iter().map(|key| html! { <kbd>{ *key }</kbd> }) }</dt><dd>{ *what }</dd></>
                }) }
            </dl>
        </Dialog>
    }
}
