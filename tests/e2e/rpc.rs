//! An expression, evaluated in replicas of three languages through the command line: its value, how it fails, who may, what is
//! recorded, and that nothing of it goes on once nobody waits for it.

use std::time::Duration;

use proto::evaluations::{Evaluation, Outcome, Spoken};
use proto::events::Event;
use proto::replicas::Replica;
use proto::users::CreatedToken;
use rustix::process::{Pid, Signal, kill_process};
use tests::ports;
use tests::process::Running;
use tests::programs::{Agent, CommandLine, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually, within};
use xtask::fixtures::Sample;

fn application(sample: Sample) -> String {
    let replicas = if sample == Sample::Erlang { 2 } else { 1 };
    format!(
        "  - name: {}\n    language: {}\n    replicas: {replicas}\n    replica_ports: [{{ key: PORT, base: {} }}]\n    \
         deploy_schedule_interval_ms: 200\n    deploy: {{ stable_after_ms: 500, drain_ms: 0 }}\n",
        sample.name(),
        sample.language(),
        ports::free(replicas + 1)
    )
}

/// What a command printed, how it ended, and what it complained of.
fn rpc(cli: &CommandLine, sample: Sample, words: &[&str]) -> (String, i32, String) {
    let said = cli.run(&[&["rpc", sample.name()], words].concat());
    (said.out, said.status, said.err)
}

fn has_value(cli: &CommandLine, sample: Sample, words: &[&str], expected: &str) {
    let (out, status, err) = rpc(cli, sample, words);
    assert_eq!((out.as_str(), status), (expected, 0), "{words:?}: {err}");
}

fn fails(cli: &CommandLine, sample: Sample, words: &[&str], status: i32, because: &str) -> String {
    let (out, ended, err) = rpc(cli, sample, words);
    assert!(ended == status && err.contains(because), "{words:?} ended with {ended}: {out}{err}");
    out
}

