//! What this page knows of the fleet: the news of the link put together. Pure.
//!
//! Each message makes a new store that shares with the old one all that did not change.

use std::collections::{BTreeMap, BTreeSet};

use proto::apps::{Application, ApplicationSummary};
use proto::events::Event;
use proto::ids::{AppName, NodeName, RolloutId};
use proto::live::{News, Topic};
use proto::metrics::HostHistory;
use proto::nodes::{Node, NodeSummary};
use proto::overview::{Fleet, FleetChange, Headline};
use proto::replicas::Replica;
use proto::rollouts::{Rollout, RolloutSummary};

use crate::look::Look;
use crate::shared::{Shared, keep_unchanged};

/// Events that are kept: what the events page shows without asking for older ones.
const MOST_EVENTS: usize = 500;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    pub fleet: Look<FleetNow>,
    pub events: Look<Vec<Shared<Event>>>,
    applications: BTreeMap<AppName, Look<ApplicationNow>>,
    nodes: BTreeMap<NodeName, Look<NodeNow>>,
    rollouts: BTreeMap<RolloutId, Look<Rollout>>,
    histories: BTreeMap<NodeName, Look<HostHistory>>,
}

/// [`Fleet`], shared piece by piece.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetNow {
    pub headline: Headline,
    pub applications: Vec<Shared<ApplicationSummary>>,
    pub nodes: Vec<Shared<NodeSummary>>,
    pub rollouts: Vec<Shared<RolloutSummary>>,
}

/// An application, its replicas shared one by one; `application.slots` is empty.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplicationNow {
    pub application: Application,
    pub slots: Vec<Shared<Replica>>,
}

/// A node, its replicas shared one by one; `node.slots` is empty.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeNow {
    pub node: Node,
    pub slots: Vec<Shared<Replica>>,
}

impl Store {
    pub fn application(&self, name: &AppName) -> Look<ApplicationNow> {
        self.applications.get(name).cloned().unwrap_or_default()
    }

    pub fn node(&self, name: &NodeName) -> Look<NodeNow> {
        self.nodes.get(name).cloned().unwrap_or_default()
    }

    pub fn host_history(&self, name: &NodeName) -> Look<HostHistory> {
        self.histories.get(name).cloned().unwrap_or_default()
    }

    pub fn rollout(&self, id: RolloutId) -> Look<Rollout> {
        self.rollouts.get(&id).cloned().unwrap_or_default()
    }

    /// Forgets what no component asks for any more: it would grow old without a sign of it.
    #[must_use]
    pub fn only(mut self, topics: &BTreeSet<Topic>) -> Self {
        self.applications.retain(|name, _| topics.contains(&Topic::Application { name: name.clone() }));
        self.nodes.retain(|name, _| topics.contains(&Topic::Node { name: name.clone() }));
        self.histories.retain(|name, _| topics.contains(&Topic::HostHistory { name: name.clone() }));
        self.rollouts.retain(|id, _| topics.contains(&Topic::Rollout { id: *id }));
        self
    }

    #[must_use]
    pub fn absorb(mut self, news: News) -> Self {
        match news {
            News::Fleet(fleet) => {
                let next =
                    self.fleet.value().map_or_else(FleetNow::empty, |it| (**it).clone()).become_(*fleet);
                self.fleet = Look::here(next);
            }
            News::FleetChange(change) => {
                // Without a fleet there is nothing to change; a new link starts with the whole.
                if let Some(fleet) = self.fleet.value() {
                    self.fleet = Look::here((**fleet).clone().changed(*change));
                }
            }
            News::Application(application) => {
                let name = application.summary.name.clone();
                let slots = self.application(&name).value().map(|it| it.slots.clone()).unwrap_or_default();
                self.applications.insert(name, Look::here(ApplicationNow::after(&slots, *application)));
            }
            News::Node(node) => {
                let name = node.summary.name.clone();
                let slots = self.node(&name).value().map(|it| it.slots.clone()).unwrap_or_default();
                self.nodes.insert(name, Look::here(NodeNow::after(&slots, *node)));
            }
            News::HostHistory(next) => {
                let name = next.node.clone();
                let history = match self.host_history(&name).value() {
                    Some(known) => {
                        let mut history = (**known).clone();
                        history.absorb(next);
                        Some(history)
                    }
                    // Without the hour there is nothing to go on from; a new link starts with the whole.
                    None => Some(next).filter(|it| it.since.is_none()),
                };
                if let Some(history) = history {
                    self.histories.insert(name, Look::here(history));
                }
            }
            News::Rollout(rollout) => {
                self.rollouts.insert(rollout.summary.id, Look::here(*rollout));
            }
            News::Events { restart, events } => {
                let known = self.events.value().filter(|_| !restart);
                let mut all: Vec<Shared<Event>> = known.map(|it| (**it).clone()).unwrap_or_default();
                all.extend(events.into_iter().map(Shared::new));
                let too_many = all.len().saturating_sub(MOST_EVENTS);
                all.drain(..too_many);
                self.events = Look::here(all);
            }
            News::Gone(topic) => match topic {
                Topic::Application { name } => drop(self.applications.insert(name, Look::Gone)),
                Topic::Node { name } => drop(self.nodes.insert(name, Look::Gone)),
                Topic::HostHistory { name } => drop(self.histories.insert(name, Look::Gone)),
                Topic::Rollout { id } => drop(self.rollouts.insert(id, Look::Gone)),
                Topic::Fleet | Topic::Events | Topic::VmHistory { .. } => {}
            },
            News::Failed { topic, detail } => self.fail(topic, &detail),
            // Nor does any page ask for the hour of a VM here.
            News::VmHistory(_) | News::Idle => {}
        }
        self
    }

