//! The output of one replica as it comes.

use proto::ids::AppName;
use proto::replicas::{LogStream, Replica};
use web_sys::HtmlSelectElement;
use yew::{Callback, Html, Properties, TargetCast, component, html, use_state_eq};

use crate::components::log_view::LogView;
use crate::components::notice::Empty;
use crate::shared::Shared;
use crate::words;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) name: AppName,
    pub(super) slots: Vec<Shared<Replica>>,
    /// `node/slot`; absent: the first.
    pub(super) chosen: Option<String>,
}

const STREAMS: [(LogStream, &str); 3] =
    [(LogStream::Both, "both"), (LogStream::Stdout, "stdout"), (LogStream::Stderr, "stderr")];

#[component]
pub(super) fn Logs(props: &Props) -> Html {
    let chosen = use_state_eq(|| props.chosen.clone());
    let stream = use_state_eq(|| LogStream::Both);
    let place = |it: &Replica| format!("{}/{}", it.node, it.slot);
    let replica =
        props.slots.iter().find(|it| chosen.as_ref() == Some(&place(it))).or_else(|| props.slots.first());
    let Some(replica) = replica else {
        return html! { <Empty title="What replicas write appears here once one runs." /> };
    };
    let onchange = {
        let chosen = chosen.clone();
        Callback::from(move |event: yew::Event| {
            chosen.set(Some(event.target_unchecked_into::<HtmlSelectElement>().value()));
        })
    };
    let path = format!("/replicas/{}/{}/{}/logs", replica.node, props.name, replica.slot);
    html! {
        <section aria-label="Logs" data-tab-panel="logs">
            <div class="log-choice">
                <label>{ "Replica " }
                    <select name="replica" {onchange}>
                        { for props.slots.iter().map(|it| html! {
                            <option value={place(it)} selected={place(it) == place(replica)}>
                                { format!("slot {} on {} ({})", it.slot, it.node, words::state(it.state)) }
                            </option>
                        }) }
                    </select>
                </label>
                <span class="choice" role="group" aria-label="Stream">
                    { for STREAMS.into_iter().map(|(it, word)| {
                        let chosen = stream.clone();
                        html! { <button aria-pressed={(*stream == it).to_string()} onclick={move |_| chosen.set(it)}>{ word }</button> }
                    }) }
                </span>
            </div>
            <LogView {path} stream={*stream} />
        </section>
    }
}
