//! Which others of its application a replica's Erlang node is to be asked to connect to now. Pure.
//!
//! Of two nodes that miss each other the one whose name comes first is asked; the other only where that has not helped for a
//! while, because one of the two may be able to dial and the other not. Erlang completes a mesh by itself, so a few are asked
//! for at each look, and who cannot be reached is asked for more and more rarely: however many there are, no storm.

use std::collections::{BTreeMap, BTreeSet};

use proto::pb;

use crate::clock::Time;

/// At each look of one node: the others are met through these, or are next.
const ASKS: usize = 4;
/// How long the first of two has to try alone, in milliseconds.
const TURN_OF_THE_OTHER: u64 = 10_000;
/// Between two tries, doubled from the first to the last.
const PAUSES: std::ops::RangeInclusive<u64> = 2_000..=60_000;
/// Who stayed connected as long is asked for at once when it is missed again.
const SETTLED: u64 = 10_000;
/// Between two looks into why one is missed.
const LOOK_INTO_EVERY: u64 = 30_000;
/// More than any mesh of Erlang nodes has: each of them holds a connection to each other.
const MOST: usize = 1_024;
/// The same for those on other hosts that it is connected to: one of two can dial the other, and who can may be away tomorrow.
const TRY_EVERY: u64 = 120_000;
/// A name that a node was once asked for stays among its atoms, of which it has a million.
const NAMES: usize = 10_000;
/// Of an atom, in characters.
const LONGEST: usize = 255;

/// Why one cannot be reached: in a word, and as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub kind: &'static str,
    pub because: String,
}

impl Why {
    fn words(&self) -> (&str, &str) {
        (self.kind, &self.because)
    }
}

/// What is to be done after a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// To be connected to.
    pub ask: Vec<String>,
    /// Of which it is to be found out why it is missed.
    pub look_into: Option<String>,
}

/// How one node stands with its siblings: the others of its application.
#[derive(Debug, Default)]
pub struct Mesh {
    /// Which of its siblings are on other hosts.
    pub elsewhere: BTreeSet<String>,
    siblings: BTreeMap<String, Sibling>,
    /// Another replica has the name of this one.
    shares_its_name: bool,
    /// When that was noticed first.
    shared_since: Option<u64>,
    /// Every name that it was ever asked for.
    named: BTreeSet<String>,
}

#[derive(Debug)]
enum Sibling {
    Connected(Connected),
    Missed(Missed),
}

#[derive(Debug)]
struct Connected {
    since: Time,
    since_unix_ms: u64,
    /// In vain, before it was.
    tries: u32,
    looked_into: Option<Time>,
    /// This host cannot dial it.
    why: Option<Why>,
}

#[derive(Debug)]
struct Missed {
    since_unix_ms: u64,
    tries: u32,
    again: Time,
    looked_into: Option<Time>,
    why: Option<Why>,
}

/// Whether it can be a node's name at all.
pub fn is_node_name(name: &str) -> bool {
    let (before, host) = name.split_once('@').unwrap_or_default();
    let is_plain = |it: char| !it.is_control() && !it.is_whitespace() && it != '@';
    let is_part = |it: &str| !it.is_empty() && it.chars().all(is_plain);
    name.chars().count() <= LONGEST && is_part(before) && is_part(host)
}

impl Mesh {
    /// `own`: the node that is looked at. `wanted`: whom it is to be connected to, its own name among them where another has
    /// it too. `seen`: whom it is connected to.
    pub fn look(
        &mut self,
        own: &str,
        wanted: &BTreeSet<String>,
        seen: &BTreeSet<String>,
        (now, unix_ms): (Time, u64),
    ) -> Step {
        self.shares_its_name = wanted.contains(own);
        self.shared_since = self.shares_its_name.then(|| self.shared_since.unwrap_or(unix_ms));
        let wanted: BTreeSet<&String> =
            wanted.iter().filter(|it| *it != own && is_node_name(it)).take(MOST).collect();
        self.siblings.retain(|name, _| wanted.contains(name));
        for name in wanted {
            let before = self.siblings.remove(name);
            let sibling = before.map_or_else(
                || Sibling::first(seen.contains(name), own < name.as_str(), (now, unix_ms)),
                |it| it.at(seen.contains(name), own < name.as_str(), (now, unix_ms)),
            );
            self.siblings.insert(name.clone(), sibling);
        }
        self.step(now)
    }

