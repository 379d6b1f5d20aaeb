//! The sign-in form, shown in place of any page while nobody is signed in.

use proto::users::Me;
use wasm_bindgen_futures::spawn_local;
use web_sys::SubmitEvent;
use yew::{Callback, Html, Properties, component, html, use_effect_with, use_state, use_state_eq};

use crate::browser;
use crate::client::{Client, ClientError};
use crate::components::form::Field;
use crate::components::icon::Icon;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub client: Client,
    /// A session was here and has ended.
    pub ended: bool,
    pub signed_in: Callback<Me>,
}

#[component]
pub fn SignIn(props: &Props) -> Html {
    let Props { client, ended, signed_in } = props;
    let username = use_state_eq(String::new);
    let password = use_state_eq(String::new);
    let busy = use_state_eq(|| false);
    let refused = use_state(|| None::<ClientError>);
    use_effect_with((), |()| {
        browser::set_title("Sign in");
        browser::focus("#sign-in input");
    });
    let onsubmit = {
        let (client, signed_in) = (client.clone(), signed_in.clone());
        let (username, password) = ((*username).clone(), (*password).clone());
        let (busy, refused) = (busy.clone(), refused.clone());
        Callback::from(move |event: SubmitEvent| {
            event.prevent_default();
            let (client, signed_in) = (client.clone(), signed_in.clone());
            let (username, password) = (username.clone(), password.clone());
            let (busy, refused) = (busy.clone(), refused.clone());
            busy.set(true);
            spawn_local(async move {
                match client.sign_in(username, password).await {
                    Ok(me) => signed_in.emit(me),
                    Err(error) => {
                        refused.set(Some(error));
                        busy.set(false);
                    }
                }
            });
        })
    };
    let set = |to: &yew::UseStateHandle<String>| {
        let to = to.clone();
        Callback::from(move |value| to.set(value))
    };
    html! {
        <main class="alone">
            <form id="sign-in" class="card" {onsubmit} aria-busy={busy.to_string()}>
                <p class="brand">{ Icon::Mark.view() }<strong>{ "DeployEx" }</strong></p>
                <h1>{ "Sign in" }</h1>
                if *ended { <p class="note" role="status">{ "Your session has ended. Sign in to go on where you were." }</p> }
                <Field name="username" label="User name" value={(*username).clone()} oninput={set(&username)} autocomplete="username" first=true />
                <Field name="password" label="Password" kind="password" value={(*password).clone()} oninput={set(&password)} autocomplete="current-password" />
                if let Some(error) = &*refused { <p class="refusal" role="alert">{ error.sentence() }</p> }
                <button class="primary" type="submit" disabled={*busy}>{ if *busy { "Signing in…" } else { "Sign in" } }</button>
            </form>
        </main>
    }
}
