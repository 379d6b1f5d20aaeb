//! That a changed key of an application takes effect in the way that it is promised to: each one is changed in the YAML, applied
//! while everything runs, and then it is looked at what agents are told and what the planner does.
//!
//! Agents are told all of an application's settings at any time. Some of these they take up with a deployment or a start that
//! somebody asked for, and no sooner: [`WITH_A_DEPLOYMENT`] names them, and `node-agent` is tested for it. So a key of
//! `next_deploy` is told in these alone, and one of `immediate` in none of them.

mod world;

use proto::agent::WITH_A_DEPLOYMENT;

use self::world::{Moment, Told, World, config, said};
use super::changes::{Class, PROMISED};
use crate::rollout;

/// Every key that there is, so that each can be changed alone.
const BASE: &str = "
applications:
  - name: shop
    language: elixir
    replicas: 2
    replica_ports: [{ key: PORT, base: 4000 }, { key: ADMIN, base: 5000 }]
    env: [{ key: TOKEN, value: red }, { key: FOUND, from_secret: prod/ONE }]
    env_file: /etc/shop.env
    run_as: { user: shop, group: shop }
    deploy_rollback_timeout_ms: 40000
    deploy_schedule_interval_ms: 5000
    deploy:
      strategy: start_first
      stable_after_ms: 3000
      watch_ms: 30000
      stop_grace_ms: 10000
      pre_commands_timeout_ms: 20000
      drain_ms: 5000
      batch: 1
      max_unavailable: 0
      canary: { nodes: 1, promote: auto, soak_ms: 10000 }
      order_by: zone
      pause_between_ms: 10000
      tolerate_failed_nodes: 0
      pre_commands_run: once
      hot_upgrade: auto
    restart: { backoff_min_ms: 1000, backoff_max_ms: 300000, reset_after_ms: 60000 }
    ready: [{ http: { path: /ready } }]
    live: [{ http: { path: /live } }]
    distribution: { mode: long, host: 10.0.0.7, ports: [9100, 9200], tls: files }
    cluster: node
    limits: { memory_max: 1GiB, cpu_max: 100%, pids_max: 64 }
    nginx: { upstream_file: /etc/nginx/conf.d/shop.conf, upstream: shop, port: PORT, reload: nginx -s reload }
    monitoring: [{ type: atom, warning_threshold_percent: 75, restart_threshold_percent: 90, cooldown_ms: 300000 }]
    telemetry: { events: [phoenix] }
";

/// One key, and what of the YAML is changed for it.
struct Row {
    key: &'static str,
    from: &'static str,
    to: &'static str,
    shows: Shows,
}

/// Where the effect of a key is seen.
enum Shows {
    /// In this of what agents are told of the application, and nowhere else.
    Field(&'static str),
    /// In what is planned at that moment: otherwise, and with the change.
    Planned(Moment, &'static str, &'static str),
    /// In which replicas there are: what is planned while nothing is under way, plan by plan.
    Places(&'static [&'static str]),
    /// In how the next rollout is begun.
    NextRollout,
    /// In how often the bucket is looked at, which `releases::watcher` is tested for.
    BucketWatch,
    /// In what is said of a release before it is deployed, which `api::tests::check` is tested for.
    Check,
}

use Shows::{BucketWatch, Check, Field, NextRollout, Places, Planned};

const fn row(key: &'static str, from: &'static str, to: &'static str, shows: Shows) -> Row {
    Row { key, from, to, shows }
}

const GOES_ON: &str = "batch web-2; web-2/3 gets 1.2.0";
const TO_BE_PROMOTED: &str = "waits: the canary on web-1 is stable; `deployex rollout promote shop` lets the others \
                              follow, `deployex rollout abort shop` takes it back";

