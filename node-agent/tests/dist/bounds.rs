//! What one asks of a node, or a node answers, is no harm to others.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use node_agent::dist::connection::{CallError, Cap, Settings};
use node_agent::dist::term::{DecodeError, Limits, Term};

use super::world::{PATIENCE, US, World, eventually, soon, value};

/// Says where it is, and stays there.
const STAY: &str = "register(late, self()), timer:sleep(infinity).";

#[tokio::test]
async fn a_call_that_is_late_is_ended_on_the_node_and_the_connection_lives_on() {
    let world = World::new().await;
    let connection = world.connect().await;
    let forms = value(
        &connection,
        &format!("{{ok, T, _}} = erl_scan:string({STAY:?}), {{ok, F}} = erl_parse:parse_exprs(T), F."),
    )
    .await;
    let whereis = async || {
        let asked = connection.call("erlang", "whereis", vec![Term::atom("late")], PATIENCE).await;
        asked.unwrap()
    };
    let mut patience = Duration::from_millis(500);
    loop {
        let late = connection.call("erl_eval", "exprs", vec![forms.clone(), Term::default()], patience);
        let seen = async {
            eventually("the process", async || matches!(whereis().await, Term::Pid(_)).then_some(())).await;
        };
        // Where the time is over before it is seen, there was not enough of it: the machine is busy.
        let mut late = std::pin::pin!(late);
        tokio::select! {
            biased;
            () = seen => {}
            ended = &mut late => {
                assert_eq!(ended, Err(CallError::TimedOut(patience)));
                patience *= 2;
                continue;
            }
        }
        assert_eq!(late.await, Err(CallError::TimedOut(patience)));
        break;
    }
    eventually("its end", async || (whereis().await == Term::atom("undefined")).then_some(())).await;
}

