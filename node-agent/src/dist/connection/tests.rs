//! With a node that is a script: what it gets is looked at byte by byte.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::*;
use crate::dist::term::{decode, encode};

const PATIENCE: Duration = Duration::from_secs(5);

struct Script {
    stream: DuplexStream,
    connection: Connection,
    work: JoinHandle<()>,
}

/// `room`: how many bytes are under way at most, in each direction.
fn script(room: usize, settings: Settings) -> Script {
    let (ours, stream) = duplex(room);
    let local = Local { name: Atom::of("agent@host"), creation: 7 };
    let peer = Peer { name: Atom::of("node@host"), creation: 9, flags: 0 };
    let (connection, work) = Connection::new(ours, &local, peer, settings, CancellationToken::new());
    Script { stream, connection, work: TaskTracker::new().spawn(work) }
}

impl Script {
    fn call(&self, patience: Duration) -> JoinHandle<Result<Term, CallError>> {
        let connection = self.connection.clone();
        TaskTracker::new().spawn(async move { connection.call("m", "f", Vec::new(), patience).await })
    }

    /// The next control message that is not a tick.
    async fn control(&mut self) -> Vec<Term> {
        loop {
            let length = self.stream.read_u32().await.unwrap();
            let mut frame = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut frame).await.unwrap();
            let mut frame = Bytes::from(frame);
            if frame.is_empty() {
                continue;
            }
            assert_eq!(frame.get_u8(), 112);
            let Term::Tuple(control) = decode(&mut frame, Limits::default()).unwrap() else { panic!() };
            return control;
        }
    }

    async fn say(&mut self, control: Vec<Term>, payload: Option<Term>) {
        let mut frame = BytesMut::from(&[112][..]);
        encode(&Term::Tuple(control), &mut frame).unwrap();
        if let Some(payload) = payload {
            encode(&payload, &mut frame).unwrap();
        }
        self.stream.write_u32(u32::try_from(frame.len()).unwrap()).await.unwrap();
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn started(&mut self, id: &Term, process: &Term) {
        let us = Term::Pid(self.connection.inner.us.clone());
        self.say(vec![Term::Integer(31), id.clone(), us, Term::Integer(0), process.clone()], None).await;
    }
}

fn process(id: u32) -> Term {
    Term::Pid(Pid { node: Atom::of("node@host"), id, serial: 0, creation: 9 })
}