    fn step(&self, now: Time) -> Step {
        let missed = || {
            self.siblings.iter().filter_map(|(name, sibling)| match sibling {
                Sibling::Missed(missed) => Some((name, missed)),
                Sibling::Connected(_) => None,
            })
        };
        let room = NAMES.saturating_sub(self.named.len());
        let may_be_named = |name: &String| room > ASKS || self.named.contains(name);
        let mut due: Vec<_> = missed().filter(|(name, it)| it.again <= now && may_be_named(name)).collect();
        // Who waited longest is next, so that none is forgotten behind those who cannot be reached.
        due.sort_by_key(|(_, it)| it.again);
        let is_in_the_dark = |missed: &&Missed| {
            missed.tries > 0 && missed.looked_into.is_none_or(|at| now.since(at) >= LOOK_INTO_EVERY)
        };
        let dark = missed().filter(|(_, it)| is_in_the_dark(it)).min_by_key(|(_, it)| it.looked_into);
        let tried = self.siblings.iter().filter_map(|(name, sibling)| match sibling {
            Sibling::Connected(it) if self.elsewhere.contains(name) => Some((name, it)),
            _ => None,
        });
        let is_due = |it: &Connected| now.since(it.looked_into.unwrap_or(it.since)) >= TRY_EVERY;
        let tried = tried.filter(|(_, it)| it.looked_into.is_none() || is_due(it));
        let untried = tried.min_by_key(|(_, it)| it.looked_into).map(|(name, _)| name);
        Step {
            ask: due.into_iter().take(ASKS).map(|(name, _)| name.clone()).collect(),
            look_into: dark.map(|(name, _)| name).or(untried).cloned(),
        }
    }

    /// It was asked to connect to this one. `jitter`: 0..1, so that those who miss the same one do not ask in step.
    pub fn asked(&mut self, name: &str, now: Time, jitter: f64) {
        self.named.insert(name.to_owned());
        if let Some(Sibling::Missed(missed)) = self.siblings.get_mut(name) {
            missed.again = now.plus(pause(missed.tries, jitter));
            missed.tries = missed.tries.saturating_add(1);
        }
    }

    /// What came of dialling it from this host. `None`: it was reached.
    pub fn looked_into(&mut self, name: &str, found: Option<Why>, now: Time) {
        let Some(
            Sibling::Missed(Missed { looked_into, why, .. })
            | Sibling::Connected(Connected { looked_into, why, .. }),
        ) = self.siblings.get_mut(name)
        else {
            return;
        };
        *looked_into = Some(now);
        *why = found;
    }

    /// To be reported.
    pub fn told(&self, own: &str) -> pb::Mesh {
        let mut told = pb::Mesh::default();
        for (name, sibling) in &self.siblings {
            match sibling {
                Sibling::Connected(connected) => {
                    told.connected.push(name.clone());
                    let why = connected.why.as_ref();
                    let told_of = why.map(|it| said(name, connected.since_unix_ms, it.words()));
                    told.unreached.extend(told_of);
                }
                Sibling::Missed(missed) => {
                    let why = missed.looked_into.map(|_| missed.why.as_ref().map_or(LET_IN, Why::words));
                    told.missed.push(said(name, missed.since_unix_ms, why.unwrap_or_default()));
                }
            }
        }
        if self.shares_its_name {
            let why = ("name-clash", "another replica of the application has the same node name");
            told.missed.push(said(own, self.shared_since.unwrap_or_default(), why));
        }
        told
    }
}

impl Sibling {
    fn first(is_seen: bool, is_ours_to_ask: bool, now: (Time, u64)) -> Self {
        match is_seen {
            true => Self::connected(0, now),
            false => Self::missed(0, is_ours_to_ask, now),
        }
    }

    fn at(self, is_seen: bool, is_ours_to_ask: bool, now: (Time, u64)) -> Self {
        match self {
            Self::Connected(it) if is_seen => Self::Connected(it),
            Self::Connected(it) if now.0.since(it.since) >= SETTLED => Self::missed(0, is_ours_to_ask, now),
            // One that comes and goes is not a new one each time.
            Self::Connected(it) => Self::missed(it.tries, is_ours_to_ask, now),
            Self::Missed(missed) if is_seen => Self::connected(missed.tries, now),
            Self::Missed(missed) => Self::Missed(missed),
        }
    }

    fn connected(tries: u32, (since, since_unix_ms): (Time, u64)) -> Self {
        Self::Connected(Connected { since, since_unix_ms, tries, looked_into: None, why: None })
    }

    fn missed(tries: u32, is_ours_to_ask: bool, (now, unix_ms): (Time, u64)) -> Self {
        let wait = if is_ours_to_ask { 0 } else { TURN_OF_THE_OTHER };
        let again = match tries {
            0 => now.plus(wait),
            tries => now.plus(wait.max(pause(tries - 1, 0.0))),
        };
        Self::Missed(Missed { since_unix_ms: unix_ms, tries, again, looked_into: None, why: None })
    }
}

