//! The release that is upgraded, in two versions, and what it answers.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{LOOK, PATIENCE};
use crate::bench::now;
use crate::command::{need_space, run_quietly};
use crate::fixtures::{copy_tree, tool};
use crate::workspace;

pub(super) const APP: &str = "hot_subject";
pub(super) const FROM: &str = "0.1.0";
pub(super) const TO: &str = "0.2.0";

/// Its tarballs.
pub(super) struct Subject {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    /// Whose state the upgrade changes.
    pub(super) processes: u32,
}

impl Subject {
    pub(super) fn build(processes: u32) -> Result<Self> {
        let folder = workspace::target().join("bench").join(APP);
        need_space(&folder, 300, "building the release")?;
        let [from, to] = [FROM, TO].map(|version| build(&folder.join(version), version, processes));
        Ok(Self { from: from?, to: to?, processes })
    }
}

fn build(folder: &Path, version: &str, processes: u32) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let sources = workspace::root().join("xtask/src/bench/hot_upgrade/release");
    copy_tree(&sources, folder)?;
    let app = folder.join("apps").join(APP);
    fs::write(app.join("VERSION"), version)?;
    fs::write(folder.join("config/sys.config"), format!("[{{{APP}, [{{keepers, {processes}}}]}}].\n"))?;
    let appup = folder.join(format!("{version}.appup"));
    if appup.exists() {
        // Where rebar3's plugin leaves it.
        fs::create_dir_all(app.join("priv/appup"))?;
        fs::copy(&appup, app.join(misplaced_appup()))?;
    }
    run_quietly(tool("rebar3", folder)?.args(["as", "prod", "tar"]))?;
    Ok(folder.join(format!("_build/prod/rel/{APP}/{APP}-{version}.tar.gz")))
}

/// In the folder of the application.
pub(super) fn misplaced_appup() -> String {
    format!("priv/appup/{APP}.appup")
}

/// Until this version answers on the port.
pub(super) fn until_serves(port: u16, version: &str) -> Result<()> {
    let since = now();
    while since.elapsed() < PATIENCE {
        if ask(port, "/version").is_ok_and(|it| it == version) {
            return Ok(());
        }
        sleep(LOOK);
    }
    bail!("{version} did not answer on port {port} within {} s", PATIENCE.as_secs())
}

/// How many processes have gone through their `code_change`. It asks all of them.
pub(super) fn changed(port: u16) -> Result<u32> {
    let said = ask(port, "/changed")?;
    said.parse().with_context(|| format!("{said:?} is no number of processes"))
}

fn ask(port: u16, path: &str) -> Result<String> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("the answer has no body")?;
    Ok(body.to_owned())
}
