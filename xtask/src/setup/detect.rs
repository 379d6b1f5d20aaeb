//! Looks at the machine: what is installed, who we are. Decides nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{command, find, run_quietly};
use crate::setup::plan::{Machine, Rights};
use crate::setup::tools::{Distribution, Purpose, Tool};

pub fn machine() -> Machine {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let rights = rights();
    let all = [Purpose::Test, Purpose::Bench].into_iter().flat_map(Purpose::needs);
    let present = all.filter(|tool| is_present(*tool)).collect::<BTreeSet<_>>();
    Machine {
        distribution: Distribution::from_os_release(&os_release),
        rustup_adds_targets: find("rustup").is_some(),
        rights,
        present,
    }
}

fn rights() -> Rights {
    if rustix::process::geteuid().is_root() {
        Rights::Root
    } else if find("sudo").is_some() && run_quietly(command("sudo").args(["-n", "true"])).is_ok() {
        Rights::Sudo
    } else {
        Rights::None
    }
}

pub fn is_present(tool: Tool) -> bool {
    match tool {
        Tool::WebCompiler => web_compiler().is_some(),
        Tool::Postgres => postgres().is_some(),
        Tool::ApplicationUser => fs::read_to_string("/etc/passwd")
            .is_ok_and(|users| users.lines().any(|line| line.starts_with("deployex:"))),
        _ => tool.programs().iter().any(|program| find(program).is_some()),
    }
}

/// Which compiler builds the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebCompiler {
    /// The toolchain that is in use has the target.
    Rustup,
    /// Debian's `rustc-web`, which brings the standard library as source.
    Debian,
}

pub fn web_compiler() -> Option<WebCompiler> {
    let of_rustc = |rustc: &str| run_quietly(command(rustc).args(["--print", "sysroot"])).ok();
    let has_target = of_rustc("rustc").is_some_and(|sysroot| {
        Path::new(sysroot.trim()).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir()
    });
    if has_target {
        return Some(WebCompiler::Rustup);
    }
    let debian = Path::new("/usr/bin/rustc").exists()
        && Path::new("/usr/bin/cargo").exists()
        && Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml").exists()
        && find("wasm-ld-19").is_some();
    debian.then_some(WebCompiler::Debian)
}

/// The folder of the newest PostgreSQL server's programs: Debian keeps them off `PATH`.
pub fn postgres() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").exists() && bin.join("pg_ctl").exists())
        .collect();
    versions.sort();
    match versions.pop() {
        Some((_, bin)) => Some(bin),
        None => find("initdb").and_then(|initdb| initdb.parent().map(Path::to_path_buf)),
    }
}
