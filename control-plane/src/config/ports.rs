//! Which ports a host gives to which slot, and where two applications would want the same one.
//!
//! Slot n gets `base + n - 1`. `start_first` also needs slot N + 1 while it replaces a release. Applications whose labels
//! keep them from ever sharing a node may share ports.

use proto::state::Strategy;

use super::application::Written;
use super::fault::{Origin, Sink};

/// A range of ports that one application holds at rest.
struct Claim<'a> {
    app: &'a Written,
    /// `PORT`, or what the range is for.
    what: String,
    first: u32,
    last: u32,
    at: &'a Origin,
}

impl Claim<'_> {
    fn holds(&self, port: u32) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn meets(&self, other: &Claim<'_>) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    fn name(&self) -> String {
        format!("{} of {} ({}..{})", self.what, self.app.spec.name, self.first, self.last)
    }
}

/// Faults for what collides at rest; `stop_first` for an application that chose no strategy and has no room for its spare slot.
pub(super) fn check(apps: &mut [Written], sink: &Sink<'_>) {
    let held: Vec<Claim<'_>> = apps.iter().flat_map(claims).collect();
    let cramped: Vec<Option<String>> = apps.iter().map(|app| no_room(app, &held)).collect();
    for (app, why) in apps.iter_mut().zip(cramped) {
        let (Strategy::StartFirst, Some(why)) = (app.spec.deploy.strategy, why) else { continue };
        if let Some(strategy) = &app.strategy {
            let path = app.path.key("deploy").key("strategy");
            let advice = format!("{why}; leave room for one port more, or write stop_first");
            sink.fault(
                strategy.origin.clone(),
                path.as_str(),
                "start_first without room for its spare slot",
                advice,
            );
        } else {
            app.spec.deploy.strategy = Strategy::StopFirst;
            sink.notice(format!(
                "{} is replaced in place (stop_first): {why}. Leave room for one port more to have start_first",
                app.spec.name
            ));
        }
    }
    let held: Vec<Claim<'_>> = apps.iter().flat_map(claims).collect();
    at_rest(&held, sink);
}

fn claims(app: &Written) -> Vec<Claim<'_>> {
    let replicas = u32::from(app.spec.most_per_node().get());
    let ports = app.spec.ports.iter().zip(&app.bases).map(|(port, at)| {
        let first = u32::from(port.base);
        Claim { app, what: port.key.clone(), first, last: first + replicas - 1, at }
    });
    let distribution = app.spec.distribution.ports.map(|(first, last)| Claim {
        app,
        what: "distribution.ports".to_owned(),
        first: first.into(),
        last: last.into(),
        at: &app.distribution,
    });
    ports.chain(distribution).collect()
}

fn at_rest(claims: &[Claim<'_>], sink: &Sink<'_>) {
    for (index, claim) in claims.iter().enumerate() {
        let path = claim.path();
        if claim.last > 65_535 {
            let found = format!("{}, which needs ports up to {}", claim.first, claim.last);
            let advice = "allowed: a base from which every replica gets a port up to 65535";
            sink.fault(claim.at.clone(), &path, found, advice);
        }
        for other in &claims[..index] {
            if claim.meets(other) && !both_shared(claim, other) && may_share_a_node(claim.app, other.app) {
                let found = format!("ports {}..{}, which meet {}", claim.first, claim.last, other.name());
                sink.fault(
                    claim.at.clone(),
                    &path,
                    found,
                    "each replica needs a port of its own; move one of the two",
                );
            }
        }
        if claim.is_distribution() {
            // One more than the replicas while a release is replaced.
            let spare = u32::from(claim.app.spec.deploy.strategy == Strategy::StartFirst);
            let needed = u32::from(claim.app.spec.most_per_node().get()) + spare;
            let room = claim.last - claim.first + 1;
            if room < needed {
                let found = format!("{room} ports for {needed} slots");
                sink.fault(
                    claim.at.clone(),
                    &path,
                    found,
                    format!("name a range of at least {needed} ports"),
                );
            }
        }
    }
}

impl Claim<'_> {
    fn is_distribution(&self) -> bool {
        self.what == "distribution.ports"
    }

    fn path(&self) -> String {
        if self.is_distribution() {
            self.app.path.key("distribution").key("ports").as_str().to_owned()
        } else {
            self.app.path.key("replica_ports").item(&self.what).key("base").as_str().to_owned()
        }
    }
}

