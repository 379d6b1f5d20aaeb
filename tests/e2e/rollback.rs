//! A release that crashes again and again in its watch, and everything that dies while it is taken back: the rollback ends as if
//! nothing had, the release stays ghosted, and no replica is started but for the way back.

use proto::apps::Application;
use proto::releases::Ghost;
use proto::rollouts::{Rollout, RolloutSummary};
use proto::state::RolloutPhase;
use rustix::process::{Pid, Signal, kill_process};
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";
const REPLICAS: u16 = 3;
/// Crashes in the watch that make a crash loop.
const LOOP: u32 = 3;

fn phase(application: &Application) -> Option<RolloutPhase> {
    application.current_rollout.as_ref().map(|it| it.summary.phase)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_in_which_the_control_plane_and_the_agent_die_ends_as_if_they_had_not() {
    let bucket = Bucket::new();
    let port = ports::free(REPLICAS);
    bucket.publish(Sample::Erlang, "0.1.0").await;
    // One by one, each of which must stay ready for a while: there is time to die in.
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: {REPLICAS}\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
         restart: {{ backoff_min_ms: 100, backoff_max_ms: 200 }}\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 2000, stop_grace_ms: 5000, watch_ms: 600000, drain_ms: 0 }}\n"
    );
    let mut control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agent = Agent::join(&control_plane, "only").await;
    control_plane.settles_on(APP, "0.1.0").await;
    bucket.publish(Sample::Erlang, "0.2.0").await;
    control_plane
        .application_when("the new release in its watch", APP, |it| {
            phase(it) == Some(RolloutPhase::Watching)
                && it
                    .current_rollout
                    .as_ref()
                    .is_some_and(|it| it.summary.release.version.as_str() == "0.2.0")
        })
        .await;

    for crashes in 1..=LOOP {
        let up = control_plane
            .application_when("slot 1 up again", APP, |it| {
                let first = it.slots.first();
                first.is_some_and(|it| it.pid.is_some() && it.crashes_since_deploy == crashes - 1)
            })
            .await;
        let pid = up.slots[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }
    control_plane
        .application_when("the way back", APP, |it| phase(it) == Some(RolloutPhase::Reverting))
        .await;
    control_plane.kill();
    agent.kill();
    control_plane.resume().await;
    agent.resume();

    let after = control_plane
        .application_when("all of it back", APP, |it| {
            let back = |slot: &proto::replicas::Replica| {
                slot.running.as_ref().is_some_and(|it| it.version.as_str() == "0.1.0")
            };
            // What it came from was superseded in its watch, which goes on.
            let rollout =
                it.current_rollout.as_ref().map(|it| (it.summary.phase, &it.summary.release.version));
            rollout.is_some_and(|(phase, of)| phase == RolloutPhase::Watching && of.as_str() == "0.1.0")
                && it.slots.len() == usize::from(REPLICAS)
                && it.slots.iter().all(back)
        })
        .await;
    for slot in 0..REPLICAS {
        serves_version(port + slot, "0.1.0").await;
    }
    assert!(after.slots.iter().all(|it| it.crashes_since_deploy == 0), "{after:#?}\n{}", agent.output());
    let rollouts: Vec<RolloutSummary> = control_plane.ask(&["rollout", "list", "--app", APP]).unwrap();
    let ended: Vec<_> = rollouts.iter().map(|it| (it.release.version.as_str(), it.phase)).collect();
    assert_eq!(ended.first(), Some(&("0.2.0", RolloutPhase::Reverted)), "{ended:?}");
    assert_eq!((ended.len(), rollouts[0].left.as_ref()), (2, None), "{ended:?}");
    // By the application's name it is told what became of the last wish, and what goes on since.
    let shown: Rollout = control_plane.ask(&["rollout", "show", APP]).unwrap();
    assert_eq!(shown.summary.id, rollouts[0].id);
    let shown = control_plane.command_line().run(&["rollout", "show", APP]);
    let earlier = format!("Under way since: 0.1.0 (watching), `deployex rollout show {}`\n", rollouts[1].id);
    assert!(shown.out.ends_with(&earlier), "{shown:?}");
    let ghosts: Vec<Ghost> = control_plane.ask(&["ghosted", "list", APP]).unwrap();
    let [ghost] = ghosts.as_slice() else { panic!("{ghosts:#?}") };
    assert!(ghost.reason.contains("crashed 3 times in its watch"), "{}", ghost.reason);
    assert!(ghost.last_exit.is_some(), "{ghost:#?}");
    // Whoever asks for it by name is told so, by what was restarted too.
    let refused = control_plane.command_line().run(&["deploy", APP, "0.2.0"]);
    assert!(refused.err.contains("is ghosted"), "{refused:?}");
}
