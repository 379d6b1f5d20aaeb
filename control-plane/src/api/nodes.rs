//! Nodes, and the tokens by which a host joins.

pub(super) mod change;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use proto::ids::{AppName, NodeName};
use proto::nodes::{Holding, Inventory, JoinToken, NewJoinToken, Node, NodeRemoved, NodeSummary};
use proto::page::Page;
use proto::replicas::Replica;
use proto::state::{HostLevel, Service, Severity};
use serde::Deserialize;

use super::{Api, replicas};
use crate::auth::principal::Principal;
use crate::auth::secret::Secret;
use crate::config::AgentsAddress;
use crate::db::{EnrolledNode, NewJoinToken as StoredJoinToken};
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Input, Path, Query, limit, page_of};
use crate::picture::{NodePicture, NodeSight, Picture};

const HOUR: u64 = 3_600_000;
/// A join token is a key to the fleet: it does not lie around for longer than a month.
const LONGEST_LIFETIME: u64 = 30 * 24 * HOUR;
const MOST_USES: u32 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<u32>,
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes",
    params(("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, description = "By name.", body = Page<NodeSummary>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> ApiResult<Json<Page<NodeSummary>>> {
    let limit = limit(query.limit)?;
    let picture = api.picture().await?;
    let mut nodes: Vec<_> = picture.nodes.values().map(|node| summary(&picture, node)).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    page_of(nodes, query.cursor.as_deref(), limit, |node: &NodeSummary| node.name.clone()).map(Json)
}

#[utoipa::path(get, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = NodeName, Path)),
    responses((status = 200, description = "The node with its replicas.", body = Node)))]
pub(super) async fn show(State(api): State<Api>, Path(name): Path<NodeName>) -> ApiResult<Json<Node>> {
    let picture = api.picture().await?;
    let node = picture.node_by_name(&name).ok_or_else(|| ApiError::not_found("node", &name))?;
    Ok(Json(view(&picture, node)))
}

#[utoipa::path(delete, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = NodeName, Path)),
    responses((status = 200, description = "Its certificate is revoked, its session ended.", body = NodeRemoved)))]
pub(super) async fn remove(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<NodeName>,
) -> ApiResult<Json<NodeRemoved>> {
    let picture = api.picture().await?;
    let node = picture.node_by_name(&name).ok_or_else(|| ApiError::not_found("node", &name))?;
    let left = replicas_on(&picture, &name).filter(|replica| replica.pid.is_some()).count();
    let (id, now) = (node.node.id, api.clock.wall());
    let text = format!("{} removed the node {name}", principal.name);
    let mut event = api.asked(&principal.name, "node_removed", Severity::Warning, text);
    event.node = Some(id);
    let audit = api.audit(&principal.name, "node.remove", name.as_str(), &id.to_string());
    api.db.remove_node(id, now, &[event], Some(&audit)).await?;
    api.backend.cut(id);
    api.backend.plan_now();
    Ok(Json(NodeRemoved { node: name, replicas_left: u32::try_from(left).unwrap_or(u32::MAX) }))
}

#[utoipa::path(post, path = "/api/v1/join-tokens", tag = "nodes", request_body = NewJoinToken,
    responses((status = 201, description = "The token, shown this once.", body = JoinToken)))]
