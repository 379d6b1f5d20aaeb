//! Agents and keepers of two versions: the lines, records and orders of version 1 as it spoke them, kept here as bytes.
//!
//! A keeper lives as long as its process, so that one of a year ago may meet the agent of today, and where agent and keeper
//! are replaced one after the other, the agent of yesterday a keeper of today.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use node_agent::supervisor::process::Found;
use proto::state::ExitCause;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;

use super::world::{KEEPER, World, eventually, lives, signal, soon};

pub(super) fn start_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}

pub(super) fn record_1(world: &World, pid: u32) -> String {
    format!(
        "process 1\nticket 7\npid {pid}\nstart {}\nboot {}\nstdout {}\nstderr {}\nmode 600\nend\n",
        start_ticks(pid),
        node_agent::host::boot_id(),
        world.path("log/stdout.log").display(),
        world.path("log/stderr.log").display(),
    )
}

fn locked(world: &World, name: &str) -> File {
    let path = world.slot.path().join(name);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    file
}

/// A keeper of version 1, as its recorded lines have it: one that is asked to stop, and then goes.
#[allow(clippy::zombie_processes, reason = "its keeper waits for it, once it was told to")]
fn keep_as_version_1(world: &World) -> (u32, std::thread::JoinHandle<Vec<String>>) {
    world.slot.create().unwrap();
    let locks = [locked(world, "keeper.lock"), locked(world, "lock")];
    let mut program = Command::new("setsid").args(["sleep", "1000"]).spawn().unwrap();
    let pid = program.id();
    let (process, slot) = (format!("7 {pid} {}", start_ticks(pid)), world.slot.path().to_owned());
    fs::write(slot.join("process"), record_1(world, pid)).unwrap();
    let listener = UnixListener::bind(slot.join("keeper.sock")).unwrap();
    let keeper = std::thread::spawn(move || {
        let mut asked = Vec::new();
        loop {
            let (mut client, _) = listener.accept().unwrap();
            writeln!(client, "hello 1 {process}").unwrap();
            for line in BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok) {
                writeln!(client, "done").unwrap();
                asked.push(line.clone());
                if line.starts_with("stop ") {
                    signal(program.id(), Signal::TERM);
                    program.wait().unwrap();
                    let exit = format!(
                        "exit 1\nticket 7\npid {pid}\nstart {}\ncause signal 15\nat 1700000000000\ndropped 3\nend\n",
                        process.rsplit_once(' ').unwrap().1
                    );
                    fs::write(slot.join("exit"), exit).unwrap();
                    writeln!(client, "exited {process} signal 15 1700000000000 3").unwrap();
                    fs::remove_file(slot.join("keeper.sock")).unwrap();
                    drop(locks);
                    return asked;
                }
            }
        }
    });
    (pid, keeper)
}

#[tokio::test]
async fn a_keeper_of_version_1_is_found_asked_and_heard() {
    let world = World::new();
    let (pid, keeper) = keep_as_version_1(&world);
    // One line at a time: this one serves nobody else meanwhile.
    let found = world.find_running().await;
    assert_eq!((found.process().ticket, found.process().pid), (7, pid));
    drop(found);
    let mut found = world.find_running().await;
    found.stop(Duration::from_secs(30));
    let ended = soon("end", found.ended()).await;
    assert_eq!((ended.cause, ended.dropped, ended.unix_ms), (ExitCause::Signal(15), 3, 1_700_000_000_000));
    let asked = keeper.join().unwrap();
    assert!(asked[0].strip_prefix("stop ").is_some_and(|it| it.parse::<u64>().is_ok()), "{asked:?}");
    match world.find().await.unwrap() {
        Found::Ended(found) => assert_eq!(found, ended, "its record says the same"),
        other => panic!("{other:?}"),
    }
    let mut next = world.launch(&world.sh(8, "exit 4")).await.unwrap();
    assert_eq!(soon("end", next.ended()).await.cause, ExitCause::Code(4));
}

