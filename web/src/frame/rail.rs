//! The pages there are. A number stands only where something needs a person.

use yew::{Html, Properties, component, html};

use crate::components::icon::Icon;
use crate::route::Route;
use crate::router::use_route;
use crate::words;

#[derive(Properties, PartialEq)]
pub(super) struct Props {
    /// Applications that need somebody.
    pub(super) attention: usize,
}

#[component]
pub(super) fn Rail(props: &Props) -> Html {
    let route = use_route();
    let entry = |page: &'static str, title: &'static str, icon: Icon, to: Route, attention: usize| {
        let current = page == page_of(&route);
        html! {
            <a href={to.path()} data-page={page} {title} aria-current={current.then_some("page")}>
                { icon.view() }<span>{ title }</span>
                if let Some(said) = words::need_attention(attention) {
                    <b class="count" title={said.clone()} aria-label={said}>{ attention }</b>
                }
            </a>
        }
    };
    html! {
        <nav class="rail" aria-label="Pages">
            { entry("overview", "Overview", Icon::Overview, Route::Overview, 0) }
            { entry("applications", "Applications", Icon::Applications, Route::Applications, props.attention) }
            { entry("nodes", "Nodes", Icon::Nodes, Route::Nodes, 0) }
            { entry("rollouts", "Rollouts", Icon::Rollouts, Route::Rollouts, 0) }
            { entry("events", "Events", Icon::Events, Route::Events, 0) }
            { entry("configuration", "Configuration", Icon::Configuration, Route::Configuration, 0) }
        </nav>
    }
}

/// Which entry of the rail an address belongs to.
fn page_of(route: &Route) -> &'static str {
    match route {
        Route::Overview => "overview",
        Route::Applications | Route::Application { .. } => "applications",
        Route::Nodes | Route::Node { .. } => "nodes",
        Route::Rollouts | Route::Rollout { .. } => "rollouts",
        Route::Events => "events",
        Route::Configuration => "configuration",
        #[cfg(feature = "gallery")]
        Route::Gallery => "",
        Route::NotFound => "",
    }
}
