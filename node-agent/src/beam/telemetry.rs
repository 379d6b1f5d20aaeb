//! Events of `telemetry`, counted on a running system by a module of ours (`deployex_telemetry.erl`): loaded, kept up with a
//! lease, read and removed. Only where somebody asked for it: of nothing else here code of ours is loaded into a node.
//!
//! A call every ten seconds does all of it: it attaches what is not attached yet, tells what was counted since the beginning and
//! renews the lease. Where nobody calls for a minute, the module detaches itself and drops its table.

mod read;

use std::time::Duration;

use super::{AskError, PATIENCE};
use crate::dist::connection::{CallError, Cap, Connection};
use crate::dist::term::{Limits, Term};

pub use self::read::{Reading, Row, Value};

/// Compiled with OTP 25, so that every later one loads it too. A test compiles the source beside it and compares.
pub const BEAM: &[u8] = include_bytes!("telemetry/deployex_telemetry.beam");
/// Of that: what `module_info(md5)` of the right module is.
pub const DIGEST: [u8; 16] =
    [0x28, 0x78, 0xa5, 0xea, 0x87, 0x33, 0xca, 0x03, 0xbd, 0x22, 0x53, 0xc4, 0x53, 0xb1, 0x4b, 0x81];
const MODULE: &str = "deployex_telemetry";

/// So long it goes on where nobody asks.
pub const LEASE: Duration = Duration::from_mins(1);
/// Rows with a label, of all events together: what is beyond is one row of its event.
const ROWS: i64 = 200;
/// Of what is wished for, whoever wished it.
const WISHES: usize = 50;
/// For a full answer: 264 rows and 640 values.
const LONGEST_ANSWER: usize = 512 << 10;
const TERMS: u32 = 64 << 10;

/// Of Phoenix: requests as the endpoint and as the router see them, and what live views are asked.
const PHOENIX: [Known; 4] = [
    ("phoenix.endpoint.stop", "phoenix"),
    ("phoenix.router_dispatch.stop", "phoenix"),
    ("phoenix.router_dispatch.exception", "phoenix"),
    ("phoenix.live_view.handle_event.stop", "live_view"),
];
/// Of `telemetry_poller`.
const VM: [Known; 3] =
    [("vm.memory", "plain"), ("vm.total_run_queue_lengths", "plain"), ("vm.system_counts", "plain")];

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    Told(Reading),
    /// Nothing is counted there: why, as a sentence.
    Without(String),
}

/// What the module is to attach to, as it wants it, and which groups were named for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes {
    term: Term,
    groups: Vec<(&'static str, &'static [Known])>,
    repositories: bool,
}

/// An event, and what its labels are.
type Known = (&'static str, &'static str);

impl Wishes {
    /// `None`: nothing is wished for. Events: as the configuration names them.
    pub fn of(events: &[String]) -> Option<Self> {
        let (mut wishes, mut groups, mut repositories) = (Vec::new(), Vec::new(), false);
        for event in events.iter().take(WISHES) {
            match event.as_str() {
                "phoenix" => groups.push(("phoenix", PHOENIX.as_slice())),
                "vm" => groups.push(("vm", VM.as_slice())),
                "ecto" => {
                    repositories = true;
                    wishes.push(Term::atom("repositories"));
                }
                name => wishes.push(wish(name, "plain")),
            }
        }
        let of_groups = groups.iter().flat_map(|(_, events)| events.iter());
        wishes.extend(of_groups.map(|(name, kind)| wish(name, kind)));
        // Where an event is named that a group has as well, it has the labels of the group.
        wishes.sort_by_key(is_plain);
        (!wishes.is_empty()).then_some(Self { term: Term::List(wishes), groups, repositories })
    }

