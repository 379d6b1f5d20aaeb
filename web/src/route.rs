//! The addresses of the console.

use proto::ids::{AppName, NodeName, RolloutId};
use yew_router::Routable;

#[derive(Clone, Debug, PartialEq, Routable)]
pub enum Route {
    #[at("/")]
    Overview,
    #[at("/applications")]
    Applications,
    #[at("/applications/:name")]
    Application { name: String },
    #[at("/applications/:name/:tab")]
    ApplicationTab { name: String, tab: String },
    #[at("/nodes")]
    Nodes,
    #[at("/nodes/:name")]
    Node { name: String },
    #[at("/rollouts")]
    Rollouts,
    #[at("/rollouts/:id")]
    Rollout { id: String },
    #[at("/events")]
    Events,
    #[at("/configuration")]
    Configuration,
    #[cfg(feature = "gallery")]
    #[at("/_components")]
    Gallery,
    #[not_found]
    #[at("/not-found")]
    NotFound,
}

impl Route {
    pub fn application(name: &AppName) -> Self {
        Self::Application { name: name.to_string() }
    }

    pub fn tab(name: &AppName, tab: Tab) -> Self {
        match tab {
            Tab::Replicas => Self::application(name),
            _ => Self::ApplicationTab { name: name.to_string(), tab: tab.word().to_owned() },
        }
    }

    pub fn node(name: &NodeName) -> Self {
        Self::Node { name: name.to_string() }
    }

    pub fn rollout(id: RolloutId) -> Self {
        Self::Rollout { id: id.to_string() }
    }

    pub fn path(&self) -> String {
        self.to_path()
    }
}

/// The tabs of an application's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tab {
    Replicas,
    Rollouts,
    Releases,
    Logs,
    Configuration,
}

impl Tab {
    pub const ALL: &[Self] =
        &[Self::Replicas, Self::Rollouts, Self::Releases, Self::Logs, Self::Configuration];

    pub fn word(self) -> &'static str {
        match self {
            Self::Replicas => "replicas",
            Self::Rollouts => "rollouts",
            Self::Releases => "releases",
            Self::Logs => "logs",
            Self::Configuration => "configuration",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Replicas => "Replicas",
            Self::Rollouts => "Rollouts",
            Self::Releases => "Releases",
            Self::Logs => "Logs",
            Self::Configuration => "Configuration",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|it| it.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_leads_back_to_its_page() {
        let name: AppName = "my_app-1".parse().unwrap();
        let mut routes = vec![
            Route::Overview,
            Route::Applications,
            Route::Nodes,
            Route::Rollouts,
            Route::Events,
            Route::Configuration,
            Route::node(&"web-1.example.com".parse().unwrap()),
        ];
        routes.extend(Tab::ALL.iter().map(|tab| Route::tab(&name, *tab)));
        for route in routes {
            assert_eq!(Route::recognize(&route.path()), Some(route.clone()));
        }
        assert_eq!(Route::recognize("/no/such/place/at/all"), Some(Route::NotFound));
    }
}
