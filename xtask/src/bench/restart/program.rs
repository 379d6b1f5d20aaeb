//! What is killed: the Erlang sample, and a C program that does nothing, packed as a release.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bench::fleet::{Published, free_ports};
use crate::command::{command, run_quietly};

/// The C program's name as an application.
pub(in crate::bench) const SMALL: &str = "small";

const SOURCE: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";

pub(in crate::bench) struct Program<'a> {
    pub(in crate::bench) name: &'static str,
    pub(in crate::bench) published: &'a Published<'a>,
    language: &'static str,
    /// The one argument that starts it.
    pub(in crate::bench) argument: &'static str,
    /// Where it answers when it is ready; one that has none is ready at once. The peers' are those behind it.
    pub(in crate::bench) port: Option<u16>,
}

impl<'a> Program<'a> {
    pub(in crate::bench) fn beam(published: &'a Published<'a>) -> Result<Self> {
        // Behind those that the fleet is about to take.
        let port = Some(free_ports(10)? + 5);
        Ok(Self { name: "release", published, language: "erlang", argument: "foreground", port })
    }

    pub(in crate::bench) fn small(published: &'a Published<'a>) -> Self {
        Self { name: "C program", published, language: "elixir", argument: "start", port: None }
    }

    /// As `deployex.yaml` has it. No crash is answered with a pause.
    pub(in crate::bench) fn application(&self, replicas: u16) -> String {
        let ports = self
            .port
            .map(|port| format!("    replica_ports: [{{ key: PORT, base: {port} }}]\n"))
            .unwrap_or_default();
        format!(
            "  - name: {}\n    language: {}\n    replicas: {replicas}\n{ports}    deploy_schedule_interval_ms: 1000\n    \
             deploy: {{ strategy: stop_first, stable_after_ms: 500, watch_ms: 0 }}\n    \
             restart: {{ backoff_min_ms: 1000, backoff_max_ms: 1000, reset_after_ms: 200 }}\n",
            self.published.app, self.language
        )
    }
}

/// The C program as a tarball that an agent takes for a release.
pub(in crate::bench) fn small(folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("tree");
    for part in ["bin", "lib", "releases"] {
        fs::create_dir_all(tree.join(part)).with_context(|| format!("cannot create {}", tree.display()))?;
    }
    let source = folder.join("small.c");
    fs::write(&source, SOURCE)?;
    run_quietly(command("cc").arg("-O2").arg("-o").arg(tree.join("bin").join(SMALL)).arg(&source))?;
    let tarball = folder.join("small.tar.gz");
    run_quietly(
        command("tar").arg("-czf").arg(&tarball).arg("-C").arg(&tree).args(["bin", "lib", "releases"]),
    )?;
    Ok(tarball)
}