async fn connected(control_plane: &ControlPlane, sample: Sample) -> Vec<Replica> {
    let is_connected = |it: &Replica| it.erlang.as_ref().is_some_and(|it| it.connected_since.is_some());
    let app = control_plane
        .application_when("a connection to its nodes", sample.name(), |it| {
            !it.slots.is_empty() && it.slots.iter().all(|it| is_connected(it) && it.state.is_ready())
        })
        .await;
    app.slots
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expressions_are_evaluated_in_three_languages_by_who_may_and_recorded_and_ended() {
    let bucket = Bucket::new();
    let mut applications = String::new();
    for sample in Sample::ALL {
        bucket.publish(sample, "0.1.0").await;
        applications.push_str(&application(sample));
    }
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agent = Agent::join(&control_plane, "web-1").await;
    let cli = control_plane.command_line();
    let mut gleam = Vec::new();
    for sample in Sample::ALL {
        gleam = connected(&control_plane, sample).await;
    }
    let (elixir, erlang) = (Sample::Elixir, Sample::Erlang);

    has_value(&cli, elixir, &["Enum.map(1..3, & &1 * 2)"], "[2, 4, 6]\n");
    has_value(&cli, elixir, &["IO.puts(\"hällo\"); :ok"], "hällo\n:ok\n");
    has_value(&cli, elixir, &["lists:sum([1, 2]).", "--erlang"], "3\n");
    let out = fails(&cli, elixir, &["IO.puts(1); raise \"boom\""], 1, "web-1/1: ** (RuntimeError) boom");
    assert_eq!(out, "1\n");
    fails(&cli, elixir, &["[1, "], 1, "(TokenMissingError)");
    has_value(&cli, Sample::Gleam, &["string:uppercase(\"gleam\")"], "\"GLEAM\"\n");
    has_value(&cli, erlang, &["A = 41, A + 1", "--slot", "2"], "42\n");
    fails(&cli, erlang, &["1 +", "--slot", "1"], 1, "syntax: 1: syntax error");
    fails(&cli, erlang, &["1", "--slot", "1", "--elixir"], 1, "Elixir is not loaded there");
    fails(&cli, erlang, &["1", "--node", "web-1", "--slot", "9"], 1, "there is no replica slot 9");
    fails(&cli, erlang, &["timer:sleep(60000)", "--slot", "1", "--timeout", "1"], 5, "took too long");
    let (_, _, err) = rpc(&cli, erlang, &["node()"]);
    assert!(err.contains("Evaluated by web-1/1, one of 2."), "{err}");
    let all: Vec<Evaluation> = cli.ask(&["rpc", erlang.name(), "node()", "--all"]).unwrap();
    let values: Vec<_> = all.iter().map(|it| (it.slot.number(), it.language, &it.outcome)).collect();
    let [
        (1, Some(Spoken::Erlang), Outcome::Value { value: one, .. }),
        (2, _, Outcome::Value { value: two, .. }),
    ] = values.as_slice()
    else {
        panic!("{values:?}")
    };
    assert!(one.starts_with("'erlang_demo-1@") && two.starts_with("'erlang_demo-2@"), "{one} {two}");
    let out = fails(&cli, erlang, &["1 / 0", "--all"], 1, "it failed in 2 of 2 replicas");
    assert!(out.starts_with("web-1/1:\n  error: badarith\n"), "{out}");

    // Asked again, it leaves no more names behind.
    let atoms = || -> u64 {
        let words = ["Process.list() |> length(); :erlang.system_info(:atom_count)"];
        let (out, status, err) = rpc(&cli, elixir, &words);
        assert_eq!(status, 0, "{err}");
        out.trim().parse().unwrap()
    };
    let _ = atoms();
    assert_eq!(atoms(), atoms());

    let viewer: CreatedToken = control_plane.ask(&["token", "create", "eyes", "--role", "viewer"]).unwrap();
    let eyes = CommandLine::over_network(&control_plane.url(""), Some(&viewer.secret));
    fails(&eyes, elixir, &["System.halt()"], 4, "this needs the role operator");

    let events: Vec<Event> = cli.ask(&["event", "list", "--app", erlang.name()]).unwrap();
    let of = |outcome: &str| {
        let is_so = |it: &&Event| it.data.get("outcome").is_some_and(|it| it == outcome);
        events.iter().find(is_so).unwrap_or_else(|| panic!("no {outcome} in {events:#?}"))
    };
    for (outcome, what) in
        [("timed-out", "timer:sleep(60000)"), ("raised", "1 +"), ("value", "A = 41, A + 1")]
    {
        let event = of(outcome);
        assert_eq!((event.kind.as_str(), event.data["expression"].as_str()), ("evaluation_finished", what));
        assert!(event.by.as_ref().is_some_and(|it| it.starts_with("local:")), "{event:#?}");
    }
    let told = cli.run(&["event", "list"]).out;
    assert!(told.contains("evaluates on slot 1 of erlang_demo") && !told.contains("System.halt"), "{told}");

    nothing_goes_on(&control_plane, &mut agent).await;

    let pid = gleam[0].pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).unwrap())).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    fails(&cli, Sample::Gleam, &["1 + 1", "--timeout", "1"], 5, "its Erlang node does not answer");
    kill_process(pid, Signal::CONT).unwrap();
    eventually("that it answers again", || {
        let (out, status, err) = rpc(&cli, Sample::Gleam, &["1 + 1"]);
        let seen = if status == 0 { Seen::Done(out) } else { Seen::NotYet(err) };
        std::future::ready(seen)
    })
    .await;
}

/// It is given up with whoever asked, and with the agent that asked for it.
async fn nothing_goes_on(control_plane: &ControlPlane, agent: &mut Agent) {
    let cli = control_plane.command_line();
    let runs = |what: &'static str, runs: bool| {
        let cli = cli.clone();
        within(Duration::from_secs(30), what, move || {
            let (out, _, err) = rpc(
                &cli,
                Sample::Erlang,
                &["whereis(endless) =/= undefined", "--node", "web-1", "--slot", "1"],
            );
            let seen = if out.trim() == runs.to_string() {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{out}{err}"))
            };
            std::future::ready(seen)
        })
    };
    let begin = || -> Running {
        let expression = "register(endless, self()), process_flag(trap_exit, true), receive never -> ok end";
        let words = ["rpc", Sample::Erlang.name(), expression, "--slot", "1", "--timeout", "120"];
        cli.start(&words, &control_plane.folder().join("rpc"))
    };
    let mut asking = begin();
    runs("the evaluation", true).await;
    asking.kill();
    runs("its end with whoever asked", false).await;

    let mut asking = begin();
    runs("another evaluation", true).await;
    agent.kill();
    let ended = eventually("that whoever asked is told", || {
        std::future::ready(match asking.ended() {
            Some(status) => Seen::Done(status),
            None => Seen::NotYet(asking.output()),
        })
    })
    .await;
    assert_eq!(ended.code(), Some(1), "{}", asking.output());
    assert!(asking.output().contains("what came of it is not known"), "{}", asking.output());
    agent.resume();
    runs("its end with the agent", false).await;
}
