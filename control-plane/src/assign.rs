//! What a node is told to run: the snapshot of its assignment as it goes over the wire.
//!
//! Made anew whenever it is asked for, from what is stored; the same rows give the same bytes, so that sending it again
//! changes nothing. Secrets are opened here, at the last moment, and are never logged.

mod peers;
mod probes;

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::ids::{AppName, NodeId, ReleaseKey, Slot};
use proto::pb;
use proto::state::VmFigure;

use crate::db::{Db, DbError, NodeAssignment, Release, WantedApplication, WantedSlot};
use crate::error::chain;
use crate::spec::monitoring::{HostMonitoring, Threshold, VmMonitoring};
use crate::spec::{
    AppSpec, Cluster, DistributionMode, DistributionTls, EnvEntry, EnvValue, Limits, ReadyWhen,
};

/// Why nodes cannot be told of an application now. What they were told before stays in force there.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    #[error("its variable {key} cannot be had")]
    Variable {
        key: String,
        #[source]
        source: Unopened,
    },
    #[error("its cookie cannot be opened")]
    Cookie(#[source] Unopened),
}

/// Why a secret could not be had; what exactly, its keeper knows.
pub type Unopened = Box<dyn std::error::Error + Send + Sync>;

/// Who can open what is stored closed.
pub trait Secrets: Send + Sync {
    /// The Erlang cookie of an application's replicas, of which `sealed` is stored.
    fn cookie(&self, app: &AppName, sealed: &[u8]) -> Result<String, Unopened>;
    /// The value of a secret that the configuration names.
    fn value(&self, name: &str) -> Result<String, Unopened>;
}

/// Makes assignments from the database.
pub struct Assignments {
    db: Db,
    secrets: Arc<dyn Secrets>,
}

impl Assignments {
    pub fn new(db: Db, secrets: Arc<dyn Secrets>) -> Self {
        Self { db, secrets }
    }

    /// All that the node is to run.
    pub async fn of(&self, node: NodeId) -> Result<pb::Assignment, DbError> {
        let wanted = self.db.node_assignment(node).await?;
        Ok(snapshot(&wanted, &*self.secrets))
    }

    /// Whether a slot of the node is to run that release, or may go back to it. Needs no secret.
    pub async fn is_to_run(&self, node: NodeId, app: &AppName, key: &ReleaseKey) -> Result<bool, DbError> {
        let wanted = self.db.node_assignment(node).await?;
        let may_run = |slot: &WantedSlot| {
            slot.release.key == *key || slot.fallback.as_ref().is_some_and(|it| it.release.key == *key)
        };
        Ok(wanted.slots.iter().any(|((of, _), slot)| of == app && may_run(slot)))
    }
}

/// Why nodes cannot be told of the application, as a sentence; `None`: they can.
pub fn untold(spec: &AppSpec, secrets: &dyn Secrets) -> Option<String> {
    variables(spec, secrets).err().map(|untold| chain(&untold))
}

/// Everything secret that nodes are told of an application: its cookie, and its variables in their order.
pub fn secret_values(spec: &AppSpec, cookie: &[u8], secrets: &dyn Secrets) -> Result<Vec<String>, Untold> {
    let mut values = vec![secrets.cookie(&spec.name, cookie).map_err(Untold::Cookie)?];
    let told = spec.env.iter().zip(variables(spec, secrets)?);
    values.extend(
        told.filter(|(entry, _)| matches!(entry.value, EnvValue::FromSecret(_))).map(|it| it.1.value),
    );
    Ok(values)
}

/// One application's fault holds up no other: where it cannot be described, its slots stay as they are.
fn snapshot(wanted: &NodeAssignment, secrets: &dyn Secrets) -> pb::Assignment {
    let NodeAssignment { generation, applications, slots, monitoring } = wanted;
    let used: BTreeSet<&AppName> = slots.keys().map(|(app, _)| app).collect();
    let mut assignment = pb::Assignment {
        generation: *generation,
        host_monitoring: monitoring.as_ref().map(host_monitoring),
        ..Default::default()
    };
    for (app, wanted) in applications.iter().filter(|(app, _)| used.contains(app)) {
        match application(wanted, secrets) {
            Ok(application) => assignment.applications.push(application),
            Err(untold) => {
                tracing::warn!(%app, because = chain(&untold), "a node cannot be told of an application");
                assignment.held.push(app.to_string());
            }
        }
    }
    let told = slots.iter().filter(|((app, _), _)| !assignment.held.iter().any(|held| held == app.as_str()));
    assignment.slots = told.map(|((app, number), wanted)| slot(app, *number, wanted)).collect();
    assignment
}

