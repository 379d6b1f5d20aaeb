//! A real BEAM under keepers that are killed: what it prints is in its log, every line once and in order, and it prints on.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use proto::state::ExitCause;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::{World, eventually, eventually_is, kill, lives, soon};

const KILLS: u32 = 100;

/// Bytes a millisecond that it must have printed meanwhile: about a fifteenth of what it does undisturbed on two cores.
const SLOWEST: u128 = 10_000;

/// Numbered lines of 500 bytes, as fast as its log takes them, until there is a file `stop`; then how its `user` process
/// fares, without which a BEAM never prints again.
const PRINTER: &str = r#"
    Pad = <<" ", (binary:copy(<<"x">>, 498))/binary, "\n">>,
    Print = fun Print(N) ->
        io:put_chars(user, << <<(integer_to_binary(I))/binary, Pad/binary>> || I <- lists:seq(N, N + 255) >>),
        case file:read_file_info("stop") of
            {ok, _} -> N + 256;
            _ -> timer:sleep(0), Print(N + 256)
        end
    end,
    Last = Print(0),
    ok = file:write_file("user", io_lib:format("~b ~p~n", [Last, is_pid(whereis(user))])),
    init:stop()."#;

#[tokio::test]
async fn a_beam_loses_no_line_over_a_hundred_killed_keepers() {
    assert!(
        std::path::Path::new("/usr/bin/erl").exists(),
        "this test needs Erlang: apt-get install erlang-base"
    );
    #[expect(clippy::disallowed_methods, reason = "how a person repeats a run")]
    let seed = std::env::var("SEED").ok().and_then(|it| it.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("SEED={seed}");
    let world = World::new();
    let mut spec = world.spec(1, "/usr/bin/erl", &["-noshell", "-eval", PRINTER]);
    spec.env.insert("HOME".into(), world.path("").into());
    let mut keeper = world.launch(&spec).await.unwrap();
    let pid = keeper.process().pid;
    eventually("the first lines", || log_size(&world).filter(|size| *size > 0)).await;
    let killer = async {
        let begun = (tokio::time::Instant::now(), log_size(&world).unwrap());
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..KILLS {
            tokio::time::sleep(Duration::from_micros(random.random_range(0..15_000))).await;
            kill(world.kept_by().await);
        }
        let (took, bytes) = (begun.0.elapsed(), log_size(&world).unwrap() - begun.1);
        println!("{KILLS} keepers killed while {} MB were printed in {took:.1?}", bytes / 1_000_000);
        assert!(u128::from(bytes) >= SLOWEST * took.as_millis(), "{bytes} bytes in {took:?}");
        assert!(lives(pid));
        std::fs::write(world.path("stop"), "").unwrap();
    };
    let (ended, ()) = tokio::join!(soon("end", keeper.ended()), killer);
    assert_eq!((ended.cause, ended.dropped), (ExitCause::Unknown, 0));
    eventually_is(None, || world.keeper_pid()).await;
    let said = std::fs::read_to_string(world.path("user")).unwrap();
    let (last, user) = said.trim_end().split_once(' ').unwrap();
    assert_eq!(user, "true", "the BEAM's user process is alive");
    let mut lines = 0;
    for line in BufReader::new(File::open(world.path("log/stdout.log")).unwrap()).lines() {
        let line = line.unwrap();
        let number = line.split_once(' ').and_then(|(number, pad)| (pad.len() == 498).then_some(number));
        assert_eq!(number.and_then(|it| it.parse().ok()), Some(lines), "line {lines}: {line}");
        lines += 1;
    }
    assert_eq!(lines, last.parse::<u64>().unwrap());
    assert_eq!(world.stderr(), "");
}

#[tokio::test]
async fn a_beam_that_is_killed_is_followed_at_once_and_one_that_is_stopped_ends_by_itself() {
    let world = World::new();
    for ticket in 1..=3 {
        let mut spec = world.spec(ticket, "/usr/bin/erl", &["-noshell", "-eval", "io:put_chars(\"up\\n\")."]);
        spec.env.insert("HOME".into(), world.path("").into());
        let mut keeper = world.launch(&spec).await.unwrap();
        let lines = usize::try_from(ticket).unwrap();
        eventually("up", || (world.stdout().lines().count() == lines).then_some(())).await;
        let want = if ticket < 3 {
            kill(keeper.process().pid);
            ExitCause::Signal(9)
        } else {
            keeper.stop(Duration::from_secs(1_000));
            ExitCause::Code(0)
        };
        assert_eq!(soon("end", keeper.ended()).await.cause, want);
    }
}

/// Opens a port whose program does not hear that its input closes, once it is told to.
const PORT_OPENER: &str = r#"
    Wait = fun Wait() ->
        case file:read_file_info("go") of {ok, _} -> ok; _ -> timer:sleep(10), Wait() end
    end,
    Wait(),
    open_port({spawn_executable, "/bin/sh"}, [{args, ["-c", "echo $$ >port; exec sleep 1000"]}]),
    timer:sleep(infinity)."#;

#[tokio::test]
async fn port_programs_of_a_beam_that_was_taken_over_end_with_it() {
    let world = World::new();
    let mut spec = world.spec(1, "/usr/bin/erl", &["-noshell", "-eval", PORT_OPENER]);
    spec.env.insert("HOME".into(), world.path("").into());
    let mut keeper = world.launch(&spec).await.unwrap();
    let kept_by = world.kept_by().await;
    kill(kept_by);
    let (pid, go) = (keeper.process().pid, world.path("go"));
    let crash = async {
        eventually("another keeper", || world.keeper_pid().filter(|it| *it != kept_by)).await;
        std::fs::write(go, "").unwrap();
        let path = world.path("port");
        let port: u32 = eventually("a port program", || {
            std::fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok()
        })
        .await;
        kill(pid);
        port
    };
    let (ended, port) = tokio::join!(soon("end", keeper.ended()), crash);
    assert_eq!(ended.cause, ExitCause::Unknown);
    eventually_is(None, || world.keeper_pid()).await;
    let left = lives(port);
    kill(port);
    assert!(!left, "the port program outlived its machine");
}

fn log_size(world: &World) -> Option<u64> {
    Some(std::fs::metadata(world.path("log/stdout.log")).ok()?.len())
}
