//! The peer: the release started by its own script, and upgraded by an escript that calls OTP's release handler.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::Upgraded;
use super::subject::{self, APP, FROM, Subject, TO};
use crate::bench::{fleet, now};
use crate::command::{command, run_quietly};
use crate::processes;

const SCRIPT: &str = include_str!("bare.escript");
const NODE: &str = "bench-bare";
const COOKIE: &str = "bench";

pub(super) struct Bare {
    release: Child,
    script: Child,
    to_script: ChildStdin,
    from_script: BufReader<ChildStdout>,
    folder: TempDir,
}

impl Bare {
    /// With everything ready but the word to begin.
    pub(super) fn start(subject: &Subject, port: u16) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("deployex-bench-bare-").tempdir()?;
        let (root, epmd) = (folder.path().join("release"), fleet::free_ports(8)? + 7);
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        run_quietly(command("tar").arg("-xzf").arg(&subject.from).arg("-C").arg(&root))?;
        let output = File::create(folder.path().join("output"))?;
        let mut start = of_folder(command(root.join("bin").join(APP)), &folder, epmd);
        start.arg("foreground").env("PORT", port.to_string());
        start.env("RELX_REPLACE_OS_VARS", "true").env("RELEASE_SSL_OPTIONS", "");
        start.env("RELEASE_NODE", NODE).env("RELEASE_COOKIE", COOKIE);
        let release = start.stdout(output.try_clone()?).stderr(output).spawn();
        let release = release.context("cannot start the release")?;
        subject::until_serves(port, FROM)?;

        // What is there already is what runs.
        run_quietly(
            command("tar").arg("-xzf").arg(&subject.to).arg("--skip-old-files").arg("-C").arg(&root),
        )?;
        let library = root.join(format!("lib/{APP}-{TO}"));
        fs::copy(library.join(subject::misplaced_appup()), library.join(format!("ebin/{APP}.appup")))?;

        let path = folder.path().join("bare.escript");
        fs::write(&path, SCRIPT)?;
        let mut script = of_folder(command("escript"), &folder, epmd);
        script.arg(&path).args([NODE, COOKIE]).arg(&root).args([APP, FROM, TO]);
        let script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut script = script.context("cannot start escript")?;
        let to_script = script.stdin.take().context("the script reads")?;
        let from_script = BufReader::new(script.stdout.take().context("the script writes")?);
        let mut bare = Self { release, script, to_script, from_script, folder };
        match bare.line()?.as_str() {
            "ready" => Ok(bare),
            other => bail!("the script of the peer said {other:?} before it began"),
        }
    }

    pub(super) fn upgrade(&mut self) -> Result<Upgraded> {
        let began = now();
        self.to_script.write_all(b"go\n")?;
        let mut steps = Vec::new();
        loop {
            let line = self.line()?;
            if line == "done" {
                return Ok(Upgraded { began, ended: now(), published: None, steps });
            }
            let (step, took) = line.split_once(' ').with_context(|| format!("no step: {line:?}"))?;
            let took: u32 = took.parse().with_context(|| format!("no step: {line:?}"))?;
            steps.push((step.to_owned(), f64::from(took) / 1_000.0));
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.from_script.read_line(&mut line)? == 0 {
            bail!("the script of the peer ended early: what it and the release said is above");
        }
        Ok(line.trim_end().to_owned())
    }
}

/// At home in the folder, so that it is found with it.
fn of_folder(mut command: Command, folder: &TempDir, epmd: u16) -> Command {
    command.env("HOME", folder.path()).env("ERL_EPMD_PORT", epmd.to_string()).stdin(Stdio::null());
    command
}

impl Drop for Bare {
    fn drop(&mut self) {
        // With its epmd.
        processes::end_all_under(self.folder.path(), Duration::ZERO);
        let _ = self.script.wait();
        let _ = self.release.wait();
    }
}