fn host_monitoring(monitoring: &HostMonitoring) -> pb::HostMonitoring {
    let threshold = |threshold: Threshold| {
        let Threshold { warning, restart, cooldown } = threshold;
        pb::HostThreshold {
            warning_percent: warning.into(),
            restart_percent: restart.map_or(0, u32::from),
            cooldown_ms: cooldown.0,
        }
    };
    let HostMonitoring { memory, disk } = *monitoring;
    pb::HostMonitoring { memory: memory.map(threshold), disk: disk.map(threshold) }
}

/// Without the cooldown: it is ours to keep.
fn vm_monitoring(monitoring: &VmMonitoring) -> pb::VmMonitoring {
    let told = |figure: VmFigure| {
        let Threshold { warning, restart, cooldown: _ } = monitoring.of(figure)?;
        let restart_percent = restart.map_or(0, u32::from);
        Some(pb::VmThreshold { warning_percent: warning.into(), restart_percent })
    };
    pb::VmMonitoring {
        atom: told(VmFigure::Atom),
        process: told(VmFigure::Process),
        port: told(VmFigure::Port),
        memory: told(VmFigure::Memory),
    }
}

fn application(wanted: &WantedApplication, secrets: &dyn Secrets) -> Result<pb::Application, Untold> {
    let WantedApplication { spec, cookie } = wanted;
    let AppSpec {
        name,
        language,
        replicas: _,
        spread: _,
        nodes: _,
        ports,
        env: _,
        env_file,
        run_as,
        rollback_timeout: _,
        schedule_interval: _,
        deploy,
        restart,
        ready,
        ready_probes,
        live,
        distribution,
        cluster,
        limits,
        nginx,
        monitoring,
        telemetry,
        later: _,
    } = spec;
    let cookie = secrets.cookie(name, cookie).map_err(Untold::Cookie)?;
    let (port_first, port_last) = distribution.ports.unwrap_or((0, 0));
    Ok(pb::Application {
        name: name.to_string(),
        language: pb::Language::from(*language).into(),
        env: variables(spec, secrets)?,
        ports: ports
            .iter()
            .map(|port| pb::PortBase { key: port.key.clone(), base: u32::from(port.base) })
            .collect(),
        env_file: env_file.clone().unwrap_or_default(),
        run_as_user: run_as.user.clone(),
        run_as_group: run_as.group.clone().unwrap_or_default(),
        cookie,
        distribution: Some(pb::Distribution {
            mode: match distribution.mode {
                DistributionMode::Short => pb::DistributionMode::Short,
                DistributionMode::Long => pb::DistributionMode::Long,
                DistributionMode::Off => pb::DistributionMode::Off,
            }
            .into(),
            host: distribution.host.clone().unwrap_or_default(),
            port_first: u32::from(port_first),
            port_last: u32::from(port_last),
            tls: match distribution.tls {
                DistributionTls::Host => pb::DistributionTls::Host,
                DistributionTls::Off => pb::DistributionTls::Off,
                DistributionTls::Managed => pb::DistributionTls::Managed,
                DistributionTls::Files => pb::DistributionTls::Files,
            }
            .into(),
        }),
        stable_after_ms: deploy.stable_after.0,
        stop_grace_ms: deploy.stop_grace.0,
        backoff_min_ms: restart.backoff_min.0,
        backoff_max_ms: restart.backoff_max.0,
        backoff_reset_after_ms: restart.reset_after.0,
        ready: match ready {
            ReadyWhen::Default => pb::ReadyWhen::Default,
            ReadyWhen::Process => pb::ReadyWhen::Process,
        }
        .into(),
        pre_commands_timeout_ms: deploy.pre_commands_timeout.0,
        ready_probes: probes::told(ready_probes),
        live_probes: probes::told(live),
        limits: (*limits != Limits::default()).then(|| pb::Limits {
            memory_max_bytes: limits.memory_max.unwrap_or(0),
            cpu_max_percent: limits.cpu_percent.unwrap_or(0),
            pids_max: limits.pids_max.unwrap_or(0),
        }),
        nginx: nginx.as_ref().map(|it| pb::Nginx {
            upstream_file: it.upstream_file.clone(),
            upstream: it.upstream.clone(),
            port: it.port.clone(),
            reload: it.reload.clone(),
        }),
        drain_ms: deploy.drain.0,
        monitoring: (*monitoring != VmMonitoring::default()).then(|| vm_monitoring(monitoring)),
        cluster: match cluster {
            Cluster::Off => pb::Cluster::Off,
            Cluster::Node => pb::Cluster::Node,
            Cluster::Fleet => pb::Cluster::Fleet,
        }
        .into(),
        telemetry_events: telemetry.clone(),
    })
}

