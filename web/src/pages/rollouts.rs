//! All rollouts, newest first; those under way as they are now.

use proto::rollouts::RolloutSummary;
use yew::{Html, component, html};

use super::{View, listed};
use crate::client::use_pages;
use crate::components::notice::Empty;
use crate::components::state::phase;
use crate::components::stepper::thin_bar;
use crate::components::table::{Column, Kind, Table};
use crate::components::time::Ago;
use crate::format;
use crate::live::use_store;
use crate::route::Route;
use crate::shared::Shared;
use crate::words;

const COLUMNS: &[Column<RolloutSummary>] = &[
    Column {
        title: "Application",
        class: "",
        cell: |it| html! { <a href={Route::rollout(it.id).path()}>{ it.application.to_string() }</a> },
        text: |it| it.application.to_string(),
        compare: |a, b| a.application.cmp(&b.application),
    },
    Column {
        title: "Releases",
        class: "",
        cell: |it| html! { words::step(it.from.as_ref(), &it.release) },
        text: |it| words::step(it.from.as_ref(), &it.release),
        compare: |a, b| a.release.cmp(&b.release),
    },
    Column {
        title: "Phase",
        class: "",
        cell: |it| phase(it.phase),
        text: |it| it.phase.word().to_owned(),
        compare: |a, b| a.phase.cmp(&b.phase),
    },
    Column {
        title: "Progress",
        class: "meters middle",
        cell: |it| match it.phase.is_over() {
            true => html! {},
            false => thin_bar(it.progress.stable, it.progress.total, it.phase.tone()),
        },
        text: |_| String::new(),
        compare: |a, b| a.progress.stable.cmp(&b.progress.stable),
    },
    Column {
        title: "Started",
        class: "number middle",
        cell: |it| html! { <Ago at={it.started_at} /> },
        text: |_| String::new(),
        compare: |a, b| a.started_at.cmp(&b.started_at),
    },
    Column {
        title: "Took",
        class: "number wide",
        cell: |it| html! { it.finished_at.map(|end| format::elapsed(it.started_at, end)).unwrap_or_default() },
        text: |_| String::new(),
        compare: |a, b| a.finished_at.cmp(&b.finished_at),
    },
    Column {
        title: "By",
        class: "wide",
        cell: |it| html! { &it.by },
        text: |it| it.by.clone(),
        compare: |a, b| a.by.cmp(&b.by),
    },
    Column {
        title: "Why",
        class: "grow wide",
        cell: |it| {
            let why =
                it.waiting.first().or(it.reason.as_ref()).map(|it| words::sentence(it)).unwrap_or_default();
            html! { <span class="clip" title={why.clone()}>{ why }</span> }
        },
        text: |it| it.reason.clone().unwrap_or_default(),
        compare: |a, b| a.reason.cmp(&b.reason),
    },
];

const KIND: Kind<RolloutSummary> = Kind {
    id: "rollouts",
    label: "Rollouts",
    columns: COLUMNS,
    name: |it| it.id.to_string(),
    href: Some(|it| Route::rollout(it.id).path()),
};

#[component]
pub fn RolloutsPage() -> Html {
    let store = use_store();
    let now: Vec<Shared<RolloutSummary>> =
        store.fleet.value().map(|fleet| fleet.rollouts.clone()).unwrap_or_default();
    // Read again when one begins or ends; in between, what is under way comes by the link.
    let under_way: Vec<_> = now.iter().map(|it| it.id).collect();
    let pages = use_pages::<RolloutSummary, _>("/rollouts".to_owned(), under_way);
    html! {
        <View id="rollouts" title="Rollouts">
            { listed(&pages, "list of rollouts", |items| {
                if items.is_empty() {
                    return html! {
                        <Empty title="Every move of an application to a release appears here.">
                            <p>{ "One begins when a release is named in the bucket's current.json, or with " }<code>{ "deployex deploy APPLICATION VERSION" }</code>{ "." }</p>
                        </Empty>
                    };
                }
                let rows: Vec<_> = items.iter().map(|it| {
                    let live = now.iter().find(|live| live.id == it.id);
                    live.cloned().unwrap_or_else(|| Shared::new(it.clone()))
                }).collect();
                html! { <Table<RolloutSummary> kind={&KIND} {rows} /> }
            }) }
        </View>
    }
}