#[tokio::test(start_paused = true)]
async fn all_who_give_up_at_once_have_their_processes_ended_also_where_the_outbox_is_full() {
    let settings = Settings { calls: 8, calls_of_one: 8, ..Settings::default() };
    let mut script = script(1 << 10, settings);
    let calls: Vec<_> = (0..8).map(|_| script.call(PATIENCE)).collect();
    let mut asked = Vec::new();
    for number in 0..8 {
        let id = script.control().await[1].clone();
        // Every other is told before it is given up, every other after.
        if number % 2 == 0 {
            script.started(&id, &process(number)).await;
        }
        asked.push((number, id));
    }
    // Far more than is under way at most.
    let watches = TaskTracker::new();
    for _ in 0..100 {
        let connection = script.connection.clone();
        watches.spawn(async move { connection.watch(Target::Name(Atom::of("somebody"))).await });
    }
    for call in calls {
        assert_eq!(call.await.unwrap(), Err(CallError::TimedOut(PATIENCE)));
    }
    let mut told = Vec::new();
    for (number, id) in asked.iter().filter(|(number, _)| number % 2 == 1) {
        script.started(id, &process(*number)).await;
    }
    let us = Term::Pid(script.connection.inner.us.clone());
    // A hundred watches, and of each process that it is not watched any more and that it ends.
    for _ in 0..100 + 8 * 2 {
        told.push(script.control().await);
    }
    for (number, id) in asked {
        let unwatched = [Term::Integer(20), us.clone(), process(number), id];
        let at = told.iter().position(|it| *it == unwatched).unwrap();
        assert_eq!(told[at + 1], [Term::Integer(26), us.clone(), process(number)]);
    }
    // The watches.
    assert_eq!(script.connection.inner.waiting.count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_nothing_is_asked_no_more_than_what_may_be_under_way() {
    let settings = Settings { calls: 4, calls_of_one: 4, silence: PATIENCE * 1_000, ..Settings::default() };
    let script = script(64, settings);
    for _ in 0..100 {
        assert_eq!(script.call(PATIENCE).await.unwrap(), Err(CallError::TimedOut(PATIENCE)));
    }
    // Of these, some are in the outbox and one is half written. Those that are not count for nothing.
    let waiting = script.connection.inner.waiting.count();
    assert!((1..=4).contains(&waiting), "{waiting}");
    assert!(!script.work.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_before_it_is_sent_leaves_nothing_to_wait_for() {
    let script = script(64, Settings { silence: PATIENCE * 1_000, ..Settings::default() });
    // More than the outbox and what is being written take.
    let watches = TaskTracker::new();
    for _ in 0..300 {
        let connection = script.connection.clone();
        watches.spawn(async move { connection.watch(Target::Name(Atom::of("somebody"))).await });
    }
    for _ in 0..10 {
        assert_eq!(script.call(PATIENCE).await.unwrap(), Err(CallError::TimedOut(PATIENCE)));
    }
    assert_eq!(script.connection.inner.waiting.count(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_taken_back_after_it_was_begun_also_where_both_wait_to_be_written() {
    let mut script = script(64, Settings::default());
    // Fills what is under way, so that nothing more is written until it is read.
    let call = script.call(PATIENCE);
    tokio::task::yield_now().await;
    for _ in 0..3 {
        let watch = script.connection.watch(Target::Name(Atom::of("somebody")));
        assert!(tokio::time::timeout(Duration::ZERO, watch).await.is_err());
    }
    assert_eq!(script.control().await[0], Term::Integer(29));
    let mut told = Vec::new();
    for _ in 0..6 {
        let control = script.control().await;
        told.push((control[0].clone(), control[3].clone()));
    }
    for (at, (kind, id)) in told.iter().enumerate() {
        if *kind == Term::Integer(20) {
            assert!(told[..at].contains(&(Term::Integer(19), id.clone())), "{told:?}");
        }
    }
    assert_eq!(told.iter().filter(|(kind, _)| *kind == Term::Integer(20)).count(), 3, "{told:?}");
    assert_eq!(call.await.unwrap(), Err(CallError::TimedOut(PATIENCE)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shows_life_is_shown_ours_and_one_that_is_silent_is_gone() {
    let settings = Settings { tick: PATIENCE * 1_000, ..Settings::default() };
    let mut script = script(1 << 10, settings);
    for _ in 0..5 {
        script.stream.write_u32(0).await.unwrap();
        assert_eq!(script.stream.read_u32().await.unwrap(), 0);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(script.connection.lost().await, Lost::Silent(settings.silence));
    assert_eq!(script.call(PATIENCE).await.unwrap(), Err(Lost::Silent(settings.silence).into()));
}

#[tokio::test(start_paused = true)]
async fn bytes_that_come_slowly_are_no_silence() {
    let mut script = script(1 << 10, Settings::default());
    let lost = TaskTracker::new().spawn({
        let connection = script.connection.clone();
        async move { connection.lost().await }
    });
    script.stream.write_u32(10).await.unwrap();
    for _ in 0..9 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        script.stream.write_u8(112).await.unwrap();
        assert!(!lost.is_finished());
    }
}

#[tokio::test]
async fn a_connection_whose_work_is_dropped_tells_those_who_wait() {
    let script = script(1 << 10, Settings::default());
    let call = script.call(PATIENCE);
    tokio::task::yield_now().await;
    script.work.abort();
    assert_eq!(call.await.unwrap(), Err(Lost::ClosedHere.into()));
    assert_eq!(script.connection.lost().await, Lost::ClosedHere);
}

#[tokio::test]
async fn what_is_printed_is_refused_however_much_it_is() {
    let mut script = script(1 << 20, Settings { longest: 0, ..Settings::default() });
    let us = Term::Pid(script.connection.inner.us.clone());
    let reply_as = Term::Reference(Reference { node: Atom::of("node@host"), creation: 9, words: vec![5] });
    for size in [10, 100_000] {
        let text = Term::Binary(vec![b'x'; size].into());
        let request = Term::Tuple(vec![Term::atom("io_request"), process(3), reply_as.clone(), text]);
        script.say(vec![Term::Integer(2), Term::atom(""), us.clone()], Some(request)).await;
        assert_eq!(script.control().await, [Term::Integer(2), Term::atom(""), process(3)]);
    }
}

#[tokio::test]
async fn a_connection_ends_with_the_last_who_shares_it() {
    let Script { mut stream, connection, work } = script(1 << 10, Settings::default());
    let other = connection.for_another();
    drop(connection);
    stream.write_u32(0).await.unwrap();
    assert_eq!(stream.read_u32().await.unwrap(), 0);
    drop(other);
    work.await.unwrap();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}