/// In the order of [`PROMISED`]. Of three hosts, each with two replicas and, while it is moved, a third.
const ROWS: &[Row] = &[
    row("cluster", "cluster: node", "cluster: fleet", Field("cluster")),
    row(
        "deploy.batch",
        "batch: 1",
        "batch: 2",
        Planned(Moment::Soaked, GOES_ON, "batch web-2 web-3; web-2/3 gets 1.2.0; web-3/3 gets 1.2.0"),
    ),
    row(
        "deploy.canary.nodes",
        "{ nodes: 1",
        "{ nodes: 2",
        Planned(
            Moment::Wished,
            "running; canary web-1; web-1/3 gets 1.2.0",
            "running; canary web-1 web-2; web-1/3 gets 1.2.0; web-2/3 gets 1.2.0",
        ),
    ),
    row(
        "deploy.canary.promote",
        "promote: auto",
        "promote: manual",
        Planned(Moment::Soaked, GOES_ON, TO_BE_PROMOTED),
    ),
    row(
        "deploy.canary.soak_ms",
        "soak_ms: 10000",
        "soak_ms: 500",
        Planned(Moment::Soaking, "waits: the canary must stay stable for 9 s more", GOES_ON),
    ),
    row("deploy.drain_ms", "drain_ms: 5000", "drain_ms: 1", Field("drain_ms")),
    row("deploy.hot_upgrade", "upgrade: auto", "upgrade: require", Check),
    row(
        "deploy.max_unavailable",
        "unavailable: 0",
        "unavailable: 3",
        Planned(Moment::Moving, "web-2/1 gets 1.2.0", "web-2/1 gets 1.2.0; web-2/2 gets 1.2.0"),
    ),
    row(
        "deploy.order_by",
        "order_by: zone",
        "order_by: rack",
        Planned(Moment::Soaked, GOES_ON, "batch web-3; web-3/3 gets 1.2.0"),
    ),
    row(
        "deploy.pause_between_ms",
        "between_ms: 10000",
        "between_ms: 0",
        Planned(Moment::Between, "waits: the next batch begins in 9 s", "batch web-3; web-3/3 gets 1.2.0"),
    ),
    row("deploy.pre_commands_run", "run: once", "run: every_replica", NextRollout),
    row("deploy.pre_commands_timeout_ms", "out_ms: 20000", "out_ms: 1000", Field("pre_commands_timeout_ms")),
    row("deploy.stable_after_ms", "after_ms: 3000", "after_ms: 1", Field("stable_after_ms")),
    row("deploy.stop_grace_ms", "grace_ms: 10000", "grace_ms: 1", Field("stop_grace_ms")),
    row(
        "deploy.strategy",
        "start_first",
        "stop_first",
        Planned(Moment::Soaked, GOES_ON, "batch web-2; web-2/1 gets 1.2.0"),
    ),
    row(
        "deploy.tolerate_failed_nodes",
        "failed_nodes: 0",
        "failed_nodes: 1",
        Planned(
            Moment::Failing,
            "reverted; web-1/3 goes",
            "failed on web-1; canary web-2; web-2/3 gets 1.2.0",
        ),
    ),
    row(
        "deploy.watch_ms",
        "watch_ms: 30000",
        "watch_ms: 5000",
        Planned(Moment::Watched, "waits: 1.2.0 is stable and is watched for 20 s more", "done"),
    ),
    row(
        "deploy_rollback_timeout_ms",
        "timeout_ms: 40000",
        "timeout_ms: 10000",
        Planned(
            Moment::Trying,
            "waits: slot 3 on web-1 has not yet taken up what it was told",
            "reverted; web-1/3 goes",
        ),
    ),
    row("deploy_schedule_interval_ms", "interval_ms: 5000", "interval_ms: 200", BucketWatch),
    row("distribution.host", "10.0.0.7", "10.0.0.8", Field("distribution")),
    row("distribution.mode", "mode: long", "mode: \"off\"", Field("distribution")),
    row("distribution.ports", "[9100, 9200]", "[9100, 9300]", Field("distribution")),
    row("distribution.tls", "tls: files", "tls: managed", Field("distribution")),
    row("env[FOUND]", "prod/ONE", "prod/TWO", Field("env")),
    row("env[TOKEN]", "value: red", "value: blue", Field("env")),
    row("env_file", "/etc/shop.env", "/etc/other.env", Field("env_file")),
    row("language", "elixir", "erlang", Field("language")),
    row("limits.cpu_max", "100%", "200%", Field("limits")),
    row("limits.memory_max", "1GiB", "2GiB", Field("limits")),
    row("limits.pids_max", "pids_max: 64", "pids_max: 128", Field("limits")),
    row("live", "/live", "/alive", Field("live_probes")),
    row(
        "monitoring[atom].cooldown_ms",
        "cooldown_ms: 300000",
        "cooldown_ms: 60000",
        Planned(
            Moment::OverItsLimit,
            "waits: slot 1 on web-1 has passed a limit (threshold: atoms 95 % of 1000) and was started anew not long \
             ago; once more in 3 min 20 s at the earliest",
            "web-1/3 gets 1.1.0",
        ),
    ),
    row(
        "monitoring[atom].restart_threshold_percent",
        "threshold_percent: 90",
        "threshold_percent: 95",
        Field("monitoring"),
    ),
    row(
        "monitoring[atom].warning_threshold_percent",
        "threshold_percent: 75",
        "threshold_percent: 70",
        Field("monitoring"),
    ),
    row("nginx.port", "port: PORT,", "port: ADMIN,", Field("nginx")),
    row("nginx.reload", "nginx -s reload", "systemctl reload nginx", Field("nginx")),
    row("nginx.upstream", "upstream: shop", "upstream: other", Field("nginx")),
    row("nginx.upstream_file", "d/shop.conf", "d/other.conf", Field("nginx")),
    row(
        "nodes.role",
        "replicas: 2",
        "replicas: 2\n    nodes: { role: web }",
        Places(&["web-3/2 goes", "web-3/2 is gone; web-3/1 goes", "web-3/1 is gone"]),
    ),
    row("ready", "/ready", "/health", Field("ready_probes")),
    row("replica_ports[PORT].base", "base: 4000", "base: 4100", Field("ports")),
    row(
        "replicas",
        "replicas: 2",
        "replicas: 3",
        Places(&["web-1/3 gets 1.1.0; web-2/3 gets 1.1.0; web-3/3 gets 1.1.0"]),
    ),
    row("restart.backoff_max_ms", "max_ms: 300000", "max_ms: 200000", Field("backoff_max_ms")),
    row("restart.backoff_min_ms", "min_ms: 1000", "min_ms: 2000", Field("backoff_min_ms")),
    row("restart.reset_after_ms", "after_ms: 60000", "after_ms: 50000", Field("backoff_reset_after_ms")),
    row("run_as.group", "group: shop", "group: other", Field("run_as_group")),
    row("run_as.user", "user: shop", "user: other", Field("run_as_user")),
    row("telemetry.events", "[phoenix]", "[phoenix, ecto]", Field("telemetry_events")),
];