    fn fail(&mut self, topic: Topic, detail: &str) {
        match topic {
            Topic::Application { name } => {
                let failed = self.application(&name).failed(detail);
                self.applications.insert(name, failed);
            }
            Topic::Node { name } => {
                let failed = self.node(&name).failed(detail);
                self.nodes.insert(name, failed);
            }
            Topic::HostHistory { name } => {
                let failed = self.host_history(&name).failed(detail);
                self.histories.insert(name, failed);
            }
            Topic::Rollout { id } => {
                let failed = self.rollout(id).failed(detail);
                self.rollouts.insert(id, failed);
            }
            Topic::Fleet => self.fleet = self.fleet.clone().failed(detail),
            Topic::Events => self.events = self.events.clone().failed(detail),
            Topic::VmHistory { .. } => {}
        }
    }
}

impl FleetNow {
    fn empty() -> Self {
        let headline =
            Headline { tone: proto::state::Tone::Off, text: String::new(), environment: String::new() };
        Self { headline, applications: Vec::new(), nodes: Vec::new(), rollouts: Vec::new() }
    }

    /// The whole again, after a new connection: what is the same stays shared.
    fn become_(self, fleet: Fleet) -> Self {
        let Fleet { headline, applications, nodes, rollouts } = fleet;
        Self {
            headline,
            applications: keep_unchanged(&self.applications, applications, |it| it.name.clone()),
            nodes: keep_unchanged(&self.nodes, nodes, |it| it.name.clone()),
            rollouts: keep_unchanged(&self.rollouts, rollouts, |it| it.id),
        }
    }

    /// As [`Fleet::apply`].
    fn changed(mut self, change: FleetChange) -> Self {
        let FleetChange { headline, applications, applications_gone, nodes, nodes_gone, rollouts } = change;
        if let Some(headline) = headline {
            self.headline = headline;
        }
        merge(&mut self.applications, applications, &applications_gone, |it| &it.name);
        merge(&mut self.nodes, nodes, &nodes_gone, |it| &it.name);
        if let Some(rollouts) = rollouts {
            self.rollouts = keep_unchanged(&self.rollouts, rollouts, |it| it.id);
        }
        self
    }
}

fn merge<T, K: Ord>(items: &mut Vec<Shared<T>>, changed: Vec<T>, gone: &[K], key: impl Fn(&T) -> &K) {
    items.retain(|it| !gone.contains(key(it)));
    for item in changed {
        match items.binary_search_by(|it| key(it).cmp(key(&item))) {
            Ok(at) => items[at] = Shared::new(item),
            Err(at) => items.insert(at, Shared::new(item)),
        }
    }
}

impl ApplicationNow {
    fn after(slots: &[Shared<Replica>], mut application: Application) -> Self {
        let new = std::mem::take(&mut application.slots);
        let slots = keep_unchanged(slots, new, |it| (it.node.clone(), it.slot));
        Self { application, slots }
    }
}

impl NodeNow {
    fn after(slots: &[Shared<Replica>], mut node: Node) -> Self {
        let new = std::mem::take(&mut node.slots);
        let slots = keep_unchanged(slots, new, |it| (it.application.clone(), it.slot));
        Self { node, slots }
    }
}

#[cfg(test)]
mod tests {
    use proto::state::Tone;

    use super::*;
    use crate::sample;

    fn fleet(applications: Vec<ApplicationSummary>) -> Fleet {
        let headline = Headline { tone: Tone::Ok, text: "All is well.".into(), environment: "test".into() };
        Fleet { headline, applications, nodes: vec![sample::node_summary("a")], rollouts: Vec::new() }
    }

