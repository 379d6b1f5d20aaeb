//! Control plane and agent on one host share a folder by default: replicas of another user start below it, and nobody else
//! reads what the control plane keeps there.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tests::ports;
use tests::programs::{Agent, ControlPlane, Joining, Setup};
use tests::release::Bucket;
use tests::replicas::OnHost;
use xtask::fixtures::Sample;

const APP: &str = "erlang_demo";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_root_a_replica_of_another_user_runs_where_both_programs_share_their_folder() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test runs a replica as the user nobody: run it as root"
    );
    let bucket = Bucket::new();
    let port = ports::free(2);
    bucket.publish(Sample::Erlang, "0.1.0").await;
    let applications = format!(
        "  - name: {APP}\n    language: erlang\n    replicas: 1\n    run_as: {{ user: nobody }}\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy: {{ strategy: stop_first, stable_after_ms: 100, stop_grace_ms: 500 }}\n"
    );
    let mut agent = Agent::new();
    let shared = agent.var_path();
    let setup = Setup { data_dir: Some(&shared), ..Setup::default() };
    let control_plane = ControlPlane::start_with(&bucket, &applications, setup).await;
    let token: proto::nodes::JoinToken = control_plane.ask(&["node", "token"]).unwrap();
    let address = control_plane.agents_address();
    let joining = Joining { address, token: &token.token, name: "first", labels: &[] };
    agent.enrol(joining).await.unwrap();
    agent.resume();
    control_plane.settles_on(APP, "0.1.0").await;

    let machines = OnHost::of(agent.folder(), agent.pid()).machines;
    let pids: Vec<u32> = machines.into_values().flatten().collect();
    let [pid] = pids[..] else { panic!("one machine, not {pids:?}") };
    assert_ne!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 0);

    let own = shared.join("control-plane");
    assert_eq!((mode(&shared), mode(&own)), (0o755, 0o700));
    let mut names = Vec::new();
    for entry in fs::read_dir(&own).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        // Who knocks there is asked who he is; and nobody else gets as far as that.
        if name != "deployex.sock" {
            assert_eq!(mode(&entry.path()) & 0o077, 0, "{name}");
        }
        names.push(name);
    }
    for name in ["deployex.db", "secret-key", "deployex.sock", "lock"] {
        assert!(names.iter().any(|it| it == name), "{name} in {names:?}");
    }
}
