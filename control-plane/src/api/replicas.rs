//! Replicas: what is assigned to a slot and what its agent says of it, in one view.

pub(super) mod history;
pub(super) mod telemetry;

use std::fmt;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use proto::ids::{AppName, BadName, NodeName, Slot};
use proto::page::Page;
use proto::replicas::{
    ErlangNode, FailedCheck, LastExit, Mesh, Missed, PortInUse, PreCommands, Replica, Staging, Upgrade,
    UpgradeStep, Vm, VmLevel,
};
use proto::state::{Liveness, SlotState};
use serde::Deserialize;

use super::Api;
use crate::error::{ApiError, ApiResult};
use crate::fleet::{
    AppFleet, Assigned, Observed, ObservedCheck, ObservedExit, ObservedLevel, ObservedMesh, ObservedMissed,
    ObservedNode, ObservedStaging, ObservedUpgrade, ObservedVm, Place, PreCommandsOutcome,
};
use crate::http::input::{Path, Query, limit, page_of};
use crate::picture::Picture;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    app: Option<AppName>,
    node: Option<NodeName>,
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/replicas", tag = "replicas",
    params(("app" = Option<AppName>, Query), ("node" = Option<NodeName>, Query),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "By application, node and slot.", body = Page<Replica>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<Replica>>> {
    let ListQuery { app, node, limit: asked, cursor } = query;
    let limit = limit(asked)?;
    let picture = api.picture().await?;
    if let Some(name) = app.as_ref().filter(|name| !picture.apps.contains_key(*name)) {
        return Err(ApiError::not_found("application", name));
    }
    let apps = picture.apps.iter().filter(|(name, _)| app.as_ref().is_none_or(|it| it == *name));
    let mut replicas: Vec<Replica> = apps
        .flat_map(|(_, app)| of(&picture, &app.fleet))
        .filter(|replica| node.as_ref().is_none_or(|it| *it == replica.node))
        .collect();
    replicas.sort_by_cached_key(key);
    page_of(replicas, cursor.as_deref(), limit, key).map(Json)
}

fn key(replica: &Replica) -> Key {
    Key(replica.application.clone(), replica.node.clone(), replica.slot)
}

/// What replicas are ordered by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(AppName, NodeName, Slot);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(app, node, slot) = self;
        write!(f, "{app}:{node}:{slot}")
    }
}

impl FromStr for Key {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self(part().parse()?, part().parse()?, part().parse()?))
    }
}

#[utoipa::path(get, path = "/api/v1/replicas/{node}/{app}/{slot}", tag = "replicas",
    params(("node" = NodeName, Path), ("app" = AppName, Path), ("slot" = Slot, Path)),
    responses((status = 200, description = "One replica.", body = Replica)))]
pub(super) async fn show(
    State(api): State<Api>,
    Path((node, app, slot)): Path<(NodeName, AppName, Slot)>,
) -> ApiResult<Json<Replica>> {
    let picture = api.picture().await?;
    let app_name = app.clone();
    let found = picture.apps.get(&app).and_then(|app| {
        let places = picture.places(&app.fleet);
        let (node, place) = places.into_iter().find(|(name, place)| *name == node && place.slot == slot)?;
        let mut replica = view(&picture, &app.fleet, node, place);
        let run = app.fleet.observed.get(&place).and_then(|seen| seen.pre_commands.as_ref());
        if let (Some(PreCommands::Passed { output }), Some(run)) = (&mut replica.pre_commands, run) {
            *output = Some(run.printed.to_string()).filter(|it| !it.is_empty());
        }
        if let Some(vm) = &mut replica.vm {
            vm.now = api.backend.vm(&app_name, place);
        }
        Some(replica)
    });
    found.map(Json).ok_or_else(|| ApiError::not_found("replica", format!("{slot} of {app} on {node}")))
}

/// Of one application, by node name and slot.
pub(super) fn of<'a>(picture: &'a Picture, fleet: &'a AppFleet) -> impl Iterator<Item = Replica> + 'a {
    picture.places(fleet).into_iter().map(move |(node, place)| view(picture, fleet, node, place))
}

fn view(picture: &Picture, fleet: &AppFleet, node: NodeName, place: Place) -> Replica {
    let sight = picture.nodes.get(&place.node).map(|it| &it.sight);
    let lost = sight.is_none_or(|sight| sight.liveness == Liveness::Lost);
    let assigned = fleet.assigned.get(&place).and_then(|Assigned { release, .. }| release.clone());
    let usage = sight.and_then(|sight| sight.loads.get(&(fleet.app.clone(), place.slot))).copied();
    let base = Replica {
        application: fleet.app.clone(),
        node,
        slot: place.slot,
        state: if lost { SlotState::Unknown } else { SlotState::Preparing },
        running: None,
        assigned,
        pid: None,
        started_at: None,
        ports: Vec::new(),
        crash_restarts: 0,
        forced_restarts: 0,
        crashes_since_deploy: 0,
        last_exit: None,
        failed_check: None,
        next_start_at: None,
        fault: None,
        staging: None,
        pre_commands: None,
        usage: usage.filter(|_| !lost),
        erlang: None,
        vm: None,
        upgrade: None,
        waiting_settings: Vec::new(),
        reported_at: None,
    };
    match fleet.observed.get(&place) {
        Some(observed) => completed(base, observed.clone(), lost),
        None => base,
    }
}

