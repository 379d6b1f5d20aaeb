//! A command whose exit status is the answer: a child of the agent, for as long as it may take and no longer.
//!
//! Not under a keeper, as pre-commands are: those must outlive the agent, this must not, and is asked every second. It is
//! the application's user from before it is executed, leads a group of its own, and that group is ended with it, whether it
//! ended by itself, was late, or nobody wants its answer any more. Where the agent itself is killed the kernel ends it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{
    Gid, Pid, Signal, Uid, WaitId, WaitIdOptions, chdir, geteuid, getppid, kill_process_group,
    set_parent_process_death_signal, umask, waitid,
};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::hindrance::Hindrance;
use super::super::process::UserIds;
use super::{BODY_MAX, Failure, READ_MAX, first_part};

/// As a pipe is made by the kernel, in bytes.
const PIPE_MAX: usize = 64 << 10;
/// What was killed is gone at once, unless the kernel is busy with it.
const GONE: Duration = Duration::from_secs(1);

/// What is run, as whom and where.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct Order {
    pub(in crate::supervisor) program: PathBuf,
    pub(in crate::supervisor) args: Vec<OsString>,
    pub(in crate::supervisor) env: BTreeMap<OsString, OsString>,
    pub(in crate::supervisor) cwd: PathBuf,
    /// `None`: the agent's own user, who is not root.
    pub(in crate::supervisor) user: Option<UserIds>,
}

/// Whether the command ends with status 0 in time. What it printed last is told where it does not.
pub(super) async fn run(order: &Order, within: Duration) -> Result<(), Failure> {
    let by = Instant::now() + within;
    let cannot = |error: io::Error| Failure {
        unasked: Hindrance::behind(&error).is_some(),
        ..Failure::of(format!("cannot be run: {error}"))
    };
    let (output, input) = io::pipe().map_err(cannot)?;
    let mut output = pipe::Receiver::from_owned_fd(output.into()).map_err(cannot)?;
    // Listened for before there is one, so that no end is missed.
    let mut children = signal(SignalKind::child()).map_err(cannot)?;
    let mut child = {
        let mut command = command(order, input.try_clone().map_err(cannot)?, input).map_err(cannot)?;
        command.spawn().map_err(cannot)?
    };
    // Dropped before the child, which is the leader: as long as that is not taken up its number is nobody else's.
    let group = Group(child.id().and_then(|it| i32::try_from(it).ok()).and_then(Pid::from_raw));
    let ended = ended(group.0, &mut children);
    tokio::pin!(ended);
    let mut printed = Printed::default();
    let in_time = loop {
        tokio::select! {
            biased;
            () = &mut ended => break true,
            () = sleep_until(by) => break false,
            read = output.read_buf(&mut printed.chunk), if printed.is_open => printed.take(read.unwrap_or(0)),
        }
    };
    drop(group);
    printed.take_what_is_left(&output);
    let status = match timeout(GONE, child.wait()).await {
        // It is taken up by the runtime once it goes.
        Err(_) => {
            return Err(printed.failure(format!("does not end, killed after {} ms", within.as_millis())));
        }
        Ok(status) => status.map_err(cannot)?,
    };
    if !in_time {
        return Err(printed.failure(format!("was killed after {} ms", within.as_millis())));
    }
    if status.success() {
        return Ok(());
    }
    let cause = super::super::acts::exit_cause(status);
    Err(printed.failure(format!("ended with {cause}")))
}

/// With both of its outputs into one pipe.
fn command(order: &Order, stdout: io::PipeWriter, stderr: io::PipeWriter) -> io::Result<Command> {
    let Order { program, args, env, cwd, user } = order;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(env).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let cwd = CString::new(cwd.as_os_str().as_bytes())?;
    become_user_in_child(&mut command, user.clone(), cwd);
    Ok(command)
}

#[expect(
    unsafe_code,
    reason = "the library gives up the supplementary groups that the replica has, and knows no signal for the parent's end"
)]
fn become_user_in_child(command: &mut Command, user: Option<UserIds>, cwd: CString) {
    let user = user.map(|UserIds { uid, gid, groups }| {
        let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
        (Uid::from_raw(uid), Gid::from_raw(gid), groups)
    });
    let agent = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or_default());
    let prepare = move || {
        umask(Mode::from_raw_mode(0o022));
        if let Some((uid, gid, groups)) = &user
            && geteuid().is_root()
        {
            set_thread_groups(groups)?;
            set_thread_res_gid(*gid, *gid, *gid)?;
            set_thread_res_uid(*uid, *uid, *uid)?;
        }
        // A change of user forgets it, so it comes after that; the agent may have died before it was said.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != agent {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::SRCH.raw_os_error()));
        }
        // As the user, who may or may not enter it.
        chdir(cwd.as_c_str())?;
        Ok(())
    };
    // SAFETY: between fork and exec in a program with threads only what a signal handler may do is allowed. These are bare
    // system calls on what was made before the fork; nothing is allocated and no lock is taken.
    unsafe { command.pre_exec(prepare) };
}

/// Waits until it has ended, and does not take it up.
async fn ended(leader: Option<Pid>, children: &mut Signals) {
    let Some(leader) = leader else { return };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while let Ok(None) = waitid(WaitId::Pid(leader), look) {
        children.recv().await;
    }
}

/// Everybody in the group is ended when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Nobody may be left.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// The end of what was printed.
struct Printed {
    chunk: Vec<u8>,
    text: Vec<u8>,
    is_open: bool,
}

impl Default for Printed {
    fn default() -> Self {
        Self { chunk: Vec::with_capacity(READ_MAX), text: Vec::new(), is_open: true }
    }
}

