//! What was deployed of an application, and what became of it.

use proto::apps::{DeploymentKind, HistoryEntry};
use proto::ids::{AppName, RolloutId};
use yew::{Html, Properties, component, html};

use crate::client::use_pages;
use crate::components::notice::Empty;
use crate::components::state::phase;
use crate::components::table::{Column, Kind, Table};
use crate::components::time::Ago;
use crate::format;
use crate::pages::{listed, rows};
use crate::route::Route;
use crate::words;

const COLUMNS: &[Column<HistoryEntry>] = &[
    Column {
        title: "Releases",
        class: "",
        cell: |it| html! { <a href={Route::rollout(it.rollout).path()}>{ words::step(it.from.as_ref(), &it.release) }</a> },
        text: |it| words::step(it.from.as_ref(), &it.release),
        compare: |a, b| a.release.cmp(&b.release),
    },
    Column {
        title: "Kind",
        class: "wide",
        cell: |it| html! { kind(it) },
        text: |it| kind(it).to_owned(),
        compare: |a, b| kind(a).cmp(kind(b)),
    },
    Column {
        title: "Outcome",
        class: "",
        cell: |it| phase(it.outcome),
        text: |it| it.outcome.word().to_owned(),
        compare: |a, b| a.outcome.cmp(&b.outcome),
    },
    Column {
        title: "Started",
        class: "number",
        cell: |it| html! { <Ago at={it.started_at} /> },
        text: |_| String::new(),
        compare: |a, b| a.started_at.cmp(&b.started_at),
    },
    Column {
        title: "Took",
        class: "number middle",
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
            let why = it.reason.as_deref().map(words::sentence).unwrap_or_default();
            html! { <span class="clip" title={why.clone()}>{ why }</span> }
        },
        text: |it| it.reason.clone().unwrap_or_default(),
        compare: |a, b| a.reason.cmp(&b.reason),
    },
];

fn kind(it: &HistoryEntry) -> &'static str {
    it.kind.map_or("", DeploymentKind::word)
}

const KIND: Kind<HistoryEntry> = Kind {
    id: "history",
    label: "Rollouts",
    columns: COLUMNS,
    name: |it| it.rollout.to_string(),
    href: Some(|it| Route::rollout(it.rollout).path()),
};

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    pub(super) name: AppName,
    /// The one under way: when it is another, the list is read again.
    pub(super) rollout: Option<RolloutId>,
}

#[component]
pub(super) fn History(props: &Props) -> Html {
    let pages = use_pages::<HistoryEntry, _>(format!("/applications/{}/history", props.name), props.rollout);
    listed(&pages, "history", |items| match items.is_empty() {
        true => html! { <Empty title="Every deployment appears here, with what became of it." /> },
        false => html! { <Table<HistoryEntry> kind={&KIND} rows={rows(items)} /> },
    })
}