pub(super) async fn join_token(
    State(api): State<Api>,
    principal: Principal,
    Input(NewJoinToken { uses, lifetime_ms, labels }): Input<NewJoinToken>,
) -> ApiResult<(StatusCode, Json<JoinToken>)> {
    let uses = Some(uses.unwrap_or(1)).filter(|uses| (1..=MOST_USES).contains(uses));
    let uses = uses.and_then(|uses| u16::try_from(uses).ok());
    let uses = uses.ok_or_else(|| ApiError::invalid("uses", format!("is a number from 1 to {MOST_USES}")))?;
    let lifetime = Some(lifetime_ms.unwrap_or(HOUR)).filter(|it| (1..=LONGEST_LIFETIME).contains(it));
    let lifetime =
        lifetime.ok_or_else(|| ApiError::invalid("lifetime_ms", "is at least 1 and at most 30 days"))?;
    change::check(&labels, &BTreeMap::new())?;
    let (secret, now) = (Secret::random("")?, api.clock.wall());
    let new = StoredJoinToken {
        hash: secret.digest(),
        uses,
        labels: labels.clone(),
        created_by: principal.name.clone(),
        created_at: now,
        expires_at: now.plus(lifetime),
    };
    let audit = api.audit(&principal.name, "join_token.create", "", &format!("{uses} uses"));
    let hosts = if uses == 1 { "one host".to_owned() } else { format!("{uses} hosts") };
    let text = format!("{} made a token with which {hosts} can join", principal.name);
    let event = api.asked(&principal.name, "join_token_created", Severity::Info, text);
    let stored = api.db.add_join_token(&new, &[event], Some(audit)).await?;
    let token = format!("dpxj_{}.{}", secret.expose(), api.backend.ca_fingerprint());
    let AgentsAddress { address, is_guess } = &api.settings.agents_address;
    let command = format!("deployex-agent enrol --control-plane https://{address} --token {token}");
    let note = is_guess.then(|| {
        format!(
            "{} is this machine's own name, because hostname is not set in deployex.yaml: set it, or agents.public, \
             where other hosts do not know that name",
            address.host
        )
    });
    let view = JoinToken {
        id: stored.id,
        token,
        uses: u32::from(uses),
        expires_at: stored.expires_at.into(),
        labels,
        command,
        note,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

fn replicas_on<'a>(picture: &'a Picture, name: &'a NodeName) -> impl Iterator<Item = Replica> + 'a {
    let all = picture.apps.values().flat_map(move |app| replicas::of(picture, &app.fleet));
    all.filter(move |replica| replica.node == *name)
}

pub(super) fn summary(picture: &Picture, it: &NodePicture) -> NodeSummary {
    let NodePicture { node, sight, certificate_ends: _ } = it;
    let tiles: Vec<Replica> = replicas_on(picture, &node.name).collect();
    let ready = tiles.iter().filter(|replica| replica.state.is_ready()).count();
    NodeSummary {
        id: node.id,
        name: node.name.clone(),
        liveness: sight.liveness,
        labels: node.labels.clone(),
        service: node.service,
        agent_version: node.agent_version.clone(),
        heard_at: sight.heard_at.or(node.last_seen_at).map(Into::into),
        replicas: u32::try_from(tiles.len()).unwrap_or(u32::MAX),
        replicas_ready: u32::try_from(ready).unwrap_or(u32::MAX),
        usage: sight.usage,
        warnings: sight.limits.iter().filter(|it| it.level != HostLevel::Normal).cloned().collect(),
    }
}

pub(super) fn view(picture: &Picture, it: &NodePicture) -> Node {
    let NodePicture { node, sight, certificate_ends } = it;
    let NodeSight { clock_ahead_ms, agent_started, vm_samples_dropped, host, limits, .. } = sight;
    let EnrolledNode { inventory, enrolled_at, .. } = node;
    let slots: Vec<Replica> = replicas_on(picture, &node.name).collect();
    let holds = holdings(picture, node, &slots);
    let waiting = match node.service {
        Service::Draining => holds.iter().flat_map(|it| not_empty(picture, it)).collect(),
        Service::Open | Service::Cordoned => Vec::new(),
    };
    Node {
        summary: summary(picture, it),
        enrolled_at: (*enrolled_at).into(),
        certificate_expires_at: certificate_ends.map(Into::into),
        agent_started_at: agent_started.map(Into::into),
        clock_ahead_ms: *clock_ahead_ms,
        vm_samples_dropped: *vm_samples_dropped,
        inventory: inventory.clone().map(|host| Inventory {
            hostname: host.hostname,
            os: host.os,
            kernel: host.kernel,
            arch: host.arch,
            cpus: host.cpus,
            memory_bytes: host.memory_bytes,
            user: host.user,
            erl: Some(host.erl).filter(|erl| !erl.is_empty()),
            limits: host.limits,
            limits_fault: Some(host.limits_fault).filter(|fault| !fault.is_empty()),
        }),
        host: host.clone(),
        limits: limits.clone(),
        slots,
        holds,
        waiting,
    }
}

/// By application.
fn holdings(picture: &Picture, node: &EnrolledNode, slots: &[Replica]) -> Vec<Holding> {
    let mut counted: BTreeMap<&AppName, u32> = BTreeMap::new();
    for replica in slots {
        let count = counted.entry(&replica.application).or_default();
        *count = count.saturating_add(1);
    }
    let holding = |(application, replicas): (&AppName, u32)| {
        let fleet = picture.apps.get(application).map(|app| &app.fleet);
        let moves = fleet.is_some_and(|fleet| {
            let others = fleet.nodes.iter().filter(|(id, _)| **id != node.id);
            let mut others = others.filter(|(_, it)| it.eligible && it.service == Service::Open);
            fleet.spec.as_ref().is_some_and(|spec| spec.spread.is_some()) && others.next().is_some()
        });
        Holding { application: application.clone(), replicas, moves }
    };
    counted.into_iter().map(holding).collect()
}

/// What the planner waits for with an application that a drained node still holds.
fn not_empty(picture: &Picture, held: &Holding) -> Vec<String> {
    let Holding { application, replicas, moves: _ } = held;
    match picture.apps.get(application).map(|app| app.waiting.as_slice()) {
        None | Some([]) => {
            let said = if *replicas == 1 { "replica is" } else { "replicas are" };
            vec![format!("{application}: {replicas} {said} still there")]
        }
        Some(waiting) => waiting.iter().map(|why| format!("{application}: {why}")).collect(),
    }
}
