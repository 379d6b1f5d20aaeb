//! The whole: who is signed in, the link, the clock, the frame, and which page is in it.

use yew::{Html, component, html};

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
use crate::route::Route;
use crate::router::{RouterProvider, use_route};
use crate::session::SessionProvider;

#[component]
pub fn App() -> Html {
    html! {
        <RouterProvider>
            <SessionProvider>
                <LiveProvider>
                    <ClockProvider>
                        <Frame><Page /></Frame>
                    </ClockProvider>
                </LiveProvider>
            </SessionProvider>
        </RouterProvider>
    }
}

/// The page that the address names.
#[component]
fn Page() -> Html {
    match use_route() {
        Route::Overview => html! { <OverviewPage /> },
        Route::Applications => html! { <ApplicationsPage /> },
        Route::Application { name, tab } => html! { <ApplicationPage {name} {tab} /> },
        Route::Nodes => html! { <NodesPage /> },
        Route::Node { name } => html! { <NodePage {name} /> },
        Route::Rollouts => html! { <RolloutsPage /> },
        Route::Rollout { id } => html! { <RolloutPage {id} /> },
        Route::Events => html! { <EventsPage /> },
        Route::Configuration => html! { <ConfigurationPage /> },
        #[cfg(feature = "gallery")]
        Route::Gallery => html! { <crate::pages::gallery::GalleryPage /> },
        Route::NotFound => html! {
            <Empty title="There is no such page."><a class="button" href="/">{ "Go to the overview" }</a></Empty>
        },
    }
}
