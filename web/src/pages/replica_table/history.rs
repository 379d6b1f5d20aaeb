//! What one slot was told to run, and what became of it.

use proto::apps::{DeploymentKind, ReplicaHistoryEntry};
use proto::ids::ReleaseKey;
use proto::replicas::Replica;
use yew::{Html, Properties, component, html};

use crate::client::use_pages;
use crate::components::notice::Empty;
use crate::components::state::phase;
use crate::components::time::{Ago, Elapsed};
use crate::format;
use crate::pages::listed;
use crate::route::Route;
use crate::shared::Shared;
use crate::words;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) replica: Shared<Replica>,
}

#[component]
pub(super) fn ReplicaHistory(props: &Props) -> Html {
    let it = &props.replica;
    let path = format!("/replicas/{}/{}/{}/history", it.node, it.application, it.slot);
    // Read again when it is told something else.
    let pages = use_pages::<ReplicaHistoryEntry, _>(path, it.assigned.clone());
    html! {
        <section class="past" aria-label="History of this replica">
            { listed(&pages, "history", |entries| match entries.is_empty() {
                true => html! { <Empty title="Every release that this slot is told to run appears here." /> },
                false => html! { <ol>{ for entries.iter().map(entry) }</ol> },
            }) }
        </section>
    }
}

fn came(kind: DeploymentKind, from: Option<&ReleaseKey>) -> String {
    match from {
        Some(from) => format!("{} from {}", kind.word(), from.version),
        None => kind.word().to_owned(),
    }
}

fn entry(it: &ReplicaHistoryEntry) -> Html {
    let ReplicaHistoryEntry { release, kind, from, started_at, finished_at, rollout, by, outcome, reason } =
        it;
    let lasted = match finished_at {
        Some(until) => html! { { format::elapsed(*started_at, *until) } },
        None => html! { <Elapsed at={*started_at} /> },
    };
    let version = release.version.to_string();
    let version = match rollout {
        Some(id) => html! { <a href={Route::rollout(*id).path()}><code>{ version }</code></a> },
        None => html! { <code>{ version }</code> },
    };
    html! {
        <li>
            <span>{ version }{ " " }<span class="dim">{ came(*kind, from.as_ref()) }</span></span>
            <span class="dim"><Ago at={*started_at} />{ ", for " }{ lasted }</span>
            <span class="dim">{ by.as_ref().map_or_else(|| "outside of any rollout".to_owned(), |by| format!("by {by}")) }</span>
            <span>{ for outcome.map(phase) }</span>
            if let Some(reason) = reason { <span class="why">{ words::sentence(reason) }</span> }
        </li>
    }
}
