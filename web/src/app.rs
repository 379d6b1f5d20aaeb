//! The whole: who is signed in, the link, the clock, the frame, and which page is in it.

use proto::ids::{AppName, NodeName, RolloutId};
use yew::{Html, component, html};
use yew_router::{BrowserRouter, Switch};

use crate::clock::ClockProvider;
use crate::components::notice::Empty;
use crate::frame::Frame;
use crate::live::LiveProvider;
use crate::pages::application::ApplicationPage;
use crate::pages::applications::ApplicationsPage;
use crate::pages::configuration::ConfigurationPage;
use crate::pages::events::EventsPage;
use crate::pages::node::NodePage;
use crate::pages::nodes::NodesPage;
use crate::pages::overview::OverviewPage;
use crate::pages::rollout::RolloutPage;
use crate::pages::rollouts::RolloutsPage;
use crate::route::{Route, Tab};
use crate::session::SessionProvider;

#[component]
pub fn App() -> Html {
    html! {
        <BrowserRouter>
            <SessionProvider>
                <LiveProvider>
                    <ClockProvider>
                        <Frame><Switch<Route> render={page} /></Frame>
                    </ClockProvider>
                </LiveProvider>
            </SessionProvider>
        </BrowserRouter>
    }
}

fn page(route: Route) -> Html {
    match route {
        Route::Overview => html! { <OverviewPage /> },
        Route::Applications => html! { <ApplicationsPage /> },
        Route::Application { name } => application(&name, Some(Tab::Replicas)),
        Route::ApplicationTab { name, tab } => application(&name, Tab::from_word(&tab)),
        Route::Nodes => html! { <NodesPage /> },
        Route::Node { name } => match name.parse::<NodeName>() {
            Ok(name) => html! { <NodePage {name} /> },
            Err(_) => not_found(),
        },
        Route::Rollouts => html! { <RolloutsPage /> },
        Route::Rollout { id } => match id.parse::<RolloutId>() {
            Ok(id) => html! { <RolloutPage {id} /> },
            Err(_) => not_found(),
        },
        Route::Events => html! { <EventsPage /> },
        Route::Configuration => html! { <ConfigurationPage /> },
        #[cfg(feature = "gallery")]
        Route::Gallery => html! { <crate::pages::gallery::GalleryPage /> },
        Route::NotFound => not_found(),
    }
}

fn application(name: &str, tab: Option<Tab>) -> Html {
    match (name.parse::<AppName>(), tab) {
        (Ok(name), Some(tab)) => html! { <ApplicationPage {name} {tab} /> },
        _ => not_found(),
    }
}

fn not_found() -> Html {
    html! {
        <Empty title="There is no such page."><a class="button" href="/">{ "Go to the overview" }</a></Empty>
    }
}