    fn plain(fleet: &FleetNow) -> Fleet {
        Fleet {
            headline: fleet.headline.clone(),
            applications: fleet.applications.iter().map(|it| (**it).clone()).collect(),
            nodes: fleet.nodes.iter().map(|it| (**it).clone()).collect(),
            rollouts: fleet.rollouts.iter().map(|it| (**it).clone()).collect(),
        }
    }

    #[test]
    fn a_change_makes_of_the_store_what_it_makes_of_the_fleet() {
        let before = fleet(vec![sample::summary("a"), sample::summary("b"), sample::summary("c")]);
        let mut other = sample::summary("b");
        other.sentence = "is moving".into();
        let mut after = fleet(vec![sample::summary("a"), other, sample::summary("d")]);
        after.nodes.clear();
        let change = before.change_to(&after).unwrap();

        let store = Store::default().absorb(News::Fleet(Box::new(before.clone())));
        let first = store.fleet.value().unwrap().applications[0].clone();
        let store = store.absorb(News::FleetChange(Box::new(change.clone())));
        let mut expected = before;
        expected.apply(change);
        let now = store.fleet.value().unwrap();
        assert_eq!(plain(now), expected);
        assert!(now.applications[0] == first, "what did not change is shared");
    }

    #[test]
    fn a_change_before_the_whole_is_left_alone() {
        let store = Store::default().absorb(News::FleetChange(Box::default()));
        assert_eq!(store, Store::default());
    }

    #[test]
    fn a_failure_keeps_what_was_shown_and_news_ends_it() {
        let application = sample::application("a");
        let topic = Topic::Application { name: application.summary.name.clone() };
        let name = application.summary.name.clone();
        let store = Store::default().absorb(News::Application(Box::new(application.clone())));
        let store = store.absorb(News::Failed { topic, detail: "the database is gone".into() });
        let look = store.application(&name);
        assert!(look.value().is_some());
        assert_eq!(look.fault(), Some("the database is gone"));
        let store = store.absorb(News::Application(Box::new(application)));
        assert_eq!(store.application(&name).fault(), None);
    }

    #[test]
    fn replicas_that_did_not_change_are_the_same_ones() {
        let mut application = sample::application("a");
        let name = application.summary.name.clone();
        let store = Store::default().absorb(News::Application(Box::new(application.clone())));
        let before = store.application(&name).value().unwrap().slots.clone();
        application.slots[1].crash_restarts += 1;
        let store = store.absorb(News::Application(Box::new(application)));
        let after = store.application(&name).value().unwrap().slots.clone();
        assert!(before[0] == after[0] && before[1] != after[1]);
    }

    #[test]
    fn an_hour_grows_by_what_is_told_and_never_begins_in_its_middle() {
        let whole = sample::host_history();
        let name = whole.node.clone();
        let mut next = whole.clone();
        let last = next.points.last().unwrap().clone();
        let at = proto::timestamp::Timestamp(last.at.0 + whole.every_ms);
        next.points = vec![proto::metrics::HostPoint { at, ..last.clone() }];
        next.since = Some(last.at);
        let store = Store::default().absorb(News::HostHistory(next.clone()));
        assert_eq!(store.host_history(&name), Look::Awaited);
        let store = store.absorb(News::HostHistory(whole)).absorb(News::HostHistory(next));
        assert_eq!(store.host_history(&name).value().unwrap().points.last().unwrap().at, at);
        let store = store.only(&BTreeSet::new());
        assert_eq!(store.host_history(&name), Look::Awaited);
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let application = sample::application("a");
        let name = application.summary.name.clone();
        let store = Store::default().absorb(News::Application(Box::new(application)));
        let store = store.only(&BTreeSet::from([Topic::Fleet]));
        assert_eq!(store.application(&name), Look::Awaited);
    }

    #[test]
    fn events_add_up_and_a_restart_forgets() {
        let event = |id| sample::event(id, "something happened");
        let told =
            |restart, ids: std::ops::Range<u128>| News::Events { restart, events: ids.map(event).collect() };
        let store = Store::default().absorb(told(true, 0..3)).absorb(told(false, 3..5));
        assert_eq!(store.events.value().unwrap().len(), 5);
        let store = store.absorb(told(false, 5..600));
        assert_eq!(store.events.value().unwrap().len(), MOST_EVENTS);
        let store = store.absorb(told(true, 600..601));
        assert_eq!(store.events.value().unwrap().len(), 1);
    }
}
