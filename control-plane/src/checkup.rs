//! Looks at an application's Erlang nodes as somebody would who knows what can be wrong with them: what is found of each, in plain
//! words, with what to do. Pure: all of it was reported already, and agents find out by themselves why nodes do not connect.

mod advice;

use std::collections::{BTreeMap, BTreeSet};

use proto::checkup::{Checkup, Finding, ReplicaCheckup, Subject, Verdict};
use proto::replicas::{ErlangNode, Mesh, Missed, Replica};
use proto::state::SlotState;

use crate::clock::Time;
use crate::spec::{AppSpec, Cluster, Distribution, DistributionMode, DistributionTls};

/// What was started less than this ago may be on its way: a virtual machine boots.
const FRESH_MS: u64 = 15_000;

/// The same of who is missed: its agent looks every two seconds, and one that is restarted is back by then.
const MISSED_MS: u64 = 10_000;

/// Names in a sentence.
const NAMES: usize = 5;

/// What is looked at.
pub struct Patient<'a> {
    pub spec: &'a AppSpec,
    /// Every place of it.
    pub replicas: &'a [Replica],
    /// All other applications, which may run on the same hosts.
    pub others: &'a [&'a AppSpec],
    pub now: Time,
}

pub fn look(patient: &Patient<'_>) -> Checkup {
    let spec = patient.spec;
    let mut findings = Vec::new();
    patient.names(&mut findings);
    patient.ports(&mut findings);
    patient.tls(&mut findings);
    let replicas: Vec<_> = patient.replicas.iter().map(|it| patient.replica(it)).collect();
    if replicas.is_empty() {
        let sentence = "it has no replica yet: there is nothing to look at";
        findings.push(finding(Verdict::Note, Subject::Distribution, sentence, None));
    }
    let mut checkup = Checkup {
        application: spec.name.clone(),
        cluster: spec.cluster.word().to_owned(),
        distribution: spec.distribution.mode.word().to_owned(),
        well: true,
        findings,
        replicas,
    };
    let all = checkup.replicas.iter_mut().flat_map(|it| &mut it.findings).chain(&mut checkup.findings);
    for advice in all.filter_map(|it| it.advice.as_mut()) {
        *advice = advice.replace(advice::APPLICATION, spec.name.as_str());
    }
    let well = checkup.all().all(|it| it.verdict != Verdict::Wrong);
    checkup.well = well;
    checkup
}

fn finding(
    verdict: Verdict,
    about: Subject,
    sentence: impl Into<String>,
    advice: impl Into<Option<&'static str>>,
) -> Finding {
    Finding { verdict, about, sentence: sentence.into(), advice: advice.into().map(str::to_owned) }
}

fn host(name: &str) -> &str {
    name.split_once('@').map_or("", |(_, host)| host)
}

/// No other host can reach what is called so.
fn is_of_loopback(host: &str) -> bool {
    host == "localhost"
        || host.starts_with("localhost.")
        || host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES);
    let first = names.iter().take(NAMES).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

