//! The dialog that makes a join token and shows what to type with it.

use proto::nodes::{JoinToken, NewJoinToken};
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Html, Properties, component, html, use_state, use_state_eq};

use crate::client::ClientError;
use crate::clock::use_now;
use crate::components::dialog::Dialog;
use crate::components::form::Field;
use crate::components::notice::Command;
use crate::labels;
use crate::session::use_account;
use crate::words;

const HOUR: u64 = 3_600_000;
const LIFETIMES: [(u64, &str); 3] = [(HOUR, "one hour"), (24 * HOUR, "one day"), (7 * 24 * HOUR, "one week")];

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) onclose: Callback<()>,
}

#[component]
pub(super) fn TokenDialog(props: &Props) -> Html {
    let client = use_account().client;
    let uses = use_state_eq(|| "1".to_owned());
    let lifetime = use_state_eq(|| HOUR);
    let labels = use_state_eq(String::new);
    let mistyped = use_state_eq(|| None::<String>);
    let made = use_state(|| None::<Result<JoinToken, ClientError>>);
    let make = {
        let (made, uses, lifetime_ms) = (made.clone(), (*uses).clone(), *lifetime);
        let (labels, mistyped) = (labels.clone(), mistyped.clone());
        Callback::from(move |_| {
            let labels = match labels::read(&labels) {
                Ok(labels) => labels,
                Err(wrong) => return mistyped.set(Some(wrong)),
            };
            mistyped.set(None);
            // What is no number goes as none that is allowed, and the field is told so.
            let uses = Some(uses.trim().parse().unwrap_or(0));
            let wish = NewJoinToken { uses, lifetime_ms: Some(lifetime_ms), labels };
            let (client, made) = (client.clone(), made.clone());
            spawn_local(async move { made.set(Some(client.post("/join-tokens", &wish).await)) });
        })
    };
    let close = props.onclose.reform(|_| ());
    let token = made.as_ref().and_then(|it| it.as_ref().ok());
    let error = made.as_ref().and_then(|it| it.as_ref().err());
    let of_field = error.and_then(|it| it.of_field("uses")).map(str::to_owned);
    let of_labels = error.and_then(|it| it.of_field("labels")).map(str::to_owned);
    let wrong_labels = (*mistyped).clone().or_else(|| of_labels.clone());
    html! {
        <Dialog id="token-dialog" title="Add a node" onclose={props.onclose.clone()}>
            if let Some(token) = token {
                <Made token={token.clone()} />
                <div class="buttons"><button class="primary" onclick={close}>{ "Close" }</button></div>
            } else {
                <p>{ "A join token lets a host become a node. Whoever has it can join, so it is good for a few hosts and for a while." }</p>
                <Field name="uses" label="Hosts" value={(*uses).clone()} oninput={Callback::from(move |value| uses.set(value))} error={of_field.clone()} hint="how many may join with it" />
                <div class="field"><span>{ "Good for" }</span>
                    <span class="choice" role="group" aria-label="Good for">
                        { for LIFETIMES.into_iter().map(|(millis, word)| {
                            let chosen = lifetime.clone();
                            html! { <button type="button" aria-pressed={(*lifetime == millis).to_string()} onclick={move |_| chosen.set(millis)}>{ word }</button> }
                        }) }
                    </span>
                </div>
                <Field name="labels" label="Labels" value={(*labels).clone()} oninput={Callback::from(move |value| labels.set(value))} error={wrong_labels}
                    hint="of every host that joins with it, as in role=web zone=a" autocomplete="off" />
                if let Some(error) = error.filter(|_| of_field.is_none() && of_labels.is_none()) { <p class="refusal" role="alert">{ error.sentence() }</p> }
                <div class="buttons">
                    <button onclick={close}>{ "Cancel" }</button>
                    <button id="make-token" class="primary" onclick={make}>{ "Make the token" }</button>
                </div>
            }
        </Dialog>
    }
}

#[derive(Properties, PartialEq)]
struct MadeProps {
    token: JoinToken,
}

#[component]
fn Made(props: &MadeProps) -> Html {
    let now = use_now();
    html! {
        <>
            <p>{ "On the host that is to run replicas, where the agent's programs are:" }</p>
            <Command text={props.token.command.clone()} />
            <Command text="deployex-agent run" />
            if let Some(note) = &props.token.note { <p class="note">{ words::sentence(note) }</p> }
            <p class="dim">{ words::token_sentence(&props.token, now) }</p>
        </>
    }
}
