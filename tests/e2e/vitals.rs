//! The VM of each replica says how it is, whatever its language: its versions, its limits and its figures. One that stands
//! still says so. None is changed by being asked.

use std::time::Duration;

use proto::metrics::VmHistory;
use proto::replicas::{Replica, Vm};
use proto::users::CreatedToken;
use rustix::process::{Pid, Signal, kill_process};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use xtask::fixtures::Sample;

const PATIENCE: Duration = Duration::from_mins(2);
/// As many as show whether the figures grow by being read.
const SAMPLES: usize = 6;

fn application(sample: Sample) -> String {
    format!(
        "  - name: {}\n    language: {}\n    replicas: 1\n    replica_ports: [{{ key: PORT, base: {} }}]\n    \
         deploy_schedule_interval_ms: 200\n    deploy: {{ stable_after_ms: 500, drain_ms: 0 }}\n",
        sample.name(),
        sample.language(),
        ports::free(2)
    )
}

struct Fleet {
    control_plane: ControlPlane,
    token: String,
}

impl Fleet {
    /// The hour of an application's only replica.
    async fn history(&self, app: &str) -> Result<VmHistory, String> {
        let url = self.control_plane.url(&format!("/api/v1/replicas/web-1/{app}/1/metrics"));
        let answer = tests::http::client().get(url).bearer_auth(&self.token).send().await;
        answer.map_err(|error| error.to_string())?.json().await.map_err(|error| error.to_string())
    }

    /// Until there are that many samples.
    async fn samples(&self, app: &str, count: usize) -> VmHistory {
        within(PATIENCE, &format!("{count} samples of {app}"), || async {
            match self.history(app).await {
                Ok(history) if history.points.len() >= count => Seen::Done(history),
                other => Seen::NotYet(format!("{other:?}")),
            }
        })
        .await
    }

    async fn replica_when(&self, what: &str, app: &str, is_so: impl Fn(&Vm) -> bool) -> Replica {
        let is_so = |it: &proto::apps::Application| {
            it.slots.first().and_then(|it| it.vm.as_ref()).is_some_and(&is_so)
        };
        self.control_plane.application_when(what, app, is_so).await.slots.remove(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vms_of_three_languages_say_how_they_are_and_one_that_stands_still_says_so() {
    let bucket = Bucket::new();
    let mut applications = String::new();
    for sample in Sample::ALL {
        bucket.publish(sample, "0.1.0").await;
        applications.push_str(&application(sample));
    }
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let _agent = Agent::join(&control_plane, "web-1").await;
    let token: CreatedToken = control_plane.ask(&["token", "create", "charts", "--role", "viewer"]).unwrap();
    let fleet = Fleet { control_plane, token: token.secret };

    for sample in Sample::ALL {
        let app = sample.name();
        // It is met while it boots, before its application is loaded.
        let replica = fleet.replica_when("its versions", app, |it| it.application.is_some()).await;
        let vm = replica.vm.unwrap();
        assert_eq!(vm.application.as_deref(), Some("0.1.0"), "{vm:#?}");
        assert_eq!(vm.otp.as_deref().map(|it| it.parse::<u32>().is_ok()), Some(true), "{vm:#?}");
        assert_eq!(vm.elixir.is_some(), sample == Sample::Elixir, "{vm:#?}");
        assert!(vm.erts.is_some() && vm.fault.is_none(), "{vm:#?}");
        assert!(vm.limits.is_some_and(|it| it.processes > 1_000 && it.atoms > 1_000_000), "{vm:#?}");
        let started = replica.started_at.unwrap().0;
        assert!(vm.started_at.unwrap().0.abs_diff(started) < 60_000, "{vm:#?}");
    }
    for sample in Sample::ALL {
        let points = fleet.samples(sample.name(), SAMPLES).await.points;
        let (first, last) = (points.first().unwrap(), points.last().unwrap());
        assert!(last.memory > 10 << 20 && last.memory_processes < last.memory, "{last:#?}");
        assert!(last.processes > 10 && last.ets_tables > 5 && last.reductions > 0.0, "{last:#?}");
        assert!(last.schedulers.is_some(), "{last:#?}");
        assert_eq!(last.atoms, first.atoms, "{sample}: being asked must leave no atoms behind");
        // Each question is answered by a process of its own, which is counted by itself.
        assert!(last.processes <= first.processes + 5, "{sample}: {points:#?}");
    }
    let metrics = tests::http::get(&fleet.control_plane.url("/metrics")).await.unwrap();
    let of = |app: &str| format!("{{application=\"{app}\",node=\"web-1\",slot=\"1\"}} ");
    for sample in Sample::ALL {
        let line = format!("deployex_vm_atoms{}", of(sample.name()));
        let atoms = metrics.lines().find_map(|it| it.strip_prefix(line.as_str())?.parse::<f64>().ok());
        assert!(atoms.is_some_and(|it| it > 1_000.0), "{line}\n{metrics}");
    }
    stands_still(&fleet, Sample::Erlang.name()).await;
}

async fn stands_still(fleet: &Fleet, app: &str) {
    let replica = fleet.control_plane.application(app).unwrap().slots.remove(0);
    let pid = replica.pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let frozen = fleet.replica_when("that it does not answer", app, |it| it.fault.is_some()).await;
    let fault = frozen.vm.unwrap().fault.unwrap();
    assert!(fault.starts_with("its figures cannot be read: no answer within"), "{fault}");
    let said = fleet.control_plane.command_line().run(&["app", "show", app]);
    assert!(said.out.contains("its figures cannot be read"), "{}", said.out);
    kill_process(pid, Signal::CONT).unwrap();
    let known = fleet.history(app).await.unwrap().points.len();
    let thawed = fleet.replica_when("that it answers again", app, |it| it.fault.is_none()).await;
    assert_eq!(thawed.pid, replica.pid, "it is the same process");
    fleet.samples(app, known + 2).await;
}