impl Patient<'_> {
    fn is_off(&self) -> bool {
        self.spec.distribution.mode == DistributionMode::Off
    }

    fn hosts(&self) -> usize {
        self.replicas.iter().map(|it| &it.node).collect::<BTreeSet<_>>().len()
    }

    fn is_across_hosts(&self) -> bool {
        self.spec.cluster == Cluster::Fleet && !self.is_off() && self.hosts() > 1
    }

    /// Each is to have its own, wherever they are to meet; and across hosts one that leads to its host.
    fn names(&self, findings: &mut Vec<Finding>) {
        if self.is_off() || self.spec.cluster == Cluster::Off {
            return;
        }
        let mut whose: BTreeMap<(Option<&str>, &str), Vec<String>> = BTreeMap::new();
        for replica in self.replicas {
            let Some(node) = &replica.erlang else { continue };
            let met_on = (self.spec.cluster == Cluster::Node).then(|| replica.node.as_str());
            let place = format!("{}/{}", replica.node, replica.slot);
            whose.entry((met_on, node.name.as_str())).or_default().push(place);
        }
        for ((_, name), places) in whose.into_iter().filter(|(_, places)| places.len() > 1) {
            let sentence = format!("{} are all called {name}: they cannot be connected", listed(&places));
            findings.push(finding(Verdict::Wrong, Subject::Names, sentence, advice::SAME_NAMES));
        }
        if self.is_across_hosts() {
            let names = self.replicas.iter().filter_map(|it| it.erlang.as_ref()).map(|it| it.name.clone());
            let looped: Vec<String> = names.filter(|it| is_of_loopback(host(it))).collect();
            if !looped.is_empty() {
                let sentence = format!("{}: no other host can reach what is called so", listed(&looped));
                findings.push(finding(Verdict::Wrong, Subject::Names, sentence, advice::LOOPBACK_NAMES));
            }
        }
    }

    /// Room for each of its nodes on a host, and for those of others that share the range.
    fn ports(&self, findings: &mut Vec<Finding>) {
        if self.is_off() {
            return;
        }
        let Some((first, last)) = self.spec.distribution.ports else {
            if self.is_across_hosts() {
                let sentence =
                    "its nodes listen on any port, and a firewall between the hosts has to let all through";
                findings.push(finding(Verdict::Note, Subject::Ports, sentence, advice::NAME_PORTS));
            }
            return;
        };
        let meets = |it: &&&AppSpec| {
            let of_nodes = it.distribution.mode != DistributionMode::Off;
            of_nodes && it.distribution.ports.is_some_and(|(from, to)| from <= last && to >= first)
        };
        let sharing: Vec<&AppSpec> = self.others.iter().filter(meets).copied().collect();
        let all = sharing.iter().copied().chain([self.spec]);
        let (mut from, mut to, mut needed) = (first, last, 0_u32);
        for spec in all {
            let (its_first, its_last) = spec.distribution.ports.unwrap_or((first, last));
            (from, to) = (from.min(its_first), to.max(its_last));
            needed += u32::from(spec.most_per_node().get()) + 1;
        }
        let room = u32::from(to - from) + 1;
        let with = match sharing.is_empty() {
            true => String::new(),
            false => {
                let names: Vec<String> = sharing.iter().map(|it| it.name.to_string()).collect();
                format!(" (with those of {}, which share the range)", listed(&names))
            }
        };
        let sentence = format!(
            "distribution.ports {first} to {last}: {room} ports for up to {needed} nodes on a host{with}, one of each \
             application while it is deployed"
        );
        findings.push(match room < needed {
            true => finding(Verdict::Wrong, Subject::Ports, sentence, advice::WIDER_PORTS),
            false => finding(Verdict::Well, Subject::Ports, sentence, None),
        });
    }

    fn tls(&self, findings: &mut Vec<Finding>) {
        let nodes: Vec<_> = self.replicas.iter().filter_map(|it| it.erlang.as_ref()).collect();
        let of: BTreeSet<Option<&str>> = nodes.iter().map(|it| it.tls.as_deref()).collect();
        if of.len() > 1 && self.spec.cluster != Cluster::Off {
            let sentence = "some of its nodes talk TLS with other certificates than others, or none: they cannot be connected";
            findings.push(finding(Verdict::Wrong, Subject::Tls, sentence, advice::OTHER_TLS));
        } else if self.is_across_hosts() && of == BTreeSet::from([None]) {
            let Distribution { tls, .. } = &self.spec.distribution;
            if matches!(tls, DistributionTls::Host | DistributionTls::Off) {
                let sentence = "its nodes talk to each other across hosts in the clear, and a cookie is all that keeps others out";
                findings.push(finding(Verdict::Note, Subject::Tls, sentence, advice::USE_TLS));
            }
        }
    }

    fn replica(&self, replica: &Replica) -> ReplicaCheckup {
        let mut findings = Vec::new();
        if self.is_node(replica, &mut findings)
            && let Some(node) = &replica.erlang
            && self.is_connected(replica, node, &mut findings)
        {
            self.mesh(replica, node, &mut findings);
        }
        ReplicaCheckup {
            node: replica.node.clone(),
            slot: replica.slot,
            name: replica.erlang.as_ref().map(|it| it.name.clone()),
            findings,
        }
    }

    fn is_fresh(&self, replica: &Replica) -> bool {
        replica.started_at.is_none_or(|at| self.now.since(Time(at.0)) < FRESH_MS)
    }

    fn is_node(&self, replica: &Replica, findings: &mut Vec<Finding>) -> bool {
        let mut say = |verdict, sentence: String, advice: Option<&'static str>| {
            findings.push(finding(verdict, Subject::Distribution, sentence, advice));
            false
        };
        let off = Some(advice::SEE_SHOW);
        match (replica.state, replica.pid, &replica.erlang) {
            (SlotState::Unknown, ..) => say(
                Verdict::Wrong,
                format!("{} is not heard from: nothing is known of it", replica.node),
                Some(advice::NODE_LOST),
            ),
            (SlotState::Failed | SlotState::BackingOff, None, _) => {
                say(Verdict::Wrong, format!("it does not run ({})", replica.state), off)
            }
            (_, None, _) => say(Verdict::Note, format!("it does not run yet ({})", replica.state), None),
            (_, Some(_), Some(_)) => true,
            (_, Some(_), None) if self.is_off() => {
                say(Verdict::Well, "it is no Erlang node, as distribution.mode off has it".to_owned(), None)
            }
            (_, Some(_), None) if self.is_fresh(replica) => say(
                Verdict::Note,
                "it has just been started: it is not known yet which Erlang node it is".to_owned(),
                None,
            ),
            (_, Some(_), None) => say(
                Verdict::Wrong,
                format!(
                    "it is no Erlang node, although distribution.mode is {}: its virtual machine was started without a name",
                    self.spec.distribution.mode.word()
                ),
                Some(advice::NAMELESS),
            ),
        }
    }

    fn is_connected(&self, replica: &Replica, node: &ErlangNode, findings: &mut Vec<Finding>) -> bool {
        let found = match (node.connected_since, &node.because) {
            (Some(_), _) => finding(Verdict::Well, Subject::Connection, "its agent is connected to it", None),
            (None, Some(because)) => {
                let verdict = if self.is_fresh(replica) { Verdict::Note } else { Verdict::Wrong };
                let advice = advice::of_connection(node.kind.as_deref().unwrap_or_default());
                finding(
                    verdict,
                    Subject::Connection,
                    format!("its agent is not connected to it: {because}"),
                    advice,
                )
            }
            (None, None) => {
                finding(Verdict::Note, Subject::Connection, "its agent is about to connect to it", None)
            }
        };
        findings.push(found);
        node.connected_since.is_some()
    }

    fn mesh(&self, replica: &Replica, node: &ErlangNode, findings: &mut Vec<Finding>) {
        let mut say = |verdict, sentence: String, advice: Option<&'static str>| {
            findings.push(finding(verdict, Subject::Mesh, sentence, advice));
        };
        if self.spec.cluster == Cluster::Off || self.is_off() {
            return say(Verdict::Well, "cluster is off: it is connected to nobody by us".to_owned(), None);
        }
        let siblings = self.siblings(replica, node);
        let Some(Mesh { connected, missed, unreached }) = &node.mesh else {
            let sentence = "it was not looked yet whom it is connected to";
            return say(Verdict::Note, sentence.to_owned(), None);
        };
        let known: BTreeSet<&String> = connected.iter().chain(missed.iter().map(|it| &it.name)).collect();
        let untold: Vec<String> = siblings.iter().filter(|it| !known.contains(it)).cloned().collect();
        if connected.is_empty() && missed.is_empty() && untold.is_empty() {
            return say(Verdict::Well, "there is nobody whom it is to be connected to".to_owned(), None);
        }
        if !connected.is_empty() {
            let all = connected.len() + missed.len() + untold.len();
            let sentence = format!("it is connected to {} of {all}: {}", connected.len(), listed(connected));
            say(Verdict::Well, sentence, None);
        }
        if !untold.is_empty() {
            say(Verdict::Note, format!("it is about to be told of {}", listed(&untold)), None);
        }
        for Missed { name, since, kind, because } in missed {
            let ago = self.now.since(Time(since.0));
            let because = because.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
            let sentence = format!("it has missed {name} for {} s{because}", ago / 1_000);
            let verdict = if ago < MISSED_MS { Verdict::Note } else { Verdict::Wrong };
            say(verdict, sentence, advice::of_mesh(kind.as_deref().unwrap_or_default()));
        }
        for Missed { name, because, kind, .. } in unreached {
            let because = because.as_deref().unwrap_or("it cannot be dialled");
            let sentence = format!(
                "it is connected to {name}, which could dial it, but its own host cannot dial that one: {because}"
            );
            say(Verdict::Note, sentence, advice::of_mesh(kind.as_deref().unwrap_or_default()));
        }
    }

    /// Whom it is to be connected to, as far as is known here.
    fn siblings(&self, replica: &Replica, node: &ErlangNode) -> BTreeSet<String> {
        let is_met = |it: &&Replica| self.spec.cluster == Cluster::Fleet || it.node == replica.node;
        let names = self.replicas.iter().filter(is_met).filter(|it| it.pid.is_some());
        let names = names.filter_map(|it| it.erlang.as_ref()).map(|it| it.name.clone());
        names.filter(|it| *it != node.name).collect()
    }
}

#[cfg(test)]
mod tests;