fn variables(spec: &AppSpec, secrets: &dyn Secrets) -> Result<Vec<pb::EnvEntry>, Untold> {
    let variable = |EnvEntry { key, value }: &EnvEntry| {
        let value = match value {
            EnvValue::Plain(value) => value.clone(),
            EnvValue::FromSecret(name) => {
                secrets.value(name).map_err(|source| Untold::Variable { key: key.clone(), source })?
            }
        };
        Ok(pb::EnvEntry { key: key.clone(), value })
    };
    spec.env.iter().map(variable).collect()
}

fn slot(app: &AppName, number: Slot, wanted: &WantedSlot) -> pb::SlotAssignment {
    let WantedSlot { release: wanted, pre_commands_run, restart, restart_because, fallback, hot } = wanted;
    pb::SlotAssignment {
        app: app.to_string(),
        slot: u32::from(number.number()),
        release: Some(release(wanted)),
        pre_commands: pre_commands_run.clone().map(|run_id| pb::PreCommands { run_id }),
        restart_id: restart.map(|id| id.to_string()).unwrap_or_default(),
        restart_because: restart_because.clone().unwrap_or_default(),
        hot: hot.as_ref().map(|it| pb::HotUpgrade {
            attempt: it.attempt.clone(),
            from: Some(pb::ReleaseKey::from(&it.from)),
            required: it.required,
        }),
        fallback: fallback.as_ref().map(|it| pb::Fallback {
            release: Some(release(&it.release)),
            within_ms: it.within.0,
            rollout_id: it.rollout.to_string(),
        }),
    }
}