/// Erlang takes the first free port of a distribution range, so these ranges may overlap each other.
fn both_shared(one: &Claim<'_>, other: &Claim<'_>) -> bool {
    one.is_distribution() && other.is_distribution()
}

/// Why slot N + 1 has no port; `None`: it has.
fn no_room(app: &Written, claims: &[Claim<'_>]) -> Option<String> {
    let replicas = u32::from(app.spec.most_per_node().get());
    app.spec.ports.iter().find_map(|port| {
        let spare = u32::from(port.base) + replicas;
        if spare > 65_535 {
            return Some(format!("its spare slot would need port {spare} for {}", port.key));
        }
        let held = claims.iter().find(|it| it.holds(spare) && may_share_a_node(app, it.app))?;
        Some(format!(
            "its spare slot would need port {spare} for {}, which belongs to {}",
            port.key,
            held.name()
        ))
    })
}

/// Unless a label of both has two values.
fn may_share_a_node(one: &Written, other: &Written) -> bool {
    one.spec.nodes.iter().all(|(key, value)| other.spec.nodes.get(key).is_none_or(|it| it == value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use proto::state::Strategy;

    use crate::config::{Config, Flags};

    fn read(yaml: &str) -> Config {
        Config::read(Some((Path::new("f"), yaml.as_bytes())), &Flags::default(), &BTreeMap::new()).unwrap()
    }

    #[test]
    fn an_application_without_room_for_its_spare_slot_is_replaced_in_place_and_told_why() {
        let config = read(
            "applications:
  - { name: one, replica_ports: [{ key: PORT, base: 4000 }] }
  - { name: two, replica_ports: [{ key: PORT, base: 4003 }] }
",
        );
        let strategies: Vec<Strategy> = config.applications.iter().map(|it| it.deploy.strategy).collect();
        assert_eq!(strategies, [Strategy::StopFirst, Strategy::StartFirst]);
        assert_eq!(
            config.notices,
            [
                "one is replaced in place (stop_first): its spare slot would need port 4003 for PORT, which belongs to \
                 PORT of two (4003..4005). Leave room for one port more to have start_first"
            ]
        );
    }

    #[test]
    fn the_spare_slot_counts_against_an_applications_own_ports_and_the_last_port() {
        for ports in
            ["[{ key: PORT, base: 4000 }, { key: ADMIN, base: 4003 }]", "[{ key: PORT, base: 65533 }]"]
        {
            let config = read(&format!("applications:\n  - {{ name: one, replica_ports: {ports} }}\n"));
            assert_eq!(config.applications[0].deploy.strategy, Strategy::StopFirst, "{ports}");
            assert_eq!(config.notices.len(), 1);
        }
    }

    #[test]
    fn applications_that_never_share_a_node_may_share_ports() {
        let config = read(
            "applications:
  - { name: one, nodes: { role: web }, replica_ports: [{ key: PORT, base: 4000 }] }
  - { name: two, nodes: { role: batch, zone: a }, replica_ports: [{ key: PORT, base: 4000 }] }
",
        );
        assert_eq!(config.notices, Vec::<String>::new());
    }

    #[test]
    fn distribution_ranges_may_overlap_because_erlang_takes_the_first_free_port() {
        let config = read(
            "applications:
  - { name: one, distribution: { ports: [9100, 9200] } }
  - { name: two, distribution: { ports: [9100, 9200] } }
",
        );
        assert_eq!(config.applications[1].distribution.ports, Some((9100, 9200)));
    }
}
