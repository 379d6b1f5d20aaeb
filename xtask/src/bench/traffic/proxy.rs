//! An NGINX with a master and two workers before a fleet, in a folder and on a port of its own.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::bench::fleet::free_ports;
use crate::command::{command, find};
use crate::demo::{Started, start};

const LOOK: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);

/// Dropping it ends its master, which ends its workers.
pub(super) struct Proxy {
    port: u16,
    running: Started,
    folder: TempDir,
}

impl Proxy {
    /// With a list of these ports, which stays as it is unless somebody writes another.
    pub(super) fn start(ports: &[u16]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("deployex-bench-nginx-").tempdir()?;
        let port = free_ports(1)?;
        let servers: String =
            ports.iter().map(|it| format!("  server 127.0.0.1:{it};\n")).collect::<Vec<_>>().concat();
        // As an agent begins its own, so that it may replace it.
        let list = format!("# Written by DeployEx\nupstream demo {{\n{servers}  keepalive 32;\n}}\n");
        fs::write(folder.path().join("upstream.conf"), list)?;
        fs::write(folder.path().join("nginx.conf"), configuration(folder.path(), port))?;
        let nginx = find("nginx").context("NGINX is not installed: cargo xtask setup --for bench")?;
        let mut program = command(nginx);
        program
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .args(["-e", "stderr"]);
        let running = start(program, &folder.path().join("output"))?;
        let proxy = Self { port, running, folder };
        for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(proxy);
            }
            sleep(LOOK);
        }
        bail!("NGINX does not listen: {}", fs::read_to_string(&proxy.running.log).unwrap_or_default())
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The application's settings with which an agent keeps the list.
    pub(super) fn yaml(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            "    nginx: {{ upstream_file: {folder}/upstream.conf, upstream: demo, port: PORT, \
             reload: \"nginx -p {folder} -c {folder}/nginx.conf -e stderr -s reload\" }}\n"
        )
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let shown = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {shown}/{name};\n"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "daemon off;\nuser root;\nworker_processes 2;\nworker_rlimit_nofile 16384;\npid {shown}/pid;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n  access_log off;\n{temporary}  include {shown}/upstream.conf;\n  \
         server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    location / {{\n      proxy_pass http://demo;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    }}\n  }}\n}}\n"
    )
}
