//! What a machine has to show for some tests: controllers of cgroup v2, network namespaces, a right of root's, and a systemd,
//! which is started in a container where it is not the first process. The container is a root of its own in the target folder,
//! made once by debootstrap.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::command::{command, find, need_space, run_quietly};
use crate::workspace;

/// To boot, run a few tests and go.
const PATIENCE: Duration = Duration::from_mins(4);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// `None`: cgroup v2 has all that limits are set with.
pub(super) fn missing_controllers() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some(mount) = mount_of_cgroup2(&mounts) else { return Some("cgroup v2 is not mounted here".into()) };
    let offered = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    missing(&offered).map(|them| {
        format!("cgroup v2 has no controller for {them} here; cgroup v1 has taken them, or nobody has")
    })
}

fn mount_of_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn missing(offered: &str) -> Option<String> {
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|name| !offered.split_whitespace().any(|it| it == *name)).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// `CAP_SYS_RESOURCE`, the 24th right.
pub(super) fn may_be_spared() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|it| u64::from_str_radix(it.trim(), 16).ok())
        .is_some_and(|rights| rights & (1 << 24) != 0)
}

/// What keeps hosts from being made of network namespaces: an interface pair and a bridge are tried in one that goes at once.
pub(super) fn missing_for_namespaces() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces are made by root".into());
    }
    let Some(ip) = find("ip") else {
        return Some("ip is not installed (apt-get install iproute2), which makes network namespaces".into());
    };
    let tried = format!(
        "{0} link add probe0 type veth peer name probe1 && {0} link add probe2 type bridge",
        ip.display()
    );
    let tried = run_quietly(command("unshare").args(["--net", "sh", "-c", &tried]));
    tried.err().map(|error| format!("this machine makes no network namespaces: {error:#}").replace('\n', " "))
}

/// What a container with a systemd in it would need, as the end of a sentence.
pub(super) fn what_is_missing() -> Option<String> {
    for (program, package) in [("systemd-nspawn", "systemd-container"), ("debootstrap", "debootstrap")] {
        if find(program).is_none() {
            return Some(format!(
                "{program} is not installed (apt-get install {package}), which would start one"
            ));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_of_cgroup2(&mounts).is_none().then(|| "cgroup v2, which one would need, is not mounted".into())
}

/// Runs the tests of one binary whose names hold `filter`, in a container that systemd boots. Why none could be run there, where
/// the machine lets none boot.
pub(super) fn run(binary: &str, filter: &str) -> Result<Option<String>> {
    let root = match root() {
        Ok(root) => root,
        Err(error) => return Ok(Some(format!("no root for a container could be made: {error:#}"))),
    };
    let program = test_binary(binary)?;
    let out = tempfile::tempdir()?;
    let unit = format!(
        "[Unit]\nDescription=Tests of DeployEx\nAfter=dbus.service\nRequires=dbus.service\n\n\
         [Service]\nType=oneshot\nExecStart=/bin/sh -c '{} {filter} --test-threads 1 >/out/log 2>&1; \
         echo $? >/out/status; systemctl --no-block poweroff'\n",
        program.display()
    );
    let units = root.join("etc/systemd/system");
    fs::write(units.join("deployex-tests.service"), unit)?;
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    let wanted = units.join("multi-user.target.wants/deployex-tests.service");
    if !wanted.exists() {
        symlink("../deployex-tests.service", &wanted)?;
    }
    let target = workspace::target();
    let mut container = command("systemd-nspawn")
        .args(["--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe", "-D"])
        .arg(&root)
        .arg(format!("--bind-ro={}", target.display()))
        .arg(format!("--bind={}:/out", out.path().display()))
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("systemd-nspawn cannot be started")?;
    let looks = PATIENCE.as_millis() / LOOK_AGAIN.as_millis();
    let mut ended = false;
    for _ in 0..looks {
        ended = container.try_wait()?.is_some();
        if ended {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    if !ended {
        container.kill()?;
        container.wait()?;
    }
    let log = fs::read_to_string(out.path().join("log")).unwrap_or_default();
    println!("{log}");
    let status = fs::read_to_string(out.path().join("status")).unwrap_or_default();
    match status.trim() {
        "0" => {
            ensure!(!log.contains(" 0 passed"), "no test of {binary} is called {filter}");
            Ok(None)
        }
        "" if log.trim().is_empty() => {
            Ok(Some("a container was begun and did not come so far as to run the tests".to_owned()))
        }
        "" => bail!("the tests had not ended after {} s", PATIENCE.as_secs()),
        status => bail!("the tests ended with {status}"),
    }
}

/// A small system of the same distribution, whose C library the test binaries were linked with.
fn root() -> Result<PathBuf> {
    let root = workspace::target().join("booted");
    if root.join("etc/systemd/system").is_dir() && root.join("whole").exists() {
        return Ok(root);
    }
    need_space(&root, 600, "a root for a container")?;
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let codename =
        codename.context("/etc/os-release does not say which release of which distribution this is")?;
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    println!("a root for a container: {}", root.display());
    run_quietly(
        command("debootstrap")
            .args(["--variant=minbase", "--include=systemd,systemd-sysv,dbus", codename.trim_matches('"')])
            .arg(&root),
    )?;
    fs::write(root.join("whole"), "")?;
    Ok(root)
}

fn test_binary(id: &str) -> Result<PathBuf> {
    let listed = run_quietly(command("cargo").args([
        "nextest",
        "list",
        "--workspace",
        "--test",
        "keeper",
        "--list-type",
        "binaries-only",
        "--message-format",
        "json",
    ]))?;
    path_of(&listed, id).with_context(|| format!("cargo nextest does not list {id}"))
}

fn path_of(listed: &str, id: &str) -> Option<PathBuf> {
    let listed: Value = serde_json::from_str(listed).ok()?;
    let path = listed.get("rust-binaries")?.get(id)?.get("binary-path")?.as_str()?;
    Some(Path::new(path).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_what_its_cgroups_lack() {
        let mounts = "31 25 0:27 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs rw\n\
            32 31 0:28 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_of_cgroup2(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_of_cgroup2("31 25 0:27 / /x ro - tmpfs tmpfs rw\n"), None);
        assert_eq!(missing("cpuset cpu io memory pids"), None);
        assert_eq!(missing("cpu\n").as_deref(), Some("memory, pids"));
    }

    #[test]
    fn a_binary_is_found_by_its_id() {
        let listed =
            r#"{"rust-binaries": {"node-agent::keeper": {"binary-path": "/t/debug/deps/keeper-1"}}}"#;
        assert_eq!(path_of(listed, "node-agent::keeper"), Some("/t/debug/deps/keeper-1".into()));
        assert_eq!(path_of(listed, "other"), None);
    }
}
