//! The whole fleet in one answer, and the change from one such answer to the next.

use serde::{Deserialize, Serialize};

use crate::apps::ApplicationSummary;
use crate::ids::{AppName, NodeName};
use crate::nodes::NodeSummary;
use crate::rollouts::RolloutSummary;
use crate::state::Tone;

/// `GET /fleet`: what the overview shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Fleet {
    pub headline: Headline,
    /// By name.
    pub applications: Vec<ApplicationSummary>,
    /// By name.
    pub nodes: Vec<NodeSummary>,
    /// Those that are not over, oldest first.
    pub rollouts: Vec<RolloutSummary>,
}

/// How the fleet is, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Headline {
    pub tone: Tone,
    pub text: String,
    /// `{env}` of the bucket path: which fleet this is.
    pub environment: String,
}

/// What turns one [`Fleet`] into the next. Absent and empty mean unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FleetChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headline: Option<Headline>,
    /// New, or to take the place of the one of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<ApplicationSummary>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications_gone: Vec<AppName>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeSummary>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes_gone: Vec<NodeName>,
    /// All that are not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollouts: Option<Vec<RolloutSummary>>,
}

impl Fleet {
    /// What to tell someone who has `self` so that it becomes `next`; `None`: they are the same.
    pub fn change_to(&self, next: &Self) -> Option<FleetChange> {
        let Self { headline, applications, nodes, rollouts } = next;
        let (apps_changed, applications_gone) =
            difference(&self.applications, applications, |it| it.name.clone());
        let (nodes_changed, nodes_gone) = difference(&self.nodes, nodes, |it| it.name.clone());
        let change = FleetChange {
            headline: (self.headline != *headline).then(|| headline.clone()),
            applications: apps_changed,
            applications_gone,
            nodes: nodes_changed,
            nodes_gone,
            rollouts: (self.rollouts != *rollouts).then(|| rollouts.clone()),
        };
        (change != FleetChange::default()).then_some(change)
    }

    pub fn apply(&mut self, change: FleetChange) {
        let FleetChange { headline, applications, applications_gone, nodes, nodes_gone, rollouts } = change;
        if let Some(headline) = headline {
            self.headline = headline;
        }
        merge(&mut self.applications, applications, &applications_gone, |it| &it.name);
        merge(&mut self.nodes, nodes, &nodes_gone, |it| &it.name);
        if let Some(rollouts) = rollouts {
            self.rollouts = rollouts;
        }
    }
}

/// Both sides are ordered by key: one walk over them.
fn difference<T: Clone + PartialEq, K: Ord>(old: &[T], new: &[T], key: impl Fn(&T) -> K) -> (Vec<T>, Vec<K>) {
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    let mut old = old.iter().peekable();
    for item in new {
        while let Some(left) = old.next_if(|it| key(it) < key(item)) {
            gone.push(key(left));
        }
        if old.next_if(|it| key(it) == key(item)) != Some(item) {
            changed.push(item.clone());
        }
    }
    gone.extend(old.map(key));
    (changed, gone)
}

fn merge<T, K: Ord>(items: &mut Vec<T>, changed: Vec<T>, gone: &[K], key: impl Fn(&T) -> &K) {
    items.retain(|it| !gone.contains(key(it)));
    for item in changed {
        match items.binary_search_by(|it| key(it).cmp(key(&item))) {
            Ok(at) => items[at] = item,
            Err(at) => items.insert(at, item),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ids::NodeId;
    use crate::state::Liveness;

    fn fleet(text: &str, nodes: &[(&str, u32)]) -> Fleet {
        let node = |(name, replicas): &(&str, u32)| NodeSummary {
            id: NodeId(uuid::Uuid::nil()),
            name: name.parse().unwrap(),
            liveness: Liveness::Up,
            labels: BTreeMap::new(),
            service: crate::state::Service::Open,
            agent_version: "0.1.0".to_owned(),
            heard_at: None,
            replicas: *replicas,
            replicas_ready: 0,
            usage: None,
            warnings: Vec::new(),
        };
        Fleet {
            headline: Headline { tone: Tone::Ok, text: text.to_owned(), environment: "local".to_owned() },
            applications: Vec::new(),
            nodes: nodes.iter().map(node).collect(),
            rollouts: Vec::new(),
        }
    }

    #[test]
    fn a_fleet_that_did_not_change_has_no_change() {
        let fleet = fleet("fine", &[("a", 1)]);
        assert_eq!(fleet.change_to(&fleet.clone()), None);
    }

    #[test]
    fn applying_the_change_gives_the_next_fleet() {
        let states: [&[(&str, u32)]; 8] = [
            &[],
            &[("b", 1)],
            &[("a", 1), ("b", 1), ("c", 1)],
            &[("a", 1), ("b", 2), ("d", 1)],
            &[("c", 1)],
            &[("c", 2), ("z", 1)],
            &[("c-2", 1), ("c-10", 1)],
            &[("c-1", 1), ("c-2", 2), ("c-9", 1), ("c-10", 1), ("c-11", 1)],
        ];
        for from in states {
            for to in states {
                let (mut before, after) = (fleet("x", from), fleet("y", to));
                before.apply(before.change_to(&after).unwrap());
                assert_eq!(before, after, "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_change_names_only_what_changed() {
        let change = fleet("x", &[("a", 1), ("b", 1)]).change_to(&fleet("x", &[("a", 1), ("b", 2)])).unwrap();
        let json = serde_json::to_value(&change).unwrap();
        assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), ["nodes"]);
        assert_eq!(change.nodes.len(), 1);
    }
}