impl Row {
    fn class(&self) -> Class {
        let mut promised = PROMISED.trim().lines().filter_map(|line| line.rsplit_once(' '));
        let (_, class) = promised.find(|(key, _)| *key == self.key).unwrap();
        Class::ALL.into_iter().find(|it| it.word() == class).unwrap()
    }

    fn changed(&self) -> String {
        changed(BASE, self.from, self.to)
    }
}

fn changed(yaml: &str, from: &str, to: &str) -> String {
    assert_eq!(yaml.matches(from).count(), 1, "{from:?} is to stand there once");
    yaml.replace(from, to)
}

/// The fields of the application that agents are told otherwise now.
fn differing(before: &Told, after: &Told) -> Vec<&'static str> {
    let differs = |field: &&'static str| before.fields[field] != after.fields[field];
    after.fields.keys().copied().filter(differs).collect()
}

#[test]
fn every_key_that_something_is_promised_of_is_looked_at() {
    let promised: Vec<&str> =
        PROMISED.trim().lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    assert_eq!(ROWS.iter().map(|it| it.key).collect::<Vec<_>>(), promised);
}

/// The hosts are told at once, and each key in its own field: it depends on that field alone whether what runs heeds it.
#[tokio::test]
async fn each_key_is_told_in_its_field_and_replaces_nothing_that_runs() {
    let mut world = World::running(BASE).await;
    for row in ROWS {
        let (key, class) = (row.key, row.class());
        let before = world.told().await;
        let changes = world.apply(&row.changed()).await;
        let said: Vec<_> = changes.iter().map(|it| (it.key.as_str(), it.class)).collect();
        assert_eq!(said, [(key, class)]);
        let after = world.told().await;
        let field = match row.shows {
            Field(field) => Some(field),
            _ => None,
        };
        assert_eq!(differing(&before, &after), Vec::from_iter(field), "{key}");
        assert_eq!(after.slots, before.slots, "{key}: what is to run is what was to run");
        let told_anew = after.generations.iter().zip(&before.generations).all(|(now, then)| now > then);
        assert!(told_anew, "{key}: hosts are told at once");
        if let Some(field) = field {
            let held = class != Class::Immediate;
            assert_eq!(WITH_A_DEPLOYMENT.contains(&field), held, "{key} is {class} and told in {field}");
        }
        if matches!(row.shows, Places(_)) || class == Class::FullDeploy {
            // Of these it is looked at below what comes of it.
            world = World::running(BASE).await;
            continue;
        }
        assert_eq!(world.until_calm().await, [""; 0], "{key}");
        world.apply(BASE).await;
        assert_eq!(world.told().await.fields, before.fields, "{key} is what it was");
    }
}

