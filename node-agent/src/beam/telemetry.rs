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
    [0x4c, 0x25, 0x53, 0x87, 0x42, 0x56, 0x4a, 0xde, 0x99, 0x6a, 0x57, 0xcc, 0x09, 0x5c, 0x75, 0x39];
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
const PHOENIX: [(&str, &str); 4] = [
    ("phoenix.endpoint.stop", "phoenix"),
    ("phoenix.router_dispatch.stop", "phoenix"),
    ("phoenix.router_dispatch.exception", "phoenix"),
    ("phoenix.live_view.handle_event.stop", "live_view"),
];
/// Of `telemetry_poller`.
const VM: [(&str, &str); 3] =
    [("vm.memory", "plain"), ("vm.total_run_queue_lengths", "plain"), ("vm.system_counts", "plain")];

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    Told(Reading),
    /// Nothing is counted there: why, as a sentence.
    Without(String),
}

/// What the module is to attach to, as it wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Wishes(Term);

impl Wishes {
    /// `None`: nothing is wished for. Events: as the configuration names them.
    pub fn of(events: &[String]) -> Option<Self> {
        let known = |(name, kind): &(&'static str, &'static str)| wish(name, kind);
        let mut wishes = Vec::new();
        for event in events.iter().take(WISHES) {
            match event.as_str() {
                "phoenix" => wishes.extend(PHOENIX.iter().map(known)),
                "vm" => wishes.extend(VM.iter().map(known)),
                "ecto" => wishes.push(Term::atom("repositories")),
                name => wishes.push(wish(name, "plain")),
            }
        }
        // Where an event is named that a group has as well, it has the labels of the group.
        wishes.sort_by_key(|it| is_plain(it));
        (!wishes.is_empty()).then_some(Self(Term::List(wishes)))
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
            remove(connection).await?;
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

/// Whether a module of ours is there, of whichever agent.
///
/// # Errors
/// Where the node does not answer.
pub async fn is_there(connection: &Connection) -> Result<bool, AskError> {
    let loaded = call(connection, "erlang", "module_loaded", vec![Term::atom(MODULE)]).await?;
    Ok(loaded.as_atom() == Some("true"))
}

/// Detaches all, and takes the module out of the node. `false`: somebody still runs in it; to be tried again.
///
/// # Errors
/// Where the node does not answer.
pub async fn remove(connection: &Connection) -> Result<bool, AskError> {
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
    let arguments = vec![digest, wishes.0.clone(), Term::Integer(ROWS), Term::Integer(lease)];
    let cap = Cap { longest: LONGEST_ANSWER, limits: Limits { terms: TERMS, ..Limits::default() } };
    let answer = connection.call_within(cap, MODULE, "turn", arguments, PATIENCE).await?;
    if answer.as_atom() == Some("other") {
        return Ok(Answer::OtherModule);
    }
    let odd = || AskError::Odd(answer.brief().to_string());
    read::turn(&answer).map(Answer::Turn).ok_or_else(odd)
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
        let Some(Wishes(Term::List(wishes))) = Wishes::of(&events) else { return Vec::new() };
        wishes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn groups_stand_for_their_events_and_nothing_is_nothing() {
        assert_eq!(Wishes::of(&[]), None);
        let wishes = named(&["shop.orders.stop", "phoenix", "ecto"]);
        assert_eq!(wishes.len(), PHOENIX.len() + 2, "{wishes:?}");
        assert_eq!(wishes[0], "{<<\"phoenix.endpoint.stop\">>,phoenix}");
        assert_eq!(wishes[wishes.len() - 2..], ["repositories", "{<<\"shop.orders.stop\">>,plain}"]);
        assert_eq!(named(&["vm"]).len(), VM.len());
    }

    #[test]
    fn an_event_of_a_group_that_is_named_as_well_keeps_its_labels() {
        let wishes = named(&["phoenix.endpoint.stop", "phoenix"]);
        let of_endpoint: Vec<&String> = wishes.iter().filter(|it| it.contains("endpoint")).collect();
        assert_eq!(of_endpoint[0], "{<<\"phoenix.endpoint.stop\">>,phoenix}");
    }

    #[test]
    fn no_more_is_wished_for_than_agreed() {
        let many: Vec<String> = (0..1_000).map(|n| format!("shop.event.n{n}")).collect();
        assert!(matches!(Wishes::of(&many), Some(Wishes(Term::List(it))) if it.len() == WISHES));
    }
}
