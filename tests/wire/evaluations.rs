//! One question and one answer over a stream of its own: whole, bounded, and ended with whoever asked or was asked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use control_plane::agents::{AgentStream, OpenStreamError, StreamEnded};
use proto::agent::MAX_ANSWER;
use proto::pb;
use proto::pb::evaluated::Outcome;
use proto::pb::open_stream::Kind;
use tokio::time::timeout;

use crate::fleet::{Agent, ControlPlane, PATIENCE, app, until};

async fn ask(plane: &ControlPlane, agent: &Agent, expression: &str) -> Result<AgentStream, OpenStreamError> {
    let (app, expression) = (app().to_string(), expression.to_owned());
    let wish = pb::Evaluate { app, slot: 1, expression, ..Default::default() };
    plane.agents.open_stream(agent.node, Kind::Evaluate(wish)).await
}

async fn length_of_answer(stream: AgentStream) -> Result<usize, StreamEnded> {
    let answer = timeout(PATIENCE, stream.whole(MAX_ANSWER)).await.unwrap()?;
    match pb::Evaluated::from_bytes(&answer).unwrap().outcome {
        Some(Outcome::Value(value)) => Ok(value.text.len()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_comes_whole_and_no_larger_than_agreed_and_many_do_not_mix() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let sizes = [0, 1, 64 << 10, 200_000];
    let answers = sizes.map(|size| {
        let (plane, agent) = (&plane, &agent);
        async move { length_of_answer(ask(plane, agent, &size.to_string()).await.unwrap()).await.unwrap() }
    });
    assert_eq!(futures_util::future::join_all(answers).await, sizes);
    let larger = ask(&plane, &agent, &(MAX_ANSWER + 1).to_string()).await.unwrap();
    assert!(matches!(length_of_answer(larger).await, Err(StreamEnded::TooLarge)));
    let error = ask(&plane, &agent, "nonsense").await.err().unwrap();
    assert!(matches!(&error, OpenStreamError::Refused(why) if why == "nonsense cannot be evaluated"));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_given_up_by_the_agent() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let stream = ask(&plane, &agent, "forever").await.unwrap();
    // A deadline of whoever asks is no more than this.
    assert!(timeout(Duration::from_millis(100), stream.whole(MAX_ANSWER)).await.is_err());
    until("the agent gives it up", || agent.evaluated.over.load(Ordering::Relaxed) == 1).await;
    let again = ask(&plane, &agent, "3").await.unwrap();
    assert_eq!(length_of_answer(again).await.unwrap(), 3);
}

#[tokio::test]
async fn who_waits_is_told_when_the_agent_goes_midway() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let stream = ask(&plane, &agent, "forever").await.unwrap();
    let over = agent.evaluated.over.clone();
    let (answer, _folder) = tokio::join!(timeout(PATIENCE, stream.whole(MAX_ANSWER)), agent.stop());
    let answer = answer.unwrap();
    // It breaks off, or it ends with nothing in it: neither is an answer.
    let is_answer = answer.is_ok_and(|it| pb::Evaluated::from_bytes(&it).unwrap().outcome.is_some());
    assert!(!is_answer);
    until("the agent gives it up", || over.load(Ordering::Relaxed) == 1).await;
}

/// The agent's second connection went with the control plane before, which nobody noticed.
#[tokio::test]
async fn the_first_question_after_a_restart_of_the_control_plane_is_answered() {
    let mut plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    for size in [3, 4] {
        let stream = ask(&plane, &agent, &size.to_string()).await.unwrap();
        assert_eq!(length_of_answer(stream).await.unwrap(), size);
        plane.kill().await;
        plane.start_again().await;
        plane.up(agent.node).await;
    }
}

#[tokio::test]
async fn so_many_are_under_way_at_a_time_and_one_more_is_refused() {
    let plane = ControlPlane::start().await;
    let agent = plane.agent("web-1").await;
    plane.up(agent.node).await;
    let mut held = Vec::new();
    let refusal = loop {
        match ask(&plane, &agent, "forever").await {
            Ok(stream) => held.push(stream),
            Err(error) => break error,
        }
    };
    assert!(matches!(&refusal, OpenStreamError::Refused(why) if why.contains("too many")), "{refusal:?}");
    assert_eq!(held.len(), 32);
    drop(held);
    until("there is room again", || agent.evaluated.over.load(Ordering::Relaxed) == 32).await;
    until("they have ended", || agent.evaluated.begun.load(Ordering::Relaxed) == 32).await;
}