#[tokio::test]
async fn what_is_promised_for_the_next_deployment_comes_with_the_next_release() {
    for row in ROWS.iter().filter(|it| it.class() == Class::NextDeploy) {
        let Field(field) = row.shows else { continue };
        let mut world = World::running(BASE).await;
        let before = world.told().await;
        world.apply(&row.changed()).await;
        world.wish(2).await;
        world.until_over().await;
        let after = world.told().await;
        assert_eq!(differing(&before, &after), [field], "{}", row.key);
        assert!(after.slots.values().all(|slot| version(slot) == "1.2.0"), "{}: {:?}", row.key, after.slots);
    }
}

fn version(slot: &proto::pb::SlotAssignment) -> &str {
    slot.release.as_ref().and_then(|it| it.key.as_ref()).map_or("", |key| &key.version)
}

/// Also in the middle of a rollout that began otherwise.
#[tokio::test]
async fn what_the_planner_goes_by_counts_in_the_rollout_under_way() {
    for row in ROWS {
        let Planned(moment, otherwise, with_it) = row.shows else { continue };
        assert_eq!(row.class(), Class::Immediate);
        let mut world = World::running(BASE).await;
        world.come_to(moment).await;
        let fleet = world.fleet().await;
        let planned = said(&fleet, &rollout::plan(&fleet, world.now));
        assert_eq!(planned, otherwise, "{} as it was", row.key);
        world.apply(&row.changed()).await;
        let (fleet, planned) = world.plan().await;
        assert_eq!(said(&fleet, &planned), with_it, "{}", row.key);
    }
}

