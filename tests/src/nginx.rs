//! A real NGINX in front of a program, as an ordinary program with a configuration, folder and port of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use xtask::command::find;

use crate::ports;
use crate::process::Running;
use crate::wait::{Seen, eventually};

#[derive(Debug)]
pub struct Nginx {
    port: u16,
    running: Running,
    folder: TempDir,
}

impl Nginx {
    /// Starts it with this text inside `http { … }`, where `{port}` stands for the port that it is given.
    pub async fn start(http: &str) -> Self {
        let program = find("nginx").expect("NGINX is not installed: cargo xtask setup");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = ports::free(1);
        let configuration = folder.path().join("nginx.conf");
        let text = whole(&http.replace("{port}", &port.to_string()), folder.path());
        fs::write(&configuration, text).expect("the folder is ours");

        let mut command = Command::new(program);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&configuration).args(["-e", "stderr"]);
        let mut running = Running::start(&mut command, &folder.path().join("output"));
        eventually("NGINX", || {
            let ended = running.ended().map(|status| format!("it ended with {status}: {}", running.output()));
            async move {
                match (tokio::net::TcpStream::connect(("127.0.0.1", port)).await, ended) {
                    (Ok(_), None) => Seen::Done(()),
                    (_, Some(ended)) => Seen::NotYet(ended),
                    (Err(error), None) => Seen::NotYet(error.to_string()),
                }
            }
        })
        .await;
        Self { port, running, folder }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it logged, requests included.
    pub fn log(&self) -> String {
        let requests = fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        format!("{}{requests}", self.running.output())
    }
}

/// One process that stays in the foreground and writes only below its folder. One that ends with its test at once has no
/// workers left over.
fn whole(http: &str, folder: &Path) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/pid;\nevents {{}}\n\
         http {{\n  access_log {folder}/access.log;\n{temporary}{http}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::get;

    #[tokio::test]
    async fn it_serves_what_it_was_told_on_its_port() {
        let nginx =
            Nginx::start("server { listen 127.0.0.1:{port}; location / { return 200 \"told\"; } }").await;
        assert_eq!(get(&nginx.url("/")).await.unwrap(), "told");
        // It logs a request once the answer is sent, so whoever has the answer may be ahead of the log.
        eventually("the request in NGINX's log", || {
            let log = nginx.log();
            async move { if log.contains("GET / ") { Seen::Done(()) } else { Seen::NotYet(log) } }
        })
        .await;
    }
}
