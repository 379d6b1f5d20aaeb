//! That an application is held to a release, with the way out for those who may.

use proto::apps::Pin;
use proto::ids::AppName;
use proto::state::Tone;
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Html, Properties, component, html, use_state};

use crate::client::ClientError;
use crate::components::notice::Banner;
use crate::components::time::Ago;
use crate::session::use_account;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) application: AppName,
    pub(super) pin: Pin,
}

#[component]
pub(super) fn Pinned(props: &Props) -> Html {
    let Props { application, pin } = props;
    let account = use_account();
    let refused = use_state(|| None::<ClientError>);
    let unpin = {
        let (client, path) = (account.client.clone(), format!("/applications/{application}/pin"));
        let refused = refused.clone();
        Callback::from(move |_| {
            let (client, path, refused) = (client.clone(), path.clone(), refused.clone());
            spawn_local(async move {
                refused.set(client.ask("DELETE", &path, None::<&()>).await.err());
            });
        })
    };
    let text = format!(
        "Pinned to {} by {}: what the bucket names does not count until it is unpinned.",
        pin.release.version, pin.by
    );
    html! {
        <>
            <Banner tone={Tone::Waiting} kind="pin" {text}>
                <span class="dim"><Ago at={pin.at} /></span>
                if account.may_operate() {
                    <button id="unpin" onclick={unpin}
                        title="The release that the bucket names is rolled out where it is another one">{ "Unpin" }</button>
                }
            </Banner>
            if let Some(error) = &*refused { <p class="refusal" role="alert">{ error.sentence() }</p> }
        </>
    }
}
