//! What one asks of a node, or a node answers, is no harm to others.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use node_agent::dist::connection::{CallError, Settings};
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