impl Printed {
    /// So many bytes came; 0: the last of those who could write has gone.
    fn take(&mut self, read: usize) {
        self.is_open = read > 0;
        self.text.append(&mut self.chunk);
        let from = self.text.len().saturating_sub(BODY_MAX);
        self.text.drain(..from);
        self.chunk.reserve(READ_MAX);
    }

    /// Without waiting, and past the runtime, which may not have noticed yet that there is something. No more than a pipe
    /// holds: who has left the group may go on writing for ever.
    fn take_what_is_left(&mut self, output: &pipe::Receiver) {
        for _ in 0..PIPE_MAX / READ_MAX {
            let mut chunk = [0; READ_MAX];
            match rustix::io::read(output, &mut chunk) {
                Ok(read) if read > 0 && self.is_open => {
                    self.chunk.extend_from_slice(&chunk[..read]);
                    self.take(read);
                }
                _ => return,
            }
        }
    }

    fn failure(self, outcome: String) -> Failure {
        Failure { body: first_part(&self.text), ..Failure::of(outcome) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const WITHIN: Duration = Duration::from_mins(1);

    fn sh(script: &str, cwd: &Path, user: Option<UserIds>) -> Order {
        let env = [("PATH", "/usr/bin:/bin"), ("COLOUR", "red")];
        Order {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: env.map(|(key, value)| (key.into(), value.into())).into(),
            cwd: cwd.to_owned(),
            user,
        }
    }

    async fn asked(script: &str, within: Duration) -> Result<(), Failure> {
        let folder = tempfile::tempdir().unwrap();
        run(&sh(script, folder.path(), None), within).await
    }

    fn failed(outcome: &str, body: &str) -> Result<(), Failure> {
        Err(Failure { body: body.to_owned(), ..Failure::of(outcome) })
    }

    fn lives(pid: &str) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    /// The pid that a script wrote down, once it has gone.
    async fn gone(folder: &Path) {
        let pid = fs::read_to_string(folder.join("pid")).unwrap();
        for _ in 0..6_000 {
            if !lives(pid.trim()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} lives on");
    }

    #[tokio::test]
    async fn the_exit_status_decides_and_what_was_printed_is_told() {
        assert_eq!(asked("echo fine", WITHIN).await, Ok(()));
        let said = asked("echo out; echo err >&2; exit 3", WITHIN).await;
        assert_eq!(said, failed("ended with exit status 3", "out\nerr\n"));
        let said = asked("kill -9 $$", WITHIN).await;
        assert_eq!(said, failed("ended with signal 9 (SIGKILL)", ""));
        let said = asked("echo $COLOUR in $PWD $(env | wc -l); exit 1", WITHIN).await.unwrap_err().body;
        assert!(said.starts_with("red in /tmp/") && said.trim_end().len() < 60, "{said}");
    }

    #[tokio::test]
    async fn of_much_output_the_end_is_kept() {
        let said = asked("yes x | head -n 100000; echo last; exit 1", WITHIN).await.unwrap_err();
        assert!(said.body.len() <= BODY_MAX && said.body.ends_with("x\nlast\n"), "{said:?}");
    }

    #[tokio::test]
    async fn who_takes_too_long_is_killed_with_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo begun; trap '' TERM; sleep 1000 & echo $! > pid; wait";
        let said = run(&sh(script, folder.path(), None), Duration::from_secs(5)).await;
        assert_eq!(said, failed("was killed after 5000 ms", "begun\n"));
        gone(folder.path()).await;
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_goes_with_it_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sleep 1000 & echo $! > pid; exit 0";
        assert_eq!(run(&sh(script, folder.path(), None), WITHIN).await, Ok(()));
        gone(folder.path()).await;
    }

    #[tokio::test]
    async fn one_whose_answer_nobody_wants_is_ended_and_leaves_no_zombie() {
        let folder = tempfile::tempdir().unwrap();
        let order = sh("echo $$ > pid; sleep 1000", folder.path(), None);
        let begun = async {
            while fs::read_to_string(folder.path().join("pid")).unwrap_or_default().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            said = run(&order, WITHIN) => panic!("{said:?}"),
            () = begun => {}
        }
        gone(folder.path()).await;
        let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
        for _ in 0..6_000 {
            if !Path::new(&format!("/proc/{}", pid.trim())).exists() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{pid} is a zombie");
    }

    #[tokio::test]
    async fn what_cannot_be_run_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let mut order = sh("", folder.path(), None);
        order.program = folder.path().join("absent");
        let said = run(&order, WITHIN).await.unwrap_err().outcome;
        assert!(said.starts_with("cannot be run: No such file"), "{said}");
        order.program = "/bin/true".into();
        order.cwd = folder.path().join("absent");
        let said = run(&order, WITHIN).await.unwrap_err().outcome;
        assert!(said.starts_with("cannot be run: No such file"), "{said}");
    }

    #[tokio::test]
    async fn as_root_it_is_the_applications_user_with_its_groups_and_nothing_of_root() {
        assert!(geteuid().is_root(), "to be another user needs root: sudo cargo xtask test");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let user = UserIds { uid: 65_534, gid: 65_533, groups: vec![65_533, 65_532] };
        let script = "grep -E '^(Uid|Gid|Groups|CapEff)' /proc/self/status; exit 1";
        let said = run(&sh(script, folder.path(), Some(user)), WITHIN).await.unwrap_err().body;
        let words: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                vec!["Uid:", "65534", "65534", "65534", "65534"],
                vec!["Gid:", "65533", "65533", "65533", "65533"],
                vec!["Groups:", "65532", "65533"],
                vec!["CapEff:", "0000000000000000"],
            ]
        );
    }
}