#[tokio::test]
async fn replicas_come_and_go_at_once_and_the_others_are_left_alone() {
    let spread = changed(BASE, "replicas: 2", "spread: 6");
    let mut cases = vec![(
        "spread",
        spread.clone(),
        changed(&spread, "spread: 6", "spread: 7"),
        ["web-1/3 gets 1.1.0"].as_slice(),
    )];
    for row in ROWS {
        if let Places(plans) = row.shows {
            assert_eq!(row.class(), Class::Immediate);
            cases.push((row.key, BASE.to_owned(), row.changed(), plans));
        }
    }
    for (key, base, changed, plans) in cases {
        let mut world = World::running(&base).await;
        let before = world.told().await;
        let changes = world.apply(&changed).await;
        assert_eq!(
            changes.iter().map(|it| (it.key.as_str(), it.class)).collect::<Vec<_>>(),
            [(key, Class::Immediate)]
        );
        assert_eq!(world.until_calm().await, plans, "{key}");
        let after = world.told().await;
        let stay: Vec<_> =
            before.slots.iter().filter(|(place, _)| after.slots.contains_key(*place)).collect();
        assert!(stay.len() >= 4, "{key}");
        assert!(stay.iter().all(|(place, slot)| after.slots[*place] == **slot), "{key}: {after:?}");
    }
}

#[tokio::test]
async fn other_ports_replace_every_replica_with_the_same_release_by_the_strategy() {
    let row = ROWS.iter().find(|it| it.class() == Class::FullDeploy).unwrap();
    let mut world = World::running(BASE).await;
    world.apply(&row.changed()).await;
    let plans = world.until_over().await;
    let all = plans.join("; ");
    for node in 1..=3 {
        for slot in 1..=2 {
            assert_eq!(all.matches(&format!("web-{node}/{slot} begins anew")).count(), 1, "{plans:#?}");
        }
        // Somebody serves in its place meanwhile.
        assert_eq!(all.matches(&format!("web-{node}/3 gets 1.1.0")).count(), 1, "{plans:#?}");
    }
    assert!(plans.iter().all(|plan| plan.matches("begins anew").count() <= 1), "{plans:#?}");
    let after = world.told().await;
    assert!(after.slots.len() == 6 && after.slots.values().all(|slot| version(slot) == "1.1.0"));
}

#[tokio::test]
async fn who_runs_the_pre_commands_is_settled_when_a_rollout_begins() {
    let row = ROWS.iter().find(|it| matches!(it.shows, NextRollout)).unwrap();
    assert_eq!(row.class(), Class::NextDeploy);
    let mut world = World::running(BASE).await;
    world.come_to(Moment::PreCommands).await;
    world.apply(&row.changed()).await;
    let runs = |plans: &[String]| plans.join("; ").matches("runs its pre-commands").count();
    assert_eq!(runs(&world.until_over().await), 0, "one slot was told to before it changed");
    world.wish(4).await;
    // Two replicas and the spare of each of three hosts.
    assert_eq!(runs(&world.until_over().await), 9);
}

#[tokio::test]
async fn liveness_that_is_switched_off_is_told_at_once() {
    let mut world = World::running(BASE).await;
    let before = world.told().await;
    let changes = world.apply(&changed(BASE, "    live: [{ http: { path: /live } }]\n", "")).await;
    let said: Vec<_> = changes.iter().map(|it| (it.key.as_str(), it.class)).collect();
    assert_eq!(said, [("live", Class::Immediate)]);
    let after = world.told().await;
    // The one that agents heed at once of those fields.
    assert_eq!(
        (differing(&before, &after), after.fields["live_probes"].as_str()),
        (vec!["live_probes"], "[]")
    );
}

#[tokio::test]
async fn the_bucket_is_watched_as_is_stored_and_no_key_here_is_said_to_have_no_effect() {
    for row in ROWS {
        let config = config(&row.changed());
        let not_yet = format!("applications[shop].{} is not yet in force", row.key);
        let is_said = config.not_yet_in_force().iter().any(|it| it.starts_with(&not_yet));
        assert!(!is_said, "{}", row.key);
        if matches!(row.shows, BucketWatch | Check) {
            let mut world = World::running(BASE).await;
            world.apply(&row.changed()).await;
            let stored = world.fleet().await.spec.unwrap();
            let wanted = &config.applications[0];
            assert_eq!(stored.schedule_interval, wanted.schedule_interval);
            assert_eq!(stored.deploy.hot_upgrade, wanted.deploy.hot_upgrade);
        }
    }
}
