//! A child process that does not outlive the test, with its output kept for the message of a failure.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A program that was started. Dropping it kills it. It stays in the test's process group, which the test runner kills as a
/// whole when a test hangs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: PathBuf,
}

impl Running {
    /// Starts it; what it prints goes into `output`.
    pub fn start(command: &mut Command, output: &Path) -> Self {
        let file = File::options().create(true).append(true).open(output);
        let file = file.unwrap_or_else(|error| panic!("cannot write {}: {error}", output.display()));
        let errors = file.try_clone().expect("a descriptor can be had");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("{} could not be started: {error}", command.get_program().display())
        });
        Self { child, output: output.to_path_buf() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        std::fs::read(&self.output)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.id() {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL to the program alone, as the kernel's out-of-memory killer would; returns once it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    fn id(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
