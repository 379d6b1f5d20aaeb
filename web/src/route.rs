//! The addresses of the console: from a page to its path and back. Pure; [`crate::router`] goes there.

use proto::ids::{AppName, NodeName, RolloutId};

#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    Overview,
    Applications,
    Application {
        name: AppName,
        tab: Tab,
    },
    Nodes,
    Node {
        name: NodeName,
    },
    Rollouts,
    Rollout {
        id: RolloutId,
    },
    Events,
    Configuration,
    #[cfg(feature = "gallery")]
    Gallery,
    NotFound,
}

impl Route {
    pub fn application(name: &AppName) -> Self {
        Self::tab(name, Tab::Replicas)
    }

    pub fn tab(name: &AppName, tab: Tab) -> Self {
        Self::Application { name: name.clone(), tab }
    }

    pub fn node(name: &NodeName) -> Self {
        Self::Node { name: name.clone() }
    }

    pub fn rollout(id: RolloutId) -> Self {
        Self::Rollout { id }
    }

    pub fn path(&self) -> String {
        match self {
            Self::Overview => "/".to_owned(),
            Self::Applications => "/applications".to_owned(),
            Self::Application { name, tab: Tab::Replicas } => format!("/applications/{name}"),
            Self::Application { name, tab } => format!("/applications/{name}/{}", tab.word()),
            Self::Nodes => "/nodes".to_owned(),
            Self::Node { name } => format!("/nodes/{name}"),
            Self::Rollouts => "/rollouts".to_owned(),
            Self::Rollout { id } => format!("/rollouts/{id}"),
            Self::Events => "/events".to_owned(),
            Self::Configuration => "/configuration".to_owned(),
            #[cfg(feature = "gallery")]
            Self::Gallery => "/_components".to_owned(),
            Self::NotFound => "/not-found".to_owned(),
        }
    }

    /// The page at a path, with or without a slash at its end. What cannot be the name of anything leads nowhere.
    pub fn at(path: &str) -> Self {
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut parts = path.strip_suffix('/').unwrap_or(path).split('/');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next()];
        let found = match parts {
            [Some(""), None, ..] => Some(Self::Overview),
            [Some(page), None, ..] => Self::of_word(page),
            [Some("applications"), Some(name), tab, None] => {
                let tab = tab.map_or(Some(Tab::Replicas), Tab::from_word);
                name.parse().ok().zip(tab).map(|(name, tab)| Self::Application { name, tab })
            }
            [Some("nodes"), Some(name), None, _] => name.parse().ok().map(|name| Self::Node { name }),
            [Some("rollouts"), Some(id), None, _] => id.parse().ok().map(|id| Self::Rollout { id }),
            _ => None,
        };
        found.unwrap_or(Self::NotFound)
    }

    fn of_word(page: &str) -> Option<Self> {
        Some(match page {
            "applications" => Self::Applications,
            "nodes" => Self::Nodes,
            "rollouts" => Self::Rollouts,
            "events" => Self::Events,
            "configuration" => Self::Configuration,
            #[cfg(feature = "gallery")]
            "_components" => Self::Gallery,
            _ => return None,
        })
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
            Route::rollout("0199a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b".parse().unwrap()),
        ];
        routes.extend(Tab::ALL.iter().map(|tab| Route::tab(&name, *tab)));
        for route in routes {
            let path = route.path();
            assert_eq!(Route::at(&path), route);
            assert_eq!(Route::at(&format!("{path}/")), route);
        }
    }

    #[test]
    fn an_address_that_is_none_of_ours_leads_nowhere() {
        for path in [
            "/nowhere",
            "/nodes//",
            "/nodes/web-1/replicas",
            "/nodes/no such node",
            "/rollouts/17",
            "/applications/myapp/shell",
            "/applications/myapp/logs/1",
            "/applications/My App",
            "/events/1",
            "/no/such/place/at/all",
        ] {
            assert_eq!(Route::at(path), Route::NotFound, "{path}");
        }
    }
}
