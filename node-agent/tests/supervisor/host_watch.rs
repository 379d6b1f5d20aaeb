//! A host that runs out of memory or disk, as its samples say: who is told, what is restarted, and what a successor of the
//! agent remembers without any control plane.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use node_agent::host::Sample;
use proto::pb;

use super::world::{APP, Agent, World};

const MIB: u64 = 1 << 20;

fn monitored(world: &World, generation: u64) -> pb::Assignment {
    let threshold =
        |restart_percent| pb::HostThreshold { warning_percent: 50, restart_percent, cooldown_ms: 3_600_000 };
    let limits = pb::HostMonitoring { memory: Some(threshold(60)), disk: Some(threshold(0)) };
    pb::Assignment { host_monitoring: Some(limits), ..world.assignment(generation, "0.1.0") }
}

/// Of a host that is that full, with one replica.
fn full(memory: u64, disk: u64) -> Sample {
    let host = pb::HostSample {
        memory_used_bytes: memory,
        memory_total_bytes: 100,
        disk_used_bytes: disk,
        disk_available_bytes: 100 - disk,
        ..Default::default()
    };
    let replica =
        pb::ReplicaSample { app: APP.to_owned(), slot: 1, memory_bytes: 300 * MIB, ..Default::default() };
    Sample { host, replicas: vec![replica] }
}

impl Agent {
    /// Shows it so many looks at its host, and waits until it has taken each in.
    async fn sees(&mut self, sample: &Sample, times: usize) {
        for _ in 0..times {
            self.limits.borrow_and_update();
            self.samples.send_replace(Some(sample.clone()));
            self.limits.changed().await.unwrap();
        }
    }

    fn told_of_the_host(&mut self) -> Vec<pb::AgentEvent> {
        let all = std::iter::from_fn(|| self.events.try_recv().ok());
        all.filter(|it| it.kind.starts_with("watchdog_")).collect()
    }

    fn levels(&self) -> Vec<(String, pb::HostLevel)> {
        self.limits.borrow().iter().map(|it| (it.r#type.clone(), it.level())).collect()
    }
}

#[tokio::test]
async fn a_host_without_memory_restarts_its_largest_replica_once_also_across_agents() {
    let world = World::new();
    let mut agent = world.agent().await;
    agent.assign(monitored(&world, 1)).await;
    let before = agent.runs("0.1.0").await;
    agent.sees(&full(40, 10), 5).await;
    assert_eq!(agent.told_of_the_host(), []);

    agent.sees(&full(95, 10), 3).await;
    let after = agent.reports("the restart", |it| it.forced_restarts == 1 && it.pid != 0).await;
    assert!(after.pid != before.pid && after.crash_restarts == 0);
    let [event] = agent.told_of_the_host().try_into().unwrap();
    assert_eq!(
        (event.kind.as_str(), event.app.as_str(), event.slot),
        ("watchdog_threshold_exceeded", APP, 1)
    );
    let said = |key: &str| event.data[key].as_str();
    assert_eq!(
        (said("type"), said("current_percentage"), said("restart_threshold_percent"), said("action")),
        ("memory", "95.0", "60", "restart")
    );
    assert!(event.text.contains("slot 1 of demo, which holds 300 MiB"), "{}", event.text);
    agent.runs("0.1.0").await;
    agent.sees(&full(95, 10), 20).await;
    assert!(agent.limits.borrow()[0].sentence.contains("the next restart is in"), "{:?}", agent.limits);
    assert_eq!((agent.report().forced_restarts, agent.report().pid), (1, after.pid));
    agent.end().await;

    // No control plane says anything to this one.
    let mut successor = world.agent().await;
    successor.runs("0.1.0").await;
    successor.sees(&full(95, 10), 10).await;
    assert_eq!(successor.told_of_the_host(), [], "it was told by the agent before");
    assert_eq!((successor.report().forced_restarts, successor.report().pid), (1, after.pid));
    let exceeded = ("memory".to_owned(), pb::HostLevel::Exceeded);
    assert_eq!(successor.levels(), [exceeded, ("disk".to_owned(), pb::HostLevel::Normal)]);
    successor.sees(&full(20, 10), 1).await;
    assert_eq!(successor.told_of_the_host()[0].kind, "watchdog_threshold_cleared");
    successor.end().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_is_warned_of_and_what_is_no_longer_watched_is_forgotten() {
    let world = World::new();
    let mut agent = world.agent().await;
    agent.assign(monitored(&world, 1)).await;
    let before = agent.runs("0.1.0").await;
    agent.sees(&full(10, 99), 3).await;
    let [event] = agent.told_of_the_host().try_into().unwrap();
    assert_eq!(event.kind, "watchdog_threshold_warning");
    assert_eq!(event.data["type"], "disk");
    agent.sees(&full(10, 20), 1).await;
    assert_eq!(agent.told_of_the_host()[0].kind, "watchdog_threshold_cleared");
    assert_eq!(agent.report().pid, before.pid, "nothing is restarted for a disk");

    let silent = pb::Assignment { host_monitoring: None, ..monitored(&world, 2) };
    agent.assign(silent).await;
    super::world::eventually("the assignment", || (agent.generation() == 2).then_some(())).await;
    agent.sees(&full(99, 99), 1).await;
    assert_eq!(agent.levels(), []);
    assert_eq!(agent.told_of_the_host(), []);
    agent.end().await;
}