    /// What of it there is none of, by the names that were wished for: of a group only where all of its events are unknown, as
    /// not every Phoenix has live views.
    fn missed(&self, unknown: &[String], has_repositories: bool) -> Vec<String> {
        let is_unknown = |event: &str| unknown.iter().any(|it| it == event);
        let of_group =
            |name: &str| self.groups.iter().any(|(_, events)| events.iter().any(|it| it.0 == name));
        let mut missed: Vec<String> = unknown.iter().filter(|it| !of_group(it)).cloned().collect();
        let without = self.groups.iter().filter(|(_, events)| events.iter().all(|it| is_unknown(it.0)));
        missed.extend(without.map(|(group, _)| (*group).to_owned()));
        if self.repositories && !has_repositories {
            missed.push("ecto".to_owned());
        }
        missed
    }
}

fn wish(name: &str, kind: &'static str) -> Term {
    Term::Tuple(vec![Term::from(name), Term::atom(kind)])
}

fn is_plain(wish: &Term) -> bool {
    matches!(wish.as_tuple(), Some([_, kind]) if kind.as_atom() == Some("plain"))
}

/// Reads what was counted, and sees to it that it is counted on: for `lease` at least.
///
/// # Errors
/// Where the node does not answer, or not what was asked.
pub async fn turn(connection: &Connection, wishes: &Wishes, lease: Duration) -> Result<Turn, AskError> {
    match ask(connection, wishes, lease).await {
        Ok(Answer::Turn(turn)) => return Ok(turn),
        Ok(Answer::OtherModule) => {
            if !remove(connection).await? {
                return Ok(Turn::Without(
                    "somebody still runs in the module that an earlier agent loaded".to_owned(),
                ));
            }
        }
        Err(AskError::Call(CallError::Raised { reason, .. })) if is_undefined(&reason) => {
            let library = call(connection, "code", "ensure_loaded", vec![Term::atom("telemetry")]).await?;
            if !is_tagged(&library, "module") {
                return Ok(Turn::Without(read::NO_LIBRARY.to_owned()));
            }
        }
        Err(error) => return Err(error),
    }
    let file = MODULE.chars().chain(".erl".chars()).map(|it| Term::Integer(u32::from(it).into())).collect();
    let module = vec![Term::atom(MODULE), Term::List(file), Term::Binary(bytes::Bytes::from_static(BEAM))];
    let loaded = call(connection, "code", "load_binary", module).await?;
    if !is_tagged(&loaded, "module") {
        return Ok(Turn::Without(format!("the module that counts cannot be loaded: {}", loaded.brief())));
    }
    match ask(connection, wishes, lease).await? {
        Answer::Turn(turn) => Ok(turn),
        Answer::OtherModule => Err(AskError::Odd("another module than was loaded".to_owned())),
    }
}

