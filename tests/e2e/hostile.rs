//! Hostile tarballs in the bucket of an application that runs: each ends in a named error and in nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use proto::archive::hostile::samples;
use proto::archive::{Expected, Limits, ReadError, inspect};
use proto::rollouts::RolloutSummary;
use proto::state::Language;
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::{self, Bucket};
use xtask::fixtures::Sample;

const APP: &str = "elixir_demo";

/// What the one who checks releases says of this archive.
fn fault(archive: &[u8]) -> String {
    let app = APP.parse().unwrap();
    let expected = Expected { app: &app, language: Language::Elixir };
    match inspect(archive, &Limits::default(), &expected) {
        Err(ReadError::Fault(fault)) => fault.to_string(),
        other => panic!("not hostile: {other:?}"),
    }
}

/// Every path below, without what a running program keeps changing.
fn paths(folder: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}

/// Names that only the samples use.
fn escaped(folders: &[&Path]) -> Vec<PathBuf> {
    let is_theirs = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ["escape", "outside", "dx-escape", "dx-escape.d"].contains(&name.as_str())
    };
    let mut found: Vec<PathBuf> = folders.iter().flat_map(|folder| paths(folder)).filter(is_theirs).collect();
    found.extend(["/tmp/dx-escape", "/tmp/dx-escape.d", "/tmp/escape", "/tmp/outside"].map(PathBuf::from));
    found.retain(|path| path.symlink_metadata().is_ok());
    found
}

fn rollouts(control_plane: &ControlPlane) -> usize {
    let rollouts: Vec<RolloutSummary> = control_plane.ask(&["rollout", "list", "--app", APP]).unwrap();
    rollouts.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_tarball_is_refused_by_name_and_touches_nothing() {
    let bucket = Bucket::new();
    let port = ports::free(2);
    let applications = format!(
        "  - name: {APP}\n    language: elixir\n    replicas: 1\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 100\n    \
         deploy: {{ stable_after_ms: 500 }}\n"
    );
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let agent = Agent::join(&control_plane, "first").await;
    let before = control_plane.settles_on(APP, "0.1.0").await;
    assert_eq!(rollouts(&control_plane), 1);

    for (nth, sample) in samples().into_iter().enumerate() {
        let (version, name) = (format!("0.9.{nth}"), sample.name);
        let fault = fault(&sample.archive);
        bucket.put_tarball(APP, &version, &sample.archive);
        bucket.write_current(APP, &format!(r#"{{"version": "{version}", "hash": "ci"}}"#));
        let refused = format!("dist/{APP}/{APP}-{version}.tar.gz was refused: {fault}");
        let after = control_plane
            .application_when(&format!("{name}: {refused}"), APP, |it| {
                it.release_fault.as_ref().is_some_and(|found| found.text.contains(&refused))
            })
            .await;
        assert!(after.summary.needs_attention, "{name}: {after:#?}");
        assert_eq!(after.summary.rollout, before.summary.rollout, "{name}");
        assert!(after.ghosts.is_empty(), "{name}: {after:#?}");
        assert_eq!(after.summary.in_force, before.summary.in_force, "{name}");
        assert_eq!(after.slots[0].pid, before.slots[0].pid, "{name}");
    }
    let escaped = escaped(&[control_plane.folder(), bucket.path(), &agent.var_path()]);
    assert!(escaped.is_empty(), "written outside: {escaped:?}");
    assert_eq!(rollouts(&control_plane), 1, "a refused release begins no rollout");
    serves_version(port, "0.1.0").await;

    // A good one with folders named again and again, as some archivers write them, is no worse for what came before.
    bucket.put_tarball(APP, "0.2.0", &with_repeated_folders(Sample::Elixir, "0.2.0").await);
    bucket.write_current(APP, r#"{"version": "0.2.0", "hash": "ci"}"#);
    let after = control_plane.settles_on(APP, "0.2.0").await;
    assert_eq!(after.release_fault, None);
    serves_version(port, "0.2.0").await;
}

/// The same release, its folders named before and after what is in them.
async fn with_repeated_folders(sample: Sample, version: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let tarball = release::tarball(sample, version).await;
    let unpacked = Command::new("tar").arg("-xzf").arg(&tarball.path).arg("-C").arg(folder.path()).status();
    assert!(unpacked.unwrap().success());
    let mut tar = Command::new("tar");
    tar.args(["-czf", "-", "-C"]).arg(folder.path()).args(["--no-recursion", "lib", "./lib", "bin"]);
    tar.args(["--recursion", ".", "--no-recursion", "lib", "releases", "releases/"]);
    let repacked = tar.output().unwrap();
    assert!(repacked.status.success(), "{}", String::from_utf8_lossy(&repacked.stderr));
    repacked.stdout
}
