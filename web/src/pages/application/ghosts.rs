//! Ghosted releases, with the way out for those who may.

use proto::ids::{AppName, ReleaseKey, Version};
use proto::releases::Ghost;
use proto::state::Tone;
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Html, Properties, component, html, use_state};

use crate::browser;
use crate::client::ClientError;
use crate::components::evidence;
use crate::components::notice::Banner;
use crate::components::time::Ago;
use crate::session::use_account;
use crate::words;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) application: AppName,
    pub(super) in_force: Option<ReleaseKey>,
    pub(super) ghosts: Vec<Ghost>,
}

#[component]
pub(super) fn Ghosts(props: &Props) -> Html {
    let Props { application, ghosts, in_force } = props;
    let account = use_account();
    let refused = use_state(|| None::<ClientError>);
    let clear = |version: Version| {
        let (client, application, refused) = (account.client.clone(), application.clone(), refused.clone());
        Callback::from(move |_| {
            let version = browser::encoded(version.as_str());
            let path = format!("/applications/{application}/ghosted/{version}");
            let (client, refused) = (client.clone(), refused.clone());
            spawn_local(async move {
                refused.set(client.ask("DELETE", &path, None::<&()>).await.err());
            });
        })
    };
    let stays = in_force.as_ref().map(|key| format!(" {} stays in force.", key.version)).unwrap_or_default();
    html! {
        <>
            { for ghosts.iter().map(|ghost| {
                let version = &ghost.key.version;
                let text = format!("{version} is ghosted: {}{stays}", words::full_stop(&ghost.reason));
                html! {
                    <>
                    <Banner tone={Tone::Waiting} kind="ghost" {text}>
                        <span class="dim"><Ago at={ghost.at} /></span>
                        if account.may_operate() {
                            <button data-clear-ghost={version.to_string()} onclick={clear(version.clone())}
                                title="Lets it be deployed again; where it is still wanted, its rollout begins at once">{ "Let it be deployed again" }</button>
                        }
                    </Banner>
                    { evidence::of_ghost(ghost, "What the slot that failed left behind", false) }
                    </>
                }
            }) }
            if let Some(error) = &*refused { <p class="refusal" role="alert">{ error.sentence() }</p> }
        </>
    }
}