/// Whether a module of ours is there, of whichever agent. Leaves no name behind on a node that has not heard of it.
///
/// # Errors
/// Where the node does not answer.
pub async fn is_there(connection: &Connection) -> Result<bool, AskError> {
    let name = vec![Term::from(MODULE), Term::atom("utf8")];
    match call(connection, "erlang", "binary_to_existing_atom", name).await {
        Err(AskError::Call(CallError::Raised { .. })) => return Ok(false),
        known => known?,
    };
    for holds in ["module_loaded", "check_old_code"] {
        if call(connection, "erlang", holds, vec![Term::atom(MODULE)]).await?.as_atom() == Some("true") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Detaches all, and takes the module out of the node. `false`: somebody still runs in it; to be tried again.
///
/// # Errors
/// Where the node does not answer.
pub async fn remove(connection: &Connection) -> Result<bool, AskError> {
    // Of one that was removed before. Only one more is kept, and what runs in the oldest would be killed for it.
    if call(connection, "code", "soft_purge", vec![Term::atom(MODULE)]).await?.as_atom() != Some("true") {
        return Ok(false);
    }
    match call(connection, MODULE, "stop", Vec::new()).await {
        Err(AskError::Call(CallError::Raised { reason, .. })) if is_undefined(&reason) => {}
        answer => {
            answer?;
            // Who looked up the handlers before they were detached is still to call one.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    let module = || vec![Term::atom(MODULE)];
    call(connection, "code", "delete", module()).await?;
    Ok(call(connection, "code", "soft_purge", module()).await?.as_atom() == Some("true"))
}

enum Answer {
    Turn(Turn),
    /// One of another version is loaded.
    OtherModule,
}

async fn ask(connection: &Connection, wishes: &Wishes, lease: Duration) -> Result<Answer, AskError> {
    let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    let digest = Term::Binary(bytes::Bytes::from_static(&DIGEST));
    let arguments = vec![digest, wishes.term.clone(), Term::Integer(ROWS), Term::Integer(lease)];
    let cap = Cap { longest: LONGEST_ANSWER, limits: Limits { terms: TERMS, ..Limits::default() } };
    let answer = connection.call_within(cap, MODULE, "turn", arguments, PATIENCE).await?;
    if answer.as_atom() == Some("other") {
        return Ok(Answer::OtherModule);
    }
    let odd = || AskError::Odd(answer.brief().to_string());
    let mut turn = read::turn(&answer).ok_or_else(odd)?;
    if let Turn::Told(reading) = &mut turn {
        reading.unknown = wishes.missed(&reading.unknown, reading.has_repositories);
    }
    Ok(Answer::Turn(turn))
}

async fn call(
    connection: &Connection,
    module: &'static str,
    function: &'static str,
    arguments: Vec<Term>,
) -> Result<Term, AskError> {
    Ok(connection.call(module, function, arguments, PATIENCE).await?)
}

fn is_tagged(answer: &Term, tag: &str) -> bool {
    answer.as_tuple().and_then(|it| it.first()).and_then(Term::as_atom) == Some(tag)
}

fn is_undefined(reason: &Term) -> bool {
    reason.as_atom() == Some("undef")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(events: &[&str]) -> Vec<String> {
        let events: Vec<String> = events.iter().map(|it| (*it).to_owned()).collect();
        let Some(Wishes { term: Term::List(wishes), .. }) = Wishes::of(&events) else { return Vec::new() };
        wishes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn groups_stand_for_their_events_and_nothing_is_nothing() {
        assert_eq!(Wishes::of(&[]), None);
        let wishes = named(&["shop.orders.stop", "phoenix", "ecto"]);
        assert_eq!(wishes.len(), PHOENIX.len() + 2, "{wishes:?}");
        assert_eq!(wishes[..2], ["repositories", "{<<\"phoenix.endpoint.stop\">>,phoenix}"]);
        assert_eq!(wishes[PHOENIX.len() + 1..], ["{<<\"shop.orders.stop\">>,plain}"]);
        assert_eq!(named(&["vm"]).len(), VM.len());
    }

    #[test]
    fn an_event_of_a_group_that_is_named_as_well_keeps_its_labels() {
        let wishes = named(&["phoenix.endpoint.stop", "phoenix"]);
        let of_endpoint: Vec<&String> = wishes.iter().filter(|it| it.contains("endpoint")).collect();
        assert_eq!(of_endpoint[0], "{<<\"phoenix.endpoint.stop\">>,phoenix}");
    }

    #[test]
    fn what_there_is_none_of_is_told_by_the_name_that_was_wished_for() {
        let wishes = Wishes::of(&["phoenix", "vm", "ecto", "shop.stop"].map(str::to_owned)).unwrap();
        let unknown = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<String>>();
        let no_live_views = unknown(&["phoenix.live_view.handle_event.stop"]);
        assert_eq!(wishes.missed(&no_live_views, true), [""; 0]);
        let mut none = unknown(&["shop.stop"]);
        none.extend(PHOENIX.iter().chain(&VM).map(|it| it.0.to_owned()));
        assert_eq!(wishes.missed(&none, false), ["shop.stop", "phoenix", "vm", "ecto"]);
    }

    #[test]
    fn no_more_is_wished_for_than_agreed() {
        let many: Vec<String> = (0..1_000).map(|n| format!("shop.event.n{n}")).collect();
        assert!(matches!(Wishes::of(&many), Some(Wishes { term: Term::List(it), .. }) if it.len() == WISHES));
    }
}
