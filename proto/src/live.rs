//! What the console's WebSocket (`/api/v1/live`) carries.
//!
//! The browser says what it wants to see; for each topic it gets a snapshot and then, whenever that changed, either the
//! whole again or the change. Messages in between are left out rather than queued: only the newest counts.

mod read;

use serde::{Deserialize, Serialize};

use crate::apps::Application;
use crate::events::Event;
use crate::ids::{AppName, NodeName, RolloutId, Slot};
use crate::metrics::{HostHistory, VmHistory};
use crate::nodes::Node;
use crate::overview::{Fleet, FleetChange};
use crate::rollouts::Rollout;
use crate::timestamp::Timestamp;

/// The most topics of one connection.
pub const MAX_TOPICS: usize = 16;

/// Browser to control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Ask {
    /// These topics and no others from now on.
    Subscribe { topics: Vec<Topic> },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "topic", rename_all = "kebab-case")]
pub enum Topic {
    /// [`News::Fleet`], then [`News::FleetChange`].
    Fleet,
    /// [`News::Application`] or [`News::Gone`].
    Application { name: AppName },
    /// [`News::Node`] or [`News::Gone`].
    Node { name: NodeName },
    /// [`News::HostHistory`] with the last hour, then with what came since; or [`News::Gone`].
    HostHistory { name: NodeName },
    /// [`News::VmHistory`], in the same way; or [`News::Gone`].
    // The console reads it by HTTP while somebody looks.
    #[cfg_attr(target_arch = "wasm32", serde(skip_deserializing))]
    VmHistory { application: AppName, node: NodeName, slot: Slot },
    /// [`News::Rollout`] or [`News::Gone`].
    Rollout { id: RolloutId },
    /// [`News::Events`]: the newest, then each as it comes.
    Events,
}

/// Control plane to browser.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Message {
    /// The control plane's time: ages are counted from it, not from the browser's clock.
    pub at: Timestamp,
    #[serde(flatten)]
    pub news: News,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", content = "data", rename_all = "kebab-case")]
pub enum News {
    Fleet(Box<Fleet>),
    FleetChange(Box<FleetChange>),
    Application(Box<Application>),
    Node(Box<Node>),
    HostHistory(HostHistory),
    VmHistory(VmHistory),
    Rollout(Box<Rollout>),
    /// Newest last. `restart`: forget those from before.
    Events {
        restart: bool,
        events: Vec<Event>,
    },
    /// What this topic names does not exist (any more).
    Gone(Topic),
    /// The topic could not be read this time; it is tried again.
    Failed {
        topic: Topic,
        detail: String,
    },
    /// Nothing changed: sent so that a console can tell a quiet link from a dead one.
    Idle,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_reads_as_a_person_would_write_it() {
        let ask: Ask = serde_json::from_str(
            r#"{"type":"subscribe","topics":[{"topic":"fleet"},{"topic":"application","name":"myapp"}]}"#,
        )
        .unwrap();
        let name = "myapp".parse().unwrap();
        assert_eq!(ask, Ask::Subscribe { topics: vec![Topic::Fleet, Topic::Application { name }] });
    }

    #[test]
    fn a_message_carries_its_time_beside_its_news() {
        let message = Message { at: Timestamp(0), news: News::Idle };
        let json = serde_json::to_string(&message).unwrap();
        assert_eq!(json, r#"{"at":"1970-01-01T00:00:00.000Z","type":"idle"}"#);
        assert_eq!(serde_json::from_str::<Message>(&json).unwrap(), message);
    }
}
