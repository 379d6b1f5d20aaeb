//! A real NGINX in front of a program, as an ordinary program with a configuration, folder and port of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use xtask::command::find;

use crate::ports;
use crate::process::Running;
use crate::wait::{Seen, eventually};

/// For workers that finish what they have.
const LEAVING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Nginx {
    port: u16,
    running: Running,
    folder: TempDir,
}

impl Nginx {
    /// Starts it with this text inside `http { … }`, where `{port}` stands for the port that it is given.
    pub async fn start(http: &str) -> Self {
        Self::start_in(
            tempfile::tempdir().expect("a temporary folder can be made"),
            http,
            "master_process off;",
        )
        .await
    }

    /// One with a master and two workers, which reads its configuration anew when it is told to. `{folder}` stands for a
    /// folder that holds `files` (name, text).
    pub async fn start_reloadable(http: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("the folder is ours");
        }
        let http = http.replace("{folder}", &folder.path().display().to_string());
        // Workers of another user could not enter the folder.
        Self::start_in(folder, &http, "user root;\nworker_processes 2;").await
    }

    async fn start_in(folder: TempDir, http: &str, processes: &str) -> Self {
        let program = find("nginx").expect("NGINX is not installed: cargo xtask setup");
        let port = ports::free(1);
        let configuration = folder.path().join("nginx.conf");
        let text = whole(&http.replace("{port}", &port.to_string()), processes, folder.path());
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

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What makes it read its configuration anew.
    pub fn reload(&self) -> String {
        let folder = self.folder.path().display();
        format!("nginx -p {folder} -c {folder}/nginx.conf -e stderr -s reload")
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

/// Its workers end before its folder does.
impl Drop for Nginx {
    fn drop(&mut self) {
        let workers = children(self.running.pid());
        self.running.signal(Signal::TERM);
        for _ in 0..LEAVING.as_millis() / LOOK.as_millis() {
            if self.running.ended().is_some() {
                return;
            }
            std::thread::sleep(LOOK);
        }
        self.running.kill();
        for worker in workers {
            let _ = kill_process(worker, Signal::KILL);
        }
    }
}

fn children(parent: u32) -> Vec<Pid> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|it| it.1.split(' ').nth(1)?.parse().ok()) == Some(parent)
    };
    pids.filter(is_child).filter_map(Pid::from_raw).collect()
}

/// It stays in the foreground and writes only below its folder. One without a master, which ends with its test at once, has no
/// workers left over.
fn whole(http: &str, processes: &str, folder: &Path) -> String {
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "daemon off;\n{processes}\npid {folder}/pid;\nevents {{}}\n\
         http {{\n  access_log {folder}/access.log;\n{temporary}{http}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::get;

    #[tokio::test]
    async fn one_with_a_master_is_reloaded_and_leaves_nobody_behind() {
        let nginx = Nginx::start_reloadable(
            "include {folder}/answer.conf;\n\
             server { listen 127.0.0.1:{port}; location / { return 200 $told; } }",
            &[("answer.conf", "map $host $told { default one; }")],
        )
        .await;
        assert_eq!(get(&nginx.url("/")).await.unwrap(), "one");
        fs::write(nginx.folder().join("answer.conf"), "map $host $told { default two; }").unwrap();
        let reload = nginx.reload();
        let mut words = reload.split(' ');
        assert!(Command::new(words.next().unwrap()).args(words).status().unwrap().success());
        eventually("the new answer", || async {
            match get(&nginx.url("/")).await {
                Ok(text) if text == "two" => Seen::Done(()),
                other => Seen::NotYet(format!("{other:?}")),
            }
        })
        .await;
        let workers = children(nginx.running.pid());
        assert!(workers.len() >= 2, "{workers:?}");
        drop(nginx);
        for pid in workers {
            assert!(kill_process(pid, Signal::CONT).is_err(), "{pid:?} is still there");
        }
    }

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
