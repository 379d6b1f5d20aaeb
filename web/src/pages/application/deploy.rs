//! The dialog that deploys a recorded release, and says beforehand what will happen.

use proto::apps::{Deploy, Deployment};
use proto::ids::ReleaseKey;
use proto::releases::Release;
use serde::Deserialize;
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Html, Properties, component, html, use_state, use_state_eq};

use crate::client::{ClientError, use_pages};
use crate::components::dialog::Dialog;
use crate::components::notice::Empty;
use crate::components::state::State;
use crate::components::time::Ago;
use crate::live::store::ApplicationNow;
use crate::pages::listed;
use crate::route::Route;
use crate::router::use_go;
use crate::session::use_account;
use crate::shared::Shared;
use crate::words;

/// Of [`proto::releases::ReleaseCheck`] what is shown here: to read all of it costs every first visit the code that does it.
#[derive(PartialEq, Deserialize)]
struct Checked {
    release: ReleaseKey,
    summary: String,
}

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) application: Shared<ApplicationNow>,
    pub(super) onclose: Callback<()>,
}

#[component]
pub(super) fn DeployDialog(props: &Props) -> Html {
    let Props { application, onclose } = props;
    let summary = &application.application.summary;
    let client = use_account().client;
    let go = use_go();
    let chosen = use_state_eq(|| None::<ReleaseKey>);
    let keep = use_state_eq(|| application.application.pinned.is_some());
    let busy = use_state_eq(|| false);
    let answer = use_state(|| None::<Result<Deployment, ClientError>>);
    let checked = use_state_eq(|| None::<Checked>);
    let pages = use_pages::<Release, _>(format!("/applications/{}/releases", summary.name), ());

    let deploy = {
        let (name, chosen) = (summary.name.clone(), chosen.clone());
        let what = if *keep { "pin" } else { "deploy" };
        let (client, busy, answer, onclose) = (client.clone(), busy.clone(), answer.clone(), onclose.clone());
        Callback::from(move |_| {
            let Some(key) = (*chosen).clone() else { return };
            let (client, go, onclose) = (client.clone(), go.clone(), onclose.clone());
            let (busy, answer, path) = (busy.clone(), answer.clone(), format!("/applications/{name}/{what}"));
            busy.set(true);
            spawn_local(async move {
                let wish = Deploy { version: key.version, sha256: Some(key.sha256) };
                let result = client.post::<Deployment>(&path, &wish).await;
                match result.as_ref().ok().and_then(|it| it.rollout) {
                    Some(id) => {
                        onclose.emit(());
                        go.emit(Route::rollout(id).path());
                    }
                    None => {
                        answer.set(Some(result));
                        busy.set(false);
                    }
                }
            });
        })
    };
    let choose = {
        let (chosen, answer, checked, name) =
            (chosen.clone(), answer.clone(), checked.clone(), summary.name.clone());
        Callback::from(move |key: ReleaseKey| {
            let (client, checked) = (client.clone(), checked.clone());
            let ReleaseKey { version, sha256 } = &key;
            let path = format!("/applications/{name}/releases/{version}/check?sha256={sha256}");
            chosen.set(Some(key));
            answer.set(None);
            spawn_local(async move {
                // Where it cannot be said, the deployment itself says it.
                if let Ok(said) = client.get(&path).await {
                    checked.set(Some(said));
                }
            });
        })
    };
    let toggle = {
        let keep = keep.clone();
        Callback::from(move |_| keep.set(!*keep))
    };
    let cancel = onclose.reform(|_| ());
    html! {
        <Dialog id="deploy-dialog" title={format!("Deploy {}", summary.name)} onclose={onclose.clone()}>
            { listed(&pages, "releases", |releases| {
                if releases.is_empty() {
                    return html! { <Empty title="No release was seen in the bucket yet." /> };
                }
                let picked = releases.iter().find(|it| chosen.as_ref() == Some(&it.key));
                // The answer of an earlier choice may come late.
                let check = checked.as_ref().filter(|it| chosen.as_ref() == Some(&it.release));
                html! {
                    <>
                        <ul class="choices" role="radiogroup" aria-label="Release">
                            { for releases.iter().map(|it| choice(it, chosen.as_ref() == Some(&it.key), choose.clone())) }
                        </ul>
                        <p class="consequence" aria-live="polite">{ match picked {
                            Some(release) => words::deploy_sentence(summary, release, application.application.settings.strategy),
                            None => "Choose the release that is to run.".to_owned(),
                        } }</p>
                        { for check.map(|it| html! {
                            <p id="deploy-check" class="consequence" role="status">{ words::sentence(&it.summary) }</p>
                        }) }
                        <label class="option">
                            <input id="deploy-pin" type="checkbox" checked={*keep} onchange={toggle.clone()} />
                            <span>{ "Pin it: keep it whatever the bucket names, until it is unpinned." }</span>
                        </label>
                    </>
                }
            }) }
            { match &*answer {
                Some(Ok(deployment)) => html! { <p class="note" role="status">{ words::sentence(&deployment.sentence) }</p> },
                Some(Err(error)) => html! { <p class="refusal" role="alert">{ error.sentence() }</p> },
                None => html! {},
            } }
            <div class="buttons">
                <button onclick={cancel}>{ "Cancel" }</button>
                <button id="deploy-confirm" class="primary" disabled={chosen.is_none() || *busy} onclick={deploy}>
                    { match chosen.as_ref() {
                        Some(key) => format!("Deploy {}", key.version),
                        None => "Deploy".to_owned(),
                    } }
                </button>
            </div>
        </Dialog>
    }
}

fn choice(release: &Release, checked: bool, choose: Callback<ReleaseKey>) -> Html {
    let key = release.key.clone();
    let ghosted = release.ghosted.is_some();
    html! {
        <li>
            <label>
                <input type="radio" name="release" value={release.key.version.to_string()} {checked} disabled={ghosted}
                    onchange={move |_| choose.emit(key.clone())} />
                <strong>{ release.key.version.to_string() }</strong>
                <code class="dim">{ release.key.sha256.short() }</code>
                <span class="dim"><Ago at={release.recorded_at} /></span>
                { for words::standing(release).into_iter().map(|(word, tone)| html! { <State {tone} {word} /> }) }
            </label>
        </li>
    }
}