fn release(release: &Release) -> pb::Release {
    pb::Release {
        key: Some(pb::ReleaseKey::from(&release.key)),
        size: release.size,
        pre_commands: release.pre_commands.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::ids::{Digest, RolloutId};
    use proto::state::Language;

    use super::*;
    use crate::clock::Time;
    use crate::db::WantedFallback;
    use crate::spec::{Ask, Millis, Probe};

    struct Known(BTreeMap<&'static str, &'static str>);

    impl Secrets for Known {
        fn cookie(&self, app: &AppName, sealed: &[u8]) -> Result<String, Unopened> {
            Ok(format!("{app}:{}", String::from_utf8_lossy(sealed)))
        }

        fn value(&self, name: &str) -> Result<String, Unopened> {
            self.0.get(name).map(|&value| value.to_owned()).ok_or_else(|| "there is no such secret".into())
        }
    }

    fn wanted() -> NodeAssignment {
        let app: AppName = "shop".parse().unwrap();
        let mut spec = AppSpec::new(app.clone(), Language::Elixir);
        spec.env = vec![
            EnvEntry { key: "COLOUR".to_owned(), value: EnvValue::Plain("red".to_owned()) },
            EnvEntry { key: "DATABASE".to_owned(), value: EnvValue::FromSecret("prod/DB".to_owned()) },
        ];
        spec.limits = Limits { memory_max: Some(2 << 30), cpu_percent: None, pids_max: Some(64) };
        let release = Release {
            app: app.clone(),
            key: ReleaseKey { version: "1.2.0".parse().unwrap(), sha256: Digest([7; 32]) },
            size: 42,
            declared_hash: None,
            pre_commands: vec!["eval Shop.migrate".to_owned()],
            etag: None,
            recorded_at: Time(0),
            package: None,
        };
        let slot = |run: Option<&str>| WantedSlot {
            release: release.clone(),
            pre_commands_run: run.map(str::to_owned),
            restart: None,
            restart_because: None,
            fallback: None,
            hot: None,
        };
        NodeAssignment {
            generation: 9,
            applications: [(app.clone(), WantedApplication { spec, cookie: b"sealed".to_vec() })].into(),
            slots: [
                ((app.clone(), Slot::new(1).unwrap()), slot(None)),
                ((app, Slot::new(4).unwrap()), slot(Some("run-1"))),
            ]
            .into(),
            monitoring: Some(HostMonitoring::default()),
        }
    }

    #[test]
    fn an_assignment_carries_what_a_node_must_know_and_no_more() {
        let secrets = Known([("prod/DB", "postgres://x")].into());
        let assignment = snapshot(&wanted(), &secrets);
        assert_eq!(assignment.generation, 9);
        let application = &assignment.applications[0];
        assert_eq!(application.cookie, "shop:sealed");
        assert_eq!(application.env[1].value, "postgres://x");
        assert_eq!(application.stable_after_ms, 30_000);
        let limits = pb::Limits { memory_max_bytes: 2 << 30, cpu_max_percent: 0, pids_max: 64 };
        assert_eq!(application.limits, Some(limits), "0: as much as there is");
        let disk = pb::HostThreshold { warning_percent: 90, restart_percent: 0, cooldown_ms: 300_000 };
        assert_eq!(assignment.host_monitoring, Some(pb::HostMonitoring { memory: None, disk: Some(disk) }));
        let runs: Vec<_> = assignment
            .slots
            .iter()
            .map(|slot| (slot.slot, slot.pre_commands.as_ref().map(|it| it.run_id.as_str())))
            .collect();
        assert_eq!(runs, [(1, None), (4, Some("run-1"))]);
    }

    #[test]
    fn probes_are_told_beside_what_an_agent_that_knows_none_goes_by() {
        let (mut wanted, secrets) = (wanted(), Known([("prod/DB", "x")].into()));
        let spec = &mut wanted.applications.get_mut(&"shop".parse().unwrap()).unwrap().spec;
        let probe = |ask| Probe { ask, interval: Some(Millis(1_000)), timeout: Millis(2_000), after: 2 };
        let health = Ask::Http { port: Some("PORT".to_owned()), path: "/health".to_owned(), expect: 204 };
        spec.ready_probes = vec![probe(health), probe(Ask::Process)];
        spec.live = vec![probe(Ask::Tcp { port: None }), probe(Ask::Exec { command: "bin/ok".to_owned() })];
        let told = snapshot(&wanted, &secrets).applications.remove(0);
        assert_eq!(told.ready(), pb::ReadyWhen::Default);
        let http = pb::HttpProbe { port: "PORT".to_owned(), path: "/health".to_owned(), expect: 204 };
        let kind = |probe: &pb::Probe| probe.kind.clone().unwrap();
        let ready: Vec<_> = told.ready_probes.iter().map(kind).collect();
        assert_eq!(ready, [pb::probe::Kind::Http(http), pb::probe::Kind::Process(true)]);
        let first = &told.ready_probes[0];
        assert_eq!((first.interval_ms, first.timeout_ms, first.after), (1_000, 2_000, 2));
        let tcp = pb::TcpProbe { port: String::new() };
        let exec = pb::ExecProbe { command: "bin/ok".to_owned() };
        let live: Vec<_> = told.live_probes.iter().map(kind).collect();
        assert_eq!(live, [pb::probe::Kind::Tcp(tcp), pb::probe::Kind::Exec(exec)]);
    }

    #[test]
    fn where_a_slot_goes_back_to_by_itself_is_told_whole() {
        let (mut wanted, secrets) = (wanted(), Known([("prod/DB", "x")].into()));
        let slot = wanted.slots.values_mut().next().unwrap();
        let release = Release { size: 41, ..slot.release.clone() };
        let rollout = RolloutId(uuid::Uuid::nil());
        slot.fallback = Some(WantedFallback { release, within: Millis(600_000), rollout });
        let told: Vec<_> = snapshot(&wanted, &secrets).slots.into_iter().map(|it| it.fallback).collect();
        let [Some(fallback), None] = &told[..] else { panic!("{told:?}") };
        assert_eq!((fallback.within_ms, fallback.release.as_ref().unwrap().size), (600_000, 41));
        assert_eq!(fallback.rollout_id, rollout.to_string());
    }

    #[test]
    fn the_same_rows_give_the_same_assignment() {
        let secrets = Known([("prod/DB", "x")].into());
        assert_eq!(snapshot(&wanted(), &secrets), snapshot(&wanted(), &secrets));
    }

    #[test]
    fn a_secret_that_cannot_be_had_holds_its_application_and_no_other() {
        let mut wanted = wanted();
        let (shop, blog): (AppName, AppName) = ("shop".parse().unwrap(), "blog".parse().unwrap());
        let first = Slot::new(1).unwrap();
        let slot = wanted.slots[&(shop, first)].clone();
        wanted.slots.insert((blog.clone(), first), slot);
        let spec = AppSpec::new(blog.clone(), Language::Erlang);
        wanted.applications.insert(blog, WantedApplication { spec, cookie: Vec::new() });

        let assignment = snapshot(&wanted, &Known(BTreeMap::new()));
        assert_eq!(assignment.held, ["shop"]);
        let described: Vec<_> = assignment.applications.iter().map(|it| it.name.as_str()).collect();
        let told: Vec<_> = assignment.slots.iter().map(|it| (it.app.as_str(), it.slot)).collect();
        assert_eq!((described, told), (vec!["blog"], vec![("blog", 1)]));
    }

    #[test]
    fn why_an_application_cannot_be_told_is_a_sentence_that_names_its_variable() {
        let spec = &wanted().applications[&"shop".parse().unwrap()].spec;
        let missing = untold(spec, &Known(BTreeMap::new()));
        assert_eq!(missing.as_deref(), Some("its variable DATABASE cannot be had: there is no such secret"));
        assert_eq!(untold(spec, &Known([("prod/DB", "x")].into())), None);
    }

    #[test]
    fn an_application_without_a_slot_is_left_out() {
        let mut wanted = wanted();
        wanted.slots.clear();
        let assignment = snapshot(&wanted, &Known(BTreeMap::new()));
        assert!(assignment.applications.is_empty() && assignment.held.is_empty());
    }
}
