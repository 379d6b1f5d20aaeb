//! A bucket with everything in it that CI and people leave there by mistake. Whatever it holds, the version in force keeps
//! serving, the application says what is wrong, and what is mended is deployed without a restart of anything.

use std::fs;

use proto::apps::Application;
use proto::state::SlotState;
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::{self, Bucket};
use xtask::fixtures::Sample;

const APP: &str = "gleam_demo";

struct Running {
    control_plane: ControlPlane,
    port: u16,
    before: Application,
    _agent: Agent,
    bucket: Bucket,
}

/// One replica of version 0.1.0, at rest.
async fn one_replica() -> Running {
    let bucket = Bucket::new();
    let port = ports::free(2);
    let applications = format!(
        "  - name: {APP}\n    language: gleam\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 100\n    \
         deploy: {{ stable_after_ms: 500 }}\n"
    );
    bucket.publish(Sample::Gleam, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let agent = Agent::join(&control_plane, "first").await;
    let before = control_plane.settles_on(APP, "0.1.0").await;
    Running { control_plane, port, before, _agent: agent, bucket }
}

impl Running {
    /// Waits until the application says these words of its bucket; meanwhile nothing else may have changed.
    async fn says(&self, words: &str) {
        let what = format!("{words:?} about the bucket");
        let after = self
            .control_plane
            .application_when(&what, APP, |it| {
                it.release_fault.as_ref().is_some_and(|fault| fault.text.contains(words))
            })
            .await;
        assert_eq!(after.summary.in_force, self.before.summary.in_force, "{words}");
        assert_eq!(after.summary.rollout, self.before.summary.rollout, "{words}");
        assert!(after.ghosts.is_empty(), "{words}: {after:#?}");
        assert_eq!(after.slots[0].pid, self.before.slots[0].pid, "{words}");
        assert_eq!(after.slots[0].state, SlotState::Stable, "{words}");
    }

    /// Waits until the bucket is as good as it was.
    async fn is_content_with(&self, version: &str) -> Application {
        let after = self.control_plane.settles_on(APP, version).await;
        let what = format!("no fault beside {version}");
        self.control_plane.application_when(&what, APP, |it| it.release_fault.is_none()).await;
        serves_version(self.port, version).await;
        after
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_current_json_that_makes_no_sense_is_told_and_the_next_good_one_is_deployed() {
    let running = one_replica().await;
    for (json, words) in [
        ("", "is empty"),
        ("1.0.0", "expected an object"),
        ("<html>404</html>", "line 1 column 1"),
        ("[]", "expected an object"),
        (r#"{"version": "0.2.0""#, "EOF while parsing"),
        (r#"{"version": "0.2.0",}"#, "trailing comma"),
        (r#"{"Version": "0.2.0"}"#, r#"has no key "version""#),
        (r#"{"version": 2}"#, "a number"),
        (r#"{"version": "../../etc/passwd"}"#, "names no usable version"),
        (r#"{"version": "0.2.0", "version": "0.1.0"}"#, "there twice"),
        (r#"{"version": "0.2.0", "hash": 12}"#, "\"hash\""),
        (r#"{"version": "0.2.0", "pre_commands": "eval x"}"#, "\"pre_commands\""),
        ("\u{feff}{\"version\": \"0.2.0\"}", "byte order mark"),
    ] {
        running.bucket.write_current(APP, json);
        running.says(words).await;
    }
    // A folder where the file should be is somebody's slip too.
    let current = running.bucket.current_path(APP);
    fs::remove_file(&current).unwrap();
    fs::create_dir(&current).unwrap();
    running.says("is not a file").await;
    fs::remove_dir(&current).unwrap();

    running.bucket.publish(Sample::Gleam, "0.2.0").await;
    running.is_content_with("0.2.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tarball_that_is_late_wrong_or_replaced_is_told_and_the_right_one_is_deployed() {
    let running = one_replica().await;
    let (bucket, control_plane) = (&running.bucket, &running.control_plane);
    let second = release::tarball(Sample::Gleam, "0.2.0").await;
    let good = fs::read(&second.path).unwrap();
    let current = |hash: &str| format!(r#"{{"version": "0.2.0", "hash": "sha256:{hash}"}}"#);

    // CI often writes the JSON first.
    bucket.write_current(APP, &current(&second.digest().unwrap()));
    running.says("waiting for dist/gleam_demo/gleam_demo-0.2.0.tar.gz").await;
    // Then a tarball arrives that is not the one that was meant, half of it, and last the right one.
    bucket.put_tarball(APP, "0.2.0", &fs::read(release::tarball(Sample::Gleam, "0.1.0").await.path).unwrap());
    running.says("has the SHA-256").await;
    bucket.put_tarball(APP, "0.2.0", &good[..good.len() / 2]);
    running.says("was refused").await;
    bucket.put_tarball(APP, "0.2.0", &good);
    let deployed = running.is_content_with("0.2.0").await;

    // The same version with other content is not deployed behind anybody's back, only on request.
    let other = repacked(&second.path);
    bucket.put_tarball(APP, "0.2.0", &other);
    bucket.write_current(APP, r#"{"version": "0.2.0", "hash": "built again"}"#);
    let after = control_plane
        .application_when("the republished version told", APP, |it| {
            it.release_fault.as_ref().is_some_and(|fault| fault.text.contains("republished"))
        })
        .await;
    assert_eq!(after.summary.in_force, deployed.summary.in_force);
    assert_eq!(after.slots[0].pid, deployed.slots[0].pid);
    let said = control_plane.command_line().run(&["deploy", APP, "0.2.0", "--wait"]);
    assert_eq!(said.status, 0, "{said:?}");
    let after = running.is_content_with("0.2.0").await;
    assert_ne!(after.summary.in_force, deployed.summary.in_force);
    assert_ne!(after.slots[0].pid, deployed.slots[0].pid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_current_json_that_is_replaced_half_way_is_read_once_it_is_whole() {
    let running = one_replica().await;
    let second = release::tarball(Sample::Gleam, "0.2.0").await;
    running.bucket.put_tarball(APP, "0.2.0", &fs::read(&second.path).unwrap());
    let json = format!(r#"{{"version": "0.2.0", "hash": "{}"}}"#, second.digest().unwrap());
    // Written in place and slowly, as a careless `cp` does: same file, cut, then whole.
    let path = running.bucket.current_path(APP);
    fs::write(&path, &json[..json.len() / 2]).unwrap();
    running.says("EOF while parsing").await;
    fs::write(&path, &json).unwrap();
    running.is_content_with("0.2.0").await;
}

/// The same files in another tarball.
fn repacked(tarball: &std::path::Path) -> Vec<u8> {
    let script = r#"t=$(mktemp -d) && tar -xzf "$0" -C "$t" && tar -czf - -C "$t" . && rm -rf "$t""#;
    let output = std::process::Command::new("sh").args(["-c", script]).arg(tarball).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
