//! Output: all of it, in order, whatever disks and clients do.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use node_agent::supervisor::process::{RotateError, Stream};
use proto::state::ExitCause;

use super::world::{World, eventually, is_root, numbered, soon};

#[tokio::test]
async fn both_streams_are_complete_when_the_end_is_told() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 20000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let ended = world.run(script).await;
    assert_eq!(ended.dropped, 0);
    assert!(world.stdout() == numbered("out ", 20_000) && world.stderr() == numbered("err ", 20_000));
}

#[tokio::test]
async fn rotation_loses_and_doubles_nothing() {
    let world = World::new();
    let script = "i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); done; sleep 1000";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    let rotated = |count: u32| {
        let of = |n| std::fs::read_to_string(world.path(&format!("log/stdout.log.{n}"))).unwrap();
        (0..count).map(of).collect::<String>() + &world.stdout()
    };
    for n in 0..10 {
        let before = world.stdout().len();
        // The last of it may have been rotated away already.
        eventually("more output", || {
            (world.stdout().len() > before || rotated(n).ends_with("29999\n")).then_some(())
        })
        .await;
        keeper.rotate(Stream::Stdout, &format!("stdout.log.{n}")).await.unwrap();
    }
    eventually("the last line", || rotated(10).ends_with("29999\n").then_some(())).await;
    assert!(rotated(10) == numbered("", 30_000));
    let again = keeper.rotate(Stream::Stdout, "stdout.log.3").await.unwrap_err();
    assert!(matches!(&again, RotateError::Refused(why) if why.contains("exists")), "{again}");
    assert!(matches!(keeper.rotate(Stream::Stderr, "../up").await, Err(RotateError::Name(_))));
    keeper.kill();
    soon("end", keeper.ended()).await;
    // It says the end before it goes, and may be asked until it has gone.
    let gone = async {
        for n in 0.. {
            if let Err(RotateError::Unreached(_)) = keeper.rotate(Stream::Stdout, &format!("late.{n}")).await
            {
                break;
            }
        }
    };
    soon("a keeper that is gone", gone).await;
}

/// A disk of one megabyte.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Self {
        let made = std::fs::create_dir(&at);
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&at).status();
        let is_there = made.is_ok() && done.is_ok_and(|it| it.success());
        assert!(is_there, "cannot mount a tmpfs on {}", at.display());
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn as_root_a_full_disk_drops_counts_and_tells_and_the_program_runs_on() {
    let world = World::new();
    assert!(is_root(), "to mount a small disk needs root: sudo cargo xtask test");
    let _disk = SmallDisk::mount(world.path("log"));
    std::fs::write(world.path("log/filler"), vec![0; 600 << 10]).unwrap();
    // Two megabytes into less than half of one, then room, then the rest.
    let script = "i=0; while [ $i -lt 2000 ]; do printf '%01023d\\n' $i; i=$((i+1)); done
        touch full; while [ ! -e room ]; do sleep 0.01; done; echo after; sleep 1000";
    let mut keeper = world.launch(&world.sh(1, script)).await.unwrap();
    eventually("the program at its end", || world.path("full").exists().then_some(())).await;
    std::fs::remove_file(world.path("log/filler")).unwrap();
    std::fs::write(world.path("room"), "").unwrap();
    eventually("a log that goes on", || world.stdout().ends_with("after\n").then_some(())).await;
    keeper.kill();
    let ended = soon("end", keeper.ended()).await;
    assert_eq!(ended.cause, ExitCause::Signal(9));
    assert!(ended.dropped > 1 << 20, "{}", ended.dropped);
    let log = world.stdout();
    let notes: Vec<_> = log.lines().filter(|line| line.starts_with("[deployex]")).collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains(&format!("{} bytes", ended.dropped)) && notes[0].contains("No space left"));
    let note = notes[0].len() + 1;
    let printed = 2_000 * 1_024 + "after\n".len();
    let kept = log.len() - note;
    // A line that was cut short by the full disk is ended before the note.
    let cut = !log.find("[deployex]").unwrap().is_multiple_of(1_024);
    assert_eq!(kept - usize::from(cut) + usize::try_from(ended.dropped).unwrap(), printed);
}

#[tokio::test]
async fn clients_that_do_not_read_or_do_not_make_sense_hold_nobody_up() {
    let world = World::new();
    let mut keeper = world.launch(&world.sh(1, "exec sleep 1000")).await.unwrap();
    let socket = world.slot.path().join("keeper.sock");
    let deaf: Vec<_> = (0..20)
        .map(|_| {
            let mut it = UnixStream::connect(&socket).unwrap();
            it.set_nonblocking(true).unwrap();
            while it.write(b"status\nstatus\nstatus\nstatus\n").is_ok() {}
            it
        })
        .collect();
    let mut garbage = UnixStream::connect(&socket).unwrap();
    let _ = garbage.write_all(&[0xff; 4096]);
    let mut said = Vec::new();
    garbage.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let _ = garbage.read_to_end(&mut said);
    let found = world.find_running().await;
    found.rotate(Stream::Stdout, "rotated").await.unwrap();
    found.kill();
    assert_eq!(soon("end", keeper.ended()).await.process, *found.process());
    drop(deaf);
}