#[tokio::test]
async fn a_call_that_is_dropped_is_ended_on_the_node() {
    let world = World::new().await;
    let connection = world.connect().await;
    let whereis = async || value(&connection, "whereis(late).").await;
    {
        let stays = value(&connection, STAY);
        let seen = eventually("the process", async || matches!(whereis().await, Term::Pid(_)).then_some(()));
        tokio::select! {
            stayed = stays => panic!("{stayed}"),
            () = seen => {}
        }
    }
    eventually("its end", async || (whereis().await == Term::atom("undefined")).then_some(())).await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_an_error_for_who_asked_and_nobody_else() {
    let world = World::new().await;
    let limits = Limits { depth: 20, terms: 1_000 };
    let settings = Settings { longest: 1 << 20, limits, ..Settings::default() };
    let connection = world.connect_as(US, settings).await;
    let copied = |size| vec![Term::from("x"), Term::Integer(size)];
    let large = async || connection.call("binary", "copy", copied(3 << 20), PATIENCE).await;
    let other = async || connection.call("binary", "copy", copied(1_000), PATIENCE).await;
    let numbers = vec![Term::Integer(1), Term::Integer(1_001)];
    let (first, second, third, fourth) =
        tokio::join!(large(), other(), connection.call("lists", "seq", numbers, PATIENCE), large());
    for large in [first, fourth] {
        let Err(CallError::TooLarge { length, longest }) = large else { panic!("{large:?}") };
        assert!(length > 3 << 20 && longest == 1 << 20, "{length} of {longest}");
    }
    assert_eq!(second, Ok(Term::Binary(vec![b'x'; 1_000].into())));
    assert_eq!(third, Err(CallError::Unreadable(DecodeError::TooMany(1_000))));
    assert!(other().await.is_ok());
}

/// The connection's settings are the default, which is far more than any of these.
#[tokio::test]
async fn each_call_says_how_much_of_an_answer_it_is_ready_to_hold() {
    let world = World::new().await;
    let connection = world.connect().await;
    let cap = Cap { longest: 100_000, limits: Limits { depth: 3, terms: 100 } };
    let within =
        |cap, module, function, arguments| connection.call_within(cap, module, function, arguments, PATIENCE);
    let copied = |size| vec![Term::from("x"), Term::Integer(size)];
    let nested = |levels| (0..levels).fold(Term::default(), |inner, _| Term::List(vec![inner]));
    let reversed = |levels| vec![Term::List(vec![nested(levels)])];
    let numbers = |count| vec![Term::Integer(1), Term::Integer(count)];
    let (large, fits, many, few, deep, flat, uncapped) = tokio::join!(
        within(cap, "binary", "copy", copied(200_000)),
        within(cap, "binary", "copy", copied(90_000)),
        within(cap, "lists", "seq", numbers(300)),
        within(cap, "lists", "seq", numbers(90)),
        // In the answer, which is in a list, which is in a tuple.
        within(cap, "lists", "reverse", reversed(3)),
        within(cap, "lists", "reverse", reversed(1)),
        connection.call("binary", "copy", copied(200_000), PATIENCE),
    );
    let Err(CallError::TooLarge { length, longest: 100_000 }) = large else { panic!("{large:?}") };
    assert!(length > 200_000, "{length}");
    assert_eq!(fits, Ok(Term::Binary(vec![b'x'; 90_000].into())));
    assert_eq!(many, Err(CallError::Unreadable(DecodeError::TooMany(100))));
    assert_eq!(few.unwrap().as_list().map(<[Term]>::len), Some(90));
    assert_eq!(deep, Err(CallError::Unreadable(DecodeError::TooDeep(3))));
    assert!(flat.is_ok(), "{flat:?}");
    assert_eq!(uncapped, Ok(Term::Binary(vec![b'x'; 200_000].into())));
    // Short enough to be held anyway, and still more than was allowed.
    let tiny = within(Cap { longest: 500, ..cap }, "binary", "copy", copied(1_000)).await;
    assert!(matches!(tiny, Err(CallError::TooLarge { longest: 500, .. })), "{tiny:?}");
    // Nobody can ask for more than the connection allows.
    let narrow = Settings { longest: 50_000, limits: cap.limits, ..Settings::default() };
    let connection = world.connect_as("narrow@127.0.0.1", narrow).await;
    let boundless = Cap { longest: usize::MAX, limits: Limits { depth: u16::MAX, terms: u32::MAX } };
    let large = connection.call_within(boundless, "binary", "copy", copied(60_000), PATIENCE).await;
    assert!(matches!(large, Err(CallError::TooLarge { longest: 50_000, .. })), "{large:?}");
    let deep = connection.call_within(boundless, "lists", "reverse", reversed(3), PATIENCE).await;
    assert_eq!(deep, Err(CallError::Unreadable(DecodeError::TooDeep(3))));
}

/// Of this process, in kB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn what_is_beyond_a_cap_passes_by_and_is_never_held() {
    let world = World::new().await;
    // The connection would hold it.
    let connection = world.connect_as(US, Settings { longest: 1 << 30, ..Settings::default() }).await;
    let cap = Cap { longest: 1 << 20, limits: Limits::default() };
    let large = vec![Term::from("0123456789abcdef"), Term::Integer(8 << 20)];
    assert!(connection.call("erlang", "node", Vec::new(), PATIENCE).await.is_ok());
    let before = peak();
    let refused = connection.call_within(cap, "binary", "copy", large, PATIENCE).await;
    let Err(CallError::TooLarge { length, .. }) = refused else { panic!("{refused:?}") };
    assert!(length > 128 << 20, "{length}");
    let grown = peak() - before;
    assert!(grown < 16 << 10, "{grown} kB more for an answer of {length} bytes");
}

/// More than any buffer on the way: where we said that we read fragments, it would come in a hundred.
#[tokio::test]
async fn a_large_binary_comes_and_goes_whole() {
    let world = World::new().await;
    let connection = world.connect().await;
    let copied = vec![Term::from("12345678"), Term::Integer(1 << 20)];
    let large = connection.call("binary", "copy", copied, PATIENCE).await.unwrap();
    assert_eq!(large, Term::Binary(b"12345678".repeat(1 << 20).into()));
    let size = connection.call("erlang", "byte_size", vec![large], PATIENCE).await;
    assert_eq!(size, Ok(Term::Integer(8 << 20)));
}

#[tokio::test]
async fn whoever_asks_a_thousand_things_does_not_keep_another_waiting() {
    const FLOOD: u32 = 5_000;
    let world = World::new().await;
    let connection = world.connect().await;
    let answered = AtomicU32::new(0);
    let flood = join_all((0..FLOOD).map(async |_| {
        connection.call("erlang", "node", Vec::new(), PATIENCE * 5).await.unwrap();
        answered.fetch_add(1, Ordering::Relaxed);
    }));
    let other = connection.for_another();
    let few = async {
        for _ in 0..20 {
            other.call("erlang", "node", Vec::new(), PATIENCE).await.unwrap();
        }
        answered.load(Ordering::Relaxed)
    };
    // The flood is asked for first, all of it.
    let (_, meanwhile) = soon("all answers", async { tokio::join!(biased; flood, few) }).await;
    // Sixteen for one, were both as fast; had it to wait for its turn behind them, it would be all of them.
    assert!(meanwhile < FLOOD / 2, "{meanwhile} of {FLOOD} were answered before 20 of another");
}
