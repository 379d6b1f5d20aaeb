//! A dialog over the page: the browser's own, which keeps the focus inside, closes on Esc and gives the focus back.

use web_sys::{Event, HtmlDialogElement, MouseEvent};
use yew::{
    AttrValue, Callback, Html, NodeRef, Properties, TargetCast, component, hook, html, use_effect_with,
    use_node_ref, use_state_eq,
};

/// Whether a dialog is shown, and what shows and closes it.
#[derive(Clone)]
pub struct Shown {
    pub is_open: bool,
    pub open: Callback<MouseEvent>,
    pub close: Callback<()>,
}

#[hook]
pub fn use_dialog() -> Shown {
    let state = use_state_eq(|| false);
    let (opens, closes) = (state.setter(), state.setter());
    Shown {
        is_open: *state,
        open: Callback::from(move |_| opens.set(true)),
        close: Callback::from(move |()| closes.set(false)),
    }
}

#[derive(Properties, PartialEq)]
pub struct Props {
    pub id: AttrValue,
    pub title: AttrValue,
    pub onclose: Callback<()>,
    pub children: Html,
    #[prop_or_default]
    pub class: AttrValue,
}

#[component]
pub fn Dialog(props: &Props) -> Html {
    let Props { id, title, onclose, children, class } = props;
    let node = use_node_ref();
    use_effect_with(node.clone(), |node: &NodeRef| {
        if let Some(dialog) = node.cast::<HtmlDialogElement>().filter(|it| !it.open()) {
            let _ = dialog.show_modal();
        }
    });
    let oncancel = {
        let onclose = onclose.clone();
        Callback::from(move |event: Event| {
            event.prevent_default();
            onclose.emit(());
        })
    };
    // A click on the backdrop is one on the dialog itself; what is in it lies on its content.
    let onclick = {
        let onclose = onclose.clone();
        Callback::from(move |event: MouseEvent| {
            if event.target_dyn_into::<HtmlDialogElement>().is_some() {
                onclose.emit(());
            }
        })
    };
    let heading = format!("{id}-title");
    html! {
        <dialog ref={node} {id} {oncancel} {onclick} class={class.clone()} aria-labelledby={heading.clone()}>
            <div class="sheet"><h2 id={heading}>{ title }</h2>{ children.clone() }</div>
        </dialog>
    }
}
