//! A network namespace without a name: held open by this process and by whoever runs in it, and gone with the last of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xtask::command::find;

#[derive(Debug)]
pub(super) struct Namespace {
    file: File,
}

impl Namespace {
    /// Made by a process that holds it until we do.
    pub(super) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces are made by root: run this test as root, or its twin over loopback"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-c", "echo made && read end"]);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut maker =
            unshare.spawn().unwrap_or_else(|error| panic!("unshare could not be started: {error}"));
        let mut said = String::new();
        let out = maker.stdout.take().expect("its output is ours");
        BufReader::new(out).read_line(&mut said).expect("its output can be read");
        assert!(said == "made\n", "this machine makes no network namespaces: {}", errors_of(maker));
        let file = File::open(format!("/proc/{}/ns/net", maker.id())).expect("its namespace can be opened");
        // The end of its input is its own.
        drop(maker.stdin.take());
        maker.wait().expect("it is our child");
        Self { file }
    }

    /// On a thread of its own, because it is a thread that is in a namespace. What it starts is in there, too.
    pub(super) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let entered = move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network));
            entered.unwrap_or_else(|error| panic!("a network namespace cannot be entered: {error}"));
            act()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// By which other programs find it, as long as this lives.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs these lines of `ip` in here.
    pub(super) fn ip(&self, lines: &str) {
        let ip = find("ip").expect("ip is not installed: apt-get install iproute2 (or cargo xtask setup)");
        let mut command = Command::new(ip);
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = self.enter(|| command.spawn()).expect("ip can be started");
        let mut input = running.stdin.take().expect("its input is ours");
        input.write_all(lines.as_bytes()).expect("ip reads what it is to do");
        drop(input);
        let output = running.wait_with_output().expect("it is our child");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip ended with {}: {said}in\n{lines}", output.status);
    }
}

fn errors_of(child: Child) -> String {
    let output = child.wait_with_output().expect("it is our child");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
