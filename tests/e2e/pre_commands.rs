//! Pre-commands from one end to the other: once per rollout, before anything is stopped, in every language.

use std::fs;
use std::path::{Path, PathBuf};

use proto::apps::Application;
use proto::state::SlotState;
use tests::http::serves_version;
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, eventually};
use xtask::fixtures::Sample;

struct Story {
    sample: Sample,
    agent: Agent,
    control_plane: ControlPlane,
    bucket: Bucket,
    port: u16,
    notes: tempfile::TempDir,
}

impl Story {
    /// Two replicas of 0.1.0, which has no pre-commands.
    async fn begin(sample: Sample) -> Self {
        Self::begin_with(sample, "").await
    }

    /// `deploy`: more of how it moves.
    async fn begin_with(sample: Sample, deploy: &str) -> Self {
        let bucket = Bucket::new();
        bucket.publish(sample, "0.1.0").await;
        let notes = tempfile::tempdir().unwrap();
        fs::set_permissions(notes.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let (port, language) = (ports::free(3), sample.language());
        let applications = format!(
            "  - name: {sample}\n    language: {language}\n    replicas: 2\n    \
             replica_ports: [{{ key: PORT, base: {port} }}]\n    deploy_schedule_interval_ms: 100\n    \
             deploy: {{ strategy: stop_first, stable_after_ms: 200, stop_grace_ms: 500, \
             pre_commands_timeout_ms: 4000{deploy} }}\n"
        );
        let control_plane = ControlPlane::start(&bucket, &applications).await;
        let agent = Agent::join(&control_plane, "first").await;
        control_plane.settles_on(sample.name(), "0.1.0").await;
        Self { sample, agent, control_plane, bucket, port, notes }
    }

    fn note(&self, name: &str) -> PathBuf {
        self.notes.path().join(name)
    }

    /// A line that writes `word` into the file `runs`.
    fn writes(&self, word: &str) -> String {
        write_line(self.sample, &self.note("runs"), word)
    }

    fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.note("runs")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Publishes 0.2.0 with these.
    async fn publish(&self, pre_commands: &[String]) {
        self.bucket.publish_with(self.sample, "0.2.0", pre_commands).await;
    }

    async fn ghosted(&self) -> Application {
        let name = self.sample.name();
        self.control_plane.application_when("a ghost", name, |it| !it.ghosts.is_empty()).await
    }

    /// Nobody was stopped for it.
    async fn is_untouched(&self) {
        for slot in 0..2 {
            serves_version(self.port + slot, "0.1.0").await;
        }
        let application = self.control_plane.settles_on(self.sample.name(), "0.1.0").await;
        for slot in &application.slots {
            assert_eq!((slot.crash_restarts, slot.last_exit.is_none()), (0, true), "{slot:#?}");
        }
    }
}

pub(crate) fn write_line(sample: Sample, file: &Path, word: &str) -> String {
    let file = file.display();
    match sample {
        Sample::Elixir | Sample::Umbrella => format!("eval File.write!('{file}', '{word}\\n', [:append])"),
        Sample::Erlang | Sample::Gleam => {
            format!("eval ok = file:write_file(\"{file}\", \"{word}\\n\", [append])")
        }
    }
}

/// Fails, and says why, for as long as there is no such file; then says that there is.
pub(crate) fn needs(sample: Sample, file: &Path) -> String {
    let file = file.display();
    match sample {
        Sample::Elixir | Sample::Umbrella => {
            format!(
                "eval File.exists?('{file}') || (IO.puts(:stderr, 'no such table'); System.halt(3)); IO.puts('found')"
            )
        }
        Sample::Erlang | Sample::Gleam => format!(
            "eval filelib:is_file(\"{file}\") orelse begin io:format(standard_error, \"no such table~n\", []), halt(3) end, io:format(\"found~n\")"
        ),
    }
}

pub(crate) fn sleeps(sample: Sample, millis: u32) -> String {
    match sample {
        Sample::Elixir | Sample::Umbrella => format!("eval Process.sleep({millis})"),
        Sample::Erlang | Sample::Gleam => format!("eval timer:sleep({millis})"),
    }
}

async fn pass_once_and_fail_shown(sample: Sample) {
    let story = Story::begin(sample).await;
    let table = story.note("table");
    story.publish(&[story.writes("one"), needs(sample, &table), story.writes("three")]).await;
    let application = story.ghosted().await;
    let shown = format!("{application:#?}");
    assert!(shown.contains("exit status 3"), "{shown}");
    assert_eq!(story.runs(), ["one"], "what comes after a failure is not run");
    story.is_untouched().await;
    let said = story
        .control_plane
        .ask::<serde_json::Value>(&["event", "list"])
        .map_or_else(|error| panic!("{error}"), |it| it.to_string());
    assert!(said.contains("pre_commands_failed"), "{said}");
    let outputs: Vec<_> = application.slots.iter().filter_map(|it| it.pre_commands.clone()).collect();
    assert!(format!("{outputs:?}").contains("no such table"), "its output is shown: {outputs:#?}");

    let show = || story.control_plane.command_line().run(&["rollout", "show", sample.name()]);
    let rollout = show();
    assert!(rollout.out.contains("  | no such table\n"), "also with the rollout: {rollout:?}");

    // Tried again, it is run again: once for both replicas.
    fs::write(&table, "").unwrap();
    let cleared = story.control_plane.command_line().run(&["ghosted", "clear", sample.name(), "0.2.0"]);
    assert_eq!(cleared.status, 0, "{}", cleared.err);
    story.control_plane.settles_on(sample.name(), "0.2.0").await;
    assert_eq!(story.runs(), ["one", "one", "three"]);
    let rollout = show();
    let printed = rollout.out.split_once("The pre-commands printed:").expect(&rollout.out).1;
    let says = |line: &str| printed.lines().any(|it| it == format!("  | {line}"));
    assert!(says("found") && !says("no such table"), "of this run alone: {rollout:?}");
    assert_eq!(printed.matches("  | $ eval ").count(), 3, "each with its line: {rollout:?}");
    assert!(rollout.out.contains("passed on first/"), "and who ran them: {rollout:?}");
    for slot in 0..2 {
        serves_version(story.port + slot, "0.2.0").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pre_commands_of_elixir_run_once_and_their_failure_stops_the_rollout() {
    pass_once_and_fail_shown(Sample::Elixir).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pre_commands_of_erlang_run_once_and_their_failure_stops_the_rollout() {
    pass_once_and_fail_shown(Sample::Erlang).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pre_commands_of_gleam_run_once_and_their_failure_stops_the_rollout() {
    pass_once_and_fail_shown(Sample::Gleam).await;
}

/// And what is gone back to does not run its own again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_each_replica_runs_its_own_one_that_fails_takes_the_release_back() {
    let (sample, name) = (Sample::Erlang, Sample::Erlang.name());
    let story = Story::begin_with(sample, ", pre_commands_run: every_replica").await;
    story.publish(&[story.writes("two")]).await;
    story.control_plane.settles_on(name, "0.2.0").await;
    assert_eq!(story.runs(), ["two", "two"]);
    let shown = story.control_plane.command_line().run(&["rollout", "show", name]);
    assert!(shown.out.contains("each replica runs its own, 2 passed"), "{shown:?}");

    // The first replica passes and moves, the second one's run fails.
    let once = format!(
        "eval {{ok, B}} = file:read_file(\"{}\"), length(binary:matches(B, <<\"three\">>)) =:= 1 orelse \
         begin io:format(standard_error, \"once is enough~n\", []), halt(3) end",
        story.note("runs").display()
    );
    let commands = [story.writes("three"), once];
    story.bucket.publish_with(sample, "0.3.0", &commands).await;
    story.ghosted().await;
    story.control_plane.settles_on(name, "0.2.0").await;
    assert_eq!(story.runs(), ["two", "two", "three", "three"]);
    for slot in 0..2 {
        serves_version(story.port + slot, "0.2.0").await;
    }
    let shown = story.control_plane.command_line().run(&["rollout", "show", name]);
    assert!(shown.out.contains("exit status 3") && shown.out.contains("once is enough"), "{shown:?}");
    assert!(shown.out.contains("The pre-commands of first/1 printed:"), "what passed, too: {shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pre_command_that_takes_too_long_is_ended_and_counts_as_failed() {
    let story = Story::begin(Sample::Erlang).await;
    story.publish(&[story.writes("one"), sleeps(Sample::Erlang, 600_000)]).await;
    let application = story.ghosted().await;
    let shown = format!("{application:#?}");
    assert!(shown.contains("took longer than 4000 ms"), "{shown}");
    assert_eq!(story.runs(), ["one"]);
    story.is_untouched().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pre_command_outlives_the_agent_and_is_not_run_twice() {
    for sample in [Sample::Elixir, Sample::Erlang, Sample::Gleam] {
        let mut story = Story::begin(sample).await;
        let lines = [story.writes("one"), sleeps(sample, 1_500), story.writes("three")];
        story.publish(&lines).await;
        // In the middle of the one that takes a while.
        for _ in 0..3 {
            eventually("the first pre-command", || async {
                match story.runs().len() {
                    0 => Seen::NotYet("none ran".to_owned()),
                    _ => Seen::Done(()),
                }
            })
            .await;
            story.agent.kill();
            story.agent.resume();
            story
                .control_plane
                .application_when("the next agent", sample.name(), |it| {
                    it.slots.iter().all(|slot| slot.state == SlotState::Stable)
                })
                .await;
        }
        story.control_plane.settles_on(sample.name(), "0.2.0").await;
        assert_eq!(story.runs(), ["one", "three"], "{sample}");
        // Also of those whose end another agent saw.
        let rollout = story.control_plane.command_line().run(&["rollout", "show", sample.name()]);
        assert_eq!(rollout.out.matches("  | $ eval ").count(), 3, "{sample}: {rollout:?}");
    }
}