#[tokio::test]
async fn a_process_that_a_keeper_of_version_1_left_behind_is_taken_over() {
    let world = World::new();
    world.slot.create().unwrap();
    fs::create_dir(world.path("log")).unwrap();
    let script = "exec 9>>\"$1/lock\"; flock 9; echo held; exec sleep 1000";
    // In a session of its own, as that keeper gave it: whoever takes over ends all of it.
    let mut program = Command::new("setsid")
        .args(["sh", "-c", script, "sh"])
        .arg(world.slot.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut held = String::new();
    BufReader::new(program.stdout.as_mut().unwrap()).read_line(&mut held).unwrap();
    assert_eq!(held, "held\n", "it holds the lock of its slot");
    let pid = program.id();
    fs::write(world.slot.path().join("process"), record_1(&world, pid)).unwrap();
    let mut found = world.find_running().await;
    assert_eq!((found.process().ticket, found.process().pid), (7, pid));
    let taken_up = std::thread::spawn(move || program.wait());
    found.stop(Duration::from_secs(1_000));
    assert_eq!(soon("end", found.ended()).await.cause, ExitCause::Unknown);
    taken_up.join().unwrap().unwrap();
    assert!(!lives(pid));
}

/// An order as agents of version 1 gave it, field by field.
fn order_1(world: &World, script: &str) -> Vec<u8> {
    let slot = world.slot.path().to_str().unwrap().to_owned();
    let folder = world.path("");
    let (stdout, stderr) = (world.path("log/stdout.log"), world.path("log/stderr.log"));
    let fields = [
        "launch",
        &slot,
        "7",
        "/bin/sh",
        folder.to_str().unwrap(),
        stdout.to_str().unwrap(),
        stderr.to_str().unwrap(),
        "384",
        "",
        "2",
        "-c",
        script,
        "1",
        "PATH",
        "/usr/bin:/bin",
    ];
    let body: Vec<u8> = fields.iter().flat_map(|it| it.bytes().chain([0])).collect();
    let mut order = b"dpx-kpr1".to_vec();
    order.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    order.extend_from_slice(&body);
    order
}

#[tokio::test]
async fn an_agent_of_version_1_understands_the_keeper_of_today() {
    let world = World::new();
    world.slot.create().unwrap();
    let (mut agent, theirs) = UnixStream::pair().unwrap();
    agent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut keeper = Command::new(KEEPER).stdin(OwnedFd::from(theirs)).spawn().unwrap();
    agent.write_all(&order_1(&world, "echo up; exec sleep 1000")).unwrap();
    let mut lines = BufReader::new(agent.try_clone().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    // As its parser had it: words by their place, and more may follow.
    let hello = next();
    let words: Vec<_> = hello.split(' ').collect();
    assert_eq!((words[0], words[2]), ("hello", "7"));
    assert!(words[1].parse::<u32>().is_ok(), "{hello}");
    let pid: u32 = words[3].parse().unwrap();
    let process = format!("7 {pid} {}", start_ticks(pid));
    assert_eq!(words[2..5].join(" "), process);
    agent.write_all(b"status\n").unwrap();
    assert_eq!(next(), format!("status {process} false 0"));
    eventually("up", || (world.stdout() == "up\n").then_some(())).await;
    agent.write_all(b"stop 30000\n").unwrap();
    assert_eq!(next(), "done");
    let exited = next();
    let rest =
        exited.strip_prefix(&format!("exited {process} signal 15 ")).unwrap_or_else(|| panic!("{exited}"));
    assert!(rest.split(' ').take(2).all(|it| it.parse::<u64>().is_ok()), "{exited}");
    keeper.wait().unwrap();
    // And its records, which it read by the first line and the names behind it.
    let of = |name: &str| fs::read_to_string(world.slot.path().join(name)).unwrap();
    let (process, exit) = (of("process"), of("exit"));
    assert!(process.starts_with("process 1\nticket 7\n") && process.contains("\nmode 600\n"), "{process}");
    assert!(exit.starts_with("exit 1\nticket 7\n") && exit.contains("\ncause signal 15\n"), "{exit}");
    assert!(process.lines().all(|line| line == "end" || line.contains(' ')) && exit.contains("\nend\n"));
}