/// Where this host is let in by one that its node is not connected to.
const LET_IN: (&str, &str) = (
    "unknown",
    "it lets this host in and takes the same cookie, and yet the two replicas do not connect: the log of either says why",
);

/// `why`: in a word, and as a sentence.
fn said(name: &str, since_unix_ms: u64, (kind, because): (&str, &str)) -> pb::Missed {
    pb::Missed { name: name.to_owned(), since_unix_ms, kind: kind.to_owned(), because: because.to_owned() }
}

/// Before the next try, after so many in vain.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "at most a minute"
)]
fn pause(tries: u32, jitter: f64) -> u64 {
    let pause = PAUSES.start().saturating_mul(1_u64.checked_shl(tries.min(16)).unwrap_or(u64::MAX));
    let pause = pause.min(*PAUSES.end());
    pause + (pause as f64 * 0.25 * jitter.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000);

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|it| (*it).to_owned()).collect()
    }

    fn numbered(count: usize) -> Vec<String> {
        (0..count).map(|it| format!("shop-{it:04}@web")).collect()
    }

    /// What is asked by `own`, which sees nobody and reaches nobody, look by look.
    fn in_vain(own: &str, wanted: &BTreeSet<String>, looks: u64) -> Vec<(u64, Vec<String>)> {
        let mut mesh = Mesh::default();
        let mut asked = Vec::new();
        for at in (0..looks).map(|it| it * 2_000) {
            let now = START.plus(at);
            let step = mesh.look(own, wanted, &BTreeSet::new(), (now, now.0));
            for name in &step.ask {
                mesh.asked(name, now, 0.0);
            }
            if !step.ask.is_empty() {
                asked.push((at, step.ask));
            }
        }
        asked
    }

    #[test]
    fn the_first_of_two_asks_at_once_and_the_other_only_where_that_does_not_help() {
        let wanted = names(&["a@web", "b@web"]);
        let when = |own: &str| in_vain(own, &wanted, 20).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(when("a@web"), [0, 2_000, 6_000, 14_000, 30_000]);
        assert_eq!(when("b@web"), [10_000, 12_000, 16_000, 24_000]);
    }

    #[test]
    fn who_cannot_be_reached_is_asked_for_once_a_minute_in_the_end() {
        let asked = in_vain("a@web", &names(&["b@web"]), 300);
        let last: Vec<u64> = asked.iter().rev().take(3).map(|(at, _)| *at).collect();
        assert_eq!((last[0] - last[1], last[1] - last[2]), (60_000, 60_000));
        assert!(asked.len() < 20, "{asked:?}");
    }

    #[test]
    fn of_many_a_few_are_asked_for_at_each_look_and_each_has_its_turn() {
        let all = numbered(100);
        let wanted: BTreeSet<String> = all.iter().cloned().collect();
        let asked = in_vain(&all[0], &wanted, 60);
        assert!(asked.iter().all(|(_, names)| names.len() <= ASKS));
        let ever: BTreeSet<&String> = asked.iter().flat_map(|(_, names)| names).collect();
        assert_eq!(ever.len(), 99);
    }

    /// Erlang's own: who connects to a node is connected to all that it knows.
    #[test]
    fn a_whole_fleet_of_nodes_that_start_together_is_one_mesh_within_a_few_looks_and_with_few_questions() {
        let all = numbered(60);
        let wanted: BTreeSet<String> = all.iter().cloned().collect();
        let mut meshes: Vec<Mesh> = all.iter().map(|_| Mesh::default()).collect();
        let mut part_of: Vec<usize> = (0..all.len()).collect();
        let (mut looks, mut questions) = (0_u64, 0);
        while part_of.iter().any(|it| *it != part_of[0]) {
            let now = START.plus(looks * 2_000);
            for number in 0..all.len() {
                let together = (0..all.len()).filter(|it| part_of[*it] == part_of[number] && *it != number);
                let seen: BTreeSet<String> = together.map(|it| all[it].clone()).collect();
                let step = meshes[number].look(&all[number], &wanted, &seen, (now, 0));
                for name in step.ask {
                    questions += 1;
                    meshes[number].asked(&name, now, 0.5);
                    let other = all.iter().position(|it| *it == name).unwrap();
                    let (from, to) = (part_of[other], part_of[number]);
                    part_of.iter_mut().filter(|it| **it == from).for_each(|it| *it = to);
                }
            }
            looks += 1;
            assert!(looks < 20, "{part_of:?}");
        }
        assert!(looks <= 3 && questions < 4 * all.len(), "{looks} looks, {questions} questions");
    }

    #[test]
    fn after_a_split_the_others_are_asked_for_at_once_unless_they_keep_coming_and_going() {
        let (own, wanted) = ("a@web", names(&["b@web"]));
        let mut mesh = Mesh::default();
        let mut look = |at: u64, seen: &[&str]| {
            let now = START.plus(at);
            let step = mesh.look(own, &wanted, &names(seen), (now, now.0));
            for name in &step.ask {
                mesh.asked(name, now, 0.0);
            }
            step.ask.len()
        };
        assert_eq!(look(0, &[]), 1);
        assert_eq!(look(2_000, &["b@web"]), 0);
        assert_eq!(look(20_000, &["b@web"]), 0);
        assert_eq!(look(22_000, &[]), 1, "it was well for long");
        assert_eq!(look(24_000, &["b@web"]), 0);
        assert_eq!([look(26_000, &[]), look(27_000, &[]), look(28_000, &[])], [0, 0, 1], "it came and went");
    }

    #[test]
    fn nobody_but_its_siblings_is_ever_named_and_those_that_are_gone_no_more() {
        let mut mesh = Mesh::default();
        let wanted = names(&["b@web", "no name", "c@", "@web", "d@web@x", "e\n@web"]);
        let step = mesh.look("a@web", &wanted, &names(&["other-1@web"]), (START, 5));
        assert_eq!(step, Step { ask: vec!["b@web".to_owned()], look_into: None });
        let missed = pb::Missed { name: "b@web".to_owned(), since_unix_ms: 5, ..Default::default() };
        assert_eq!(mesh.told("a@web"), pb::Mesh { missed: vec![missed], ..Default::default() });
        let step = mesh.look("a@web", &names(&[]), &names(&["b@web"]), (START, 5));
        assert_eq!((step, mesh.told("a@web")), (Step::default(), pb::Mesh::default()));
    }

    #[test]
    fn a_node_is_taught_only_so_many_names() {
        let mut mesh = Mesh::default();
        let mut taught = BTreeSet::new();
        for round in 0..2 * NAMES {
            let now = START.plus(u64::try_from(round).unwrap() * 2_000);
            let wanted = names(&[&format!("b-{round}@web")]);
            for name in mesh.look("a@web", &wanted, &BTreeSet::new(), (now, 0)).ask {
                mesh.asked(&name, now, 0.0);
                taught.insert(name);
            }
        }
        assert!(taught.len() <= NAMES && taught.len() > NAMES - 10, "{}", taught.len());
    }

    #[test]
    fn why_one_is_missed_is_looked_into_after_a_try_and_then_seldom() {
        let mut mesh = Mesh::default();
        let wanted = names(&["b@web"]);
        let mut into = Vec::new();
        for at in (0..40).map(|it| it * 2_000) {
            let now = START.plus(at);
            let step = mesh.look("a@web", &wanted, &BTreeSet::new(), (now, 0));
            for name in &step.ask {
                mesh.asked(name, now, 0.0);
            }
            if let Some(name) = step.look_into {
                let why = Why { kind: "refused", because: "nothing listens there".to_owned() };
                mesh.looked_into(&name, Some(why), now);
                into.push(at);
            }
        }
        assert_eq!(into, [2_000, 32_000, 62_000]);
        let told = mesh.told("a@web").missed.remove(0);
        assert_eq!((told.kind.as_str(), told.because.as_str()), ("refused", "nothing listens there"));
    }

    #[test]
    fn those_on_other_hosts_are_dialled_now_and_then_also_while_they_are_connected() {
        let mut mesh = Mesh { elsewhere: names(&["c@far"]), ..Mesh::default() };
        let wanted = names(&["b@web", "c@far"]);
        let mut tried = Vec::new();
        for at in (0..125).map(|it| it * 2_000) {
            let now = START.plus(at);
            if let Some(name) = mesh.look("a@web", &wanted, &wanted, (now, at)).look_into {
                let why = Why { kind: "refused", because: "it takes no connection".to_owned() };
                mesh.looked_into(&name, Some(why), now);
                tried.push((at, name));
            }
        }
        assert_eq!(tried, [0, 120_000, 240_000].map(|at| (at, "c@far".to_owned())));
        let told = mesh.told("a@web");
        assert_eq!((told.connected.len(), told.missed.len()), (2, 0));
        assert_eq!((told.unreached[0].name.as_str(), told.unreached[0].kind.as_str()), ("c@far", "refused"));
        mesh.looked_into("c@far", None, START);
        assert_eq!(mesh.told("a@web").unreached, []);
    }

    #[test]
    fn who_has_the_same_name_as_another_is_said_and_not_asked_for() {
        let mut mesh = Mesh::default();
        let step = mesh.look("a@web", &names(&["a@web"]), &BTreeSet::new(), (START, 7));
        assert_eq!(step, Step::default());
        let told = mesh.told("a@web").missed.remove(0);
        assert_eq!((told.kind.as_str(), told.since_unix_ms), ("name-clash", 7));
    }
}
