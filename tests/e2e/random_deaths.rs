//! Agents and keepers that are killed at any moment of deployments in three languages: no replica ends or starts for it, no
//! line of output is lost or doubled, nobody is left over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use proto::state::{RolloutPhase, SlotState};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use tests::numbers::counted;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::replicas::{Lookout, OnHost, recorded, versions};
use tests::wait::{Seen, eventually};
use tokio::time::Instant;
use xtask::fixtures::Sample;

const DEATHS: u32 = 20;

/// At rest, of each application.
const REPLICAS: u16 = 1;

struct Fleet {
    agent: Agent,
    control_plane: ControlPlane,
    bucket: Bucket,
    lookout: Lookout,
    notes: tempfile::TempDir,
    random: StdRng,
    deaths: u32,
    next: Instant,
}

impl Fleet {
    async fn start(seed: u64) -> Self {
        let bucket = Bucket::new();
        let notes = tempfile::tempdir().expect("a temporary folder can be made");
        fs::set_permissions(notes.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let applications: String =
            Sample::ALL.iter().map(|sample| application(*sample, notes.path())).collect();
        for sample in Sample::ALL {
            bucket.publish(sample, "0.1.0").await;
        }
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let agent = Agent::join(&control_plane, "first").await;
        let lookout = Lookout::over(agent.folder());
        let (random, next) = (StdRng::seed_from_u64(seed), Instant::now());
        Self { agent, control_plane, bucket, lookout, notes, random, deaths: 0, next }
    }

    /// The agent, a keeper or both, and the time of the next.
    fn strike(&mut self) {
        let victim = self.random.random_range(0..3);
        if victim != 0 {
            let found = OnHost::of(self.agent.folder(), self.agent.pid());
            let keepers: Vec<_> = found.keepers.into_values().flatten().collect();
            if !keepers.is_empty() {
                let keeper = keepers[self.random.random_range(0..keepers.len())];
                // It may have gone by itself.
                let _ =
                    kill_process(i32::try_from(keeper).ok().and_then(Pid::from_raw).unwrap(), Signal::KILL);
            }
        }
        if victim != 1 {
            self.agent.kill();
            self.agent.resume();
        }
        self.deaths += 1;
        self.next = Instant::now() + Duration::from_millis(self.random.random_range(50..900));
    }

    async fn until_all_run(&mut self, version: &str, may_strike: bool) {
        let begun = Instant::now();
        let mut left: BTreeSet<_> = Sample::ALL.into_iter().collect();
        while let Some(sample) = left.first().copied() {
            if may_strike && Instant::now() >= self.next && self.deaths < DEATHS {
                self.strike();
            }
            match self.control_plane.application(sample.name()) {
                Ok(application)
                    if application.slots.len() == usize::from(REPLICAS)
                        && application.slots.iter().all(|it| {
                            it.state == SlotState::Stable
                                && it.running.as_ref().is_some_and(|key| key.version.as_str() == version)
                        })
                        && application
                            .current_rollout
                            .as_ref()
                            .is_none_or(|it| it.summary.phase == RolloutPhase::Watching) =>
                {
                    left.remove(&sample);
                }
                last => {
                    let late = begun.elapsed() > Duration::from_mins(2);
                    assert!(!late, "waited for {version}; last seen: {last:#?}\n{}", self.agent.output());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

fn application(sample: Sample, notes: &std::path::Path) -> String {
    let port = ports::free(REPLICAS + 1);
    let (language, record) = (sample.language(), record(notes, sample));
    format!(
        "  - name: {sample}\n    language: {language}\n    replicas: {REPLICAS}\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 200\n    \
         env:\n      - {{ key: SAMPLE_BEHAVIOUR, value: \"record,numbers\" }}\n      \
         - {{ key: SAMPLE_RECORD, value: {} }}\n      - {{ key: SAMPLE_LINES, value: \"100000000\" }}\n      \
         - {{ key: SAMPLE_PAUSE_MS, value: \"50\" }}\n    \
         deploy: {{ strategy: start_first, stable_after_ms: 500, stop_grace_ms: 1000 }}\n",
        record.display()
    )
}

fn record(notes: &std::path::Path, sample: Sample) -> PathBuf {
    notes.join(sample.name())
}

/// In each slot at rest every version that was deployed, and in the borrowed one all but the first.
fn wanted(sample: Sample, deployed: &[String]) -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([
        (format!("{sample}-1"), deployed.to_vec()),
        (format!("{sample}-2"), deployed[1..].to_vec()),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deaths_at_twenty_random_moments_of_deployments_stop_nothing_and_lose_nothing() {
    #[expect(clippy::disallowed_methods, reason = "how a person repeats a run")]
    let seed = std::env::var("SEED").ok().and_then(|it| it.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    let mut fleet = Fleet::start(seed).await;
    let mut deployed = vec!["0.1.0".to_owned()];
    fleet.until_all_run("0.1.0", true).await;
    while fleet.deaths < DEATHS {
        let next = if deployed.len() % 2 == 0 { "0.1.0" } else { "0.2.0" };
        for sample in Sample::ALL {
            fleet.bucket.publish(sample, next).await;
        }
        deployed.push(next.to_owned());
        fleet.until_all_run(next, true).await;
    }
    fleet.until_all_run(deployed.last().unwrap(), false).await;
    println!("{} deaths in {} deployments", fleet.deaths, deployed.len());

    let folder = fleet.agent.folder().to_owned();
    eventually("nobody but the replicas and their keepers", || async {
        let found = OnHost::of(&folder, fleet.agent.pid());
        match found.holds_one_each(Sample::ALL.iter().map(|it| (it.name(), 1))) {
            true => Seen::Done(()),
            false => Seen::NotYet(format!("{found:#?}")),
        }
    })
    .await;
    assert_eq!(fleet.lookout.seen(), None);
    for sample in Sample::ALL {
        let application = fleet.control_plane.application(sample.name()).unwrap();
        let crashes: u32 = application.slots.iter().map(|it| it.crash_restarts).sum();
        assert_eq!(crashes, 0, "{application:#?}");
        let starts = versions(&recorded(&record(fleet.notes.path(), sample)));
        assert_eq!(starts, wanted(sample, &deployed));
        for slot in 1..=2 {
            let log = fleet.agent.log(sample.name(), slot, "stdout");
            let counts = counted(&log).unwrap_or_else(|fault| panic!("SEED={seed}: {fault}"));
            assert_eq!(counts.len(), starts[&format!("{sample}-{slot}")].len(), "{counts:?}");
        }
    }
}
