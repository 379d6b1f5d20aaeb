//! A rollout that stops what ran first, a release that is never ready, and a control plane that dies in the middle: the agent
//! goes back by itself, and what it did stands when the control plane is back.

use std::time::Duration;

use proto::apps::Application;
use proto::events::Event;
use proto::releases::Ghost;
use proto::rollouts::RolloutSummary;
use proto::state::RolloutPhase;
use tests::http::{get, serves_version};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";
const BAD: &str = "0.3.0-sick";
/// Its time, that of a VM to boot, and patience.
const ALONE: Duration = Duration::from_mins(3);

fn pid(application: &Application, slot: u16) -> Option<u32> {
    application.slots.iter().find(|it| it.slot.number() == slot)?.pid
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_lost_its_control_plane_goes_back_by_itself_and_the_rollout_ends_with_that() {
    let bucket = Bucket::new();
    let port = ports::free(2);
    bucket.publish(Sample::Erlang, "0.1.0").await;
    // Longer than the control plane needs to be killed, shorter than anybody waits.
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_rollback_timeout_ms: 20000\n    deploy_schedule_interval_ms: 200\n    \
         ready: [{{ http: {{ port: PORT, path: /health }}, interval_ms: 200 }}]\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 1000, stop_grace_ms: 5000 }}\n"
    );
    let mut control_plane = ControlPlane::start(&bucket, &applications).await;
    let agent = Agent::join(&control_plane, "alone").await;
    let before = control_plane.settles_on(APP, "0.1.0").await;

    bucket.publish(Sample::Erlang, BAD).await;
    control_plane
        .application_when("the bad release in the place of the good one", APP, |it| {
            let runs = |slot: &proto::replicas::Replica| {
                slot.pid.is_some() && slot.running.as_ref().is_some_and(|it| it.version.as_str() == BAD)
            };
            it.slots.iter().any(runs)
        })
        .await;
    control_plane.kill();
    // Nobody is there to say it.
    within(ALONE, "the good release on its port again", || async {
        match get(&format!("http://127.0.0.1:{port}/version")).await {
            Ok(text) if text.trim() == "0.1.0" => Seen::Done(()),
            other => Seen::NotYet(format!("{other:?}\n{}", agent.output())),
        }
    })
    .await;
    serves_version(port + 1, "0.1.0").await;

    control_plane.resume().await;
    let ghosted = control_plane.application_when("a ghost", APP, |it| !it.ghosts.is_empty()).await;
    let after = control_plane.settles_on(APP, "0.1.0").await;
    assert_eq!(pid(&after, 1), pid(&ghosted, 1), "what the agent went back to is not touched again");
    assert!(pid(&after, 1) != pid(&before, 1) && pid(&after, 2) == pid(&before, 2), "{after:#?}");
    assert!(after.slots.iter().all(|it| it.crash_restarts == 0), "{after:#?}\n{}", agent.output());
    let [ghost] = &control_plane.ask::<Vec<Ghost>>(&["ghosted", "list", APP]).unwrap()[..] else {
        panic!("one ghost")
    };
    let reason = format!("slot 1 on alone fell back by itself: {BAD} was not stable within 20 s");
    assert!(ghost.reason.starts_with(&reason), "{}", ghost.reason);

    let rollouts: Vec<RolloutSummary> = control_plane.ask(&["rollout", "list", "--app", APP]).unwrap();
    let phases: Vec<_> = rollouts.iter().map(|it| (it.release.version.as_str(), it.phase)).collect();
    assert_eq!(phases.first(), Some(&(BAD, RolloutPhase::Reverted)), "{phases:?}");
    assert_eq!(phases.len(), 2, "{phases:?}");
    let events: Vec<Event> = control_plane.ask(&["event", "list"]).unwrap();
    let told: Vec<_> = events.iter().filter(|it| it.kind == "fell_back").map(|it| &it.text).collect();
    assert!(matches!(told[..], [text] if text.starts_with("slot 1 goes back by itself")), "{told:?}");
}