/// With what the agent said; of a lost node that is what it said last, and what it does now nobody knows.
fn completed(base: Replica, observed: Observed, lost: bool) -> Replica {
    let Observed {
        generation: _,
        state,
        running,
        pid,
        started_at,
        ready_since: _,
        staging,
        crash_restarts,
        forced_restarts,
        crashes_since_deploy,
        last_exit,
        failed_check,
        next_start_at,
        fault,
        pre_commands,
        // Its fault says so.
        fell_back: _,
        erlang,
        vm,
        upgrade,
        hot_upgrades: _,
        waiting_settings,
        ports,
        reported_at,
    } = observed;
    Replica {
        state: if lost { SlotState::Unknown } else { state },
        running,
        pid,
        started_at: started_at.map(Into::into),
        ports: ports.into_iter().map(|(key, port)| PortInUse { key, port }).collect(),
        crash_restarts,
        forced_restarts,
        crashes_since_deploy,
        last_exit: last_exit.map(exit),
        failed_check: failed_check.map(check),
        next_start_at: next_start_at.map(Into::into),
        fault: Some(fault).filter(|fault| !fault.is_empty()),
        staging: staging.map(|ObservedStaging { release, phase, error, fetched_bytes }| Staging {
            release,
            phase,
            fetched_bytes,
            error: Some(error).filter(|error| !error.is_empty()),
        }),
        pre_commands: pre_commands.map(|it| match it.outcome {
            PreCommandsOutcome::Running => PreCommands::Running,
            // In a list of thousands it would be the most of it.
            PreCommandsOutcome::Passed => PreCommands::Passed { output: None },
            PreCommandsOutcome::Failed { error, output } => PreCommands::Failed { error, output },
        }),
        // Of a lost node nobody knows whether it is connected.
        erlang: erlang.filter(|_| !lost).map(erlang_node),
        vm: vm.filter(|_| !lost && pid.is_some()).map(self::vm),
        upgrade: upgrade.as_deref().map(self::upgrade),
        waiting_settings,
        reported_at: Some(reported_at.into()),
        ..base
    }
}

fn upgrade(observed: &ObservedUpgrade) -> Upgrade {
    let some = |text: &String| Some(text.clone()).filter(|it| !it.is_empty());
    let step = |(step, took_ms): &(String, u64)| UpgradeStep { step: step.clone(), took_ms: *took_ms };
    Upgrade {
        from: observed.from.version.clone(),
        to: observed.to.version.clone(),
        state: observed.state,
        done: observed.done.iter().map(step).collect(),
        step: some(&observed.step),
        step_since: observed.step_since.map(Into::into),
        because: some(&observed.because),
        spoiled: observed.spoiled,
        finished_at: observed.at.map(Into::into),
    }
}

fn erlang_node(observed: ObservedNode) -> ErlangNode {
    let ObservedNode { name, connected_since, kind, because, tls, mesh } = observed;
    let some = |text: String| Some(text).filter(|it| !it.is_empty());
    ErlangNode {
        name,
        connected_since: connected_since.map(Into::into),
        kind: some(kind),
        because: some(because),
        tls: some(tls),
        mesh: mesh.map(self::mesh),
    }
}

fn mesh(observed: ObservedMesh) -> Mesh {
    let some = |text: &String| Some(text.clone()).filter(|it| !it.is_empty());
    let missed = |it: &ObservedMissed| Missed {
        name: it.name.clone(),
        since: it.since.into(),
        kind: some(&it.kind),
        because: some(&it.because),
    };
    Mesh {
        connected: observed.connected.to_vec(),
        missed: observed.missed.iter().map(missed).collect(),
        unreached: observed.unreached.iter().map(missed).collect(),
    }
}

/// But for its figures: in a list of thousands they would be the most of it, and new every two seconds.
fn vm(observed: ObservedVm) -> Vm {
    let ObservedVm {
        otp,
        erts,
        application,
        elixir,
        gleam_stdlib,
        phoenix,
        started_at,
        limits,
        fault,
        levels,
        urls,
        logo,
    } = observed;
    let level = |it: ObservedLevel| {
        let ObservedLevel { figure, level, count, limit, since } = it;
        VmLevel { figure, level, count, limit, since: since.into() }
    };
    let some = |text: String| Some(text).filter(|it| !it.is_empty());
    Vm {
        otp: some(otp),
        erts: some(erts),
        application: some(application),
        elixir: some(elixir),
        gleam_stdlib: some(gleam_stdlib),
        phoenix: some(phoenix),
        started_at: started_at.map(Into::into),
        limits,
        fault: some(fault),
        levels: levels.into_iter().map(level).collect(),
        urls,
        logo,
        now: None,
    }
}

pub(super) fn exit(observed: ObservedExit) -> LastExit {
    let ObservedExit { cause, at, asked_for, log_tail, slogan, crash_dump, because } = observed;
    LastExit {
        cause,
        at: at.into(),
        asked_for,
        log_tail,
        slogan: Some(slogan).filter(|it| !it.is_empty()),
        crash_dump: Some(crash_dump).filter(|it| !it.is_empty()),
        because: Some(because).filter(|it| !it.is_empty()),
    }
}

pub(super) fn check(observed: ObservedCheck) -> FailedCheck {
    let ObservedCheck { list, asked, outcome, body, at, in_a_row, log_tail } = observed;
    FailedCheck { list, asked, outcome, body, at: at.into(), in_a_row, log_tail }
}
