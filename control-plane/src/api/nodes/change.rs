//! What a person changes of a node: its labels, and whether replicas are kept away from it. The planner does the rest.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use proto::ids::NodeName;
use proto::nodes::{Node, NodeChange};
use proto::problem::{Code, Problem};
use proto::state::{Service, Severity};

use super::view;
use crate::api::Api;
use crate::auth::principal::Principal;
use crate::error::{ApiError, ApiResult};
use crate::http::input::{Input, Path};
use crate::spec::label;

type Labels = BTreeMap<String, String>;

#[utoipa::path(patch, path = "/api/v1/nodes/{node}", tag = "nodes",
    params(("node" = NodeName, Path)), request_body = NodeChange,
    responses((status = 200, description = "It has these labels; what no longer may run there is withdrawn.", body = Node)))]
pub(in crate::api) async fn label(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<NodeName>,
    Input(NodeChange { labels }): Input<NodeChange>,
) -> ApiResult<Json<Node>> {
    let picture = api.picture().await?;
    let found = picture.node_by_name(&name).ok_or_else(|| ApiError::not_found("node", &name))?;
    check(&labels, &found.node.labels)?;
    if let Some(difference) = difference(&found.node.labels, &labels) {
        let by = &principal.name;
        let text = format!("{by} changed the labels of {name}: {difference}");
        let mut event = api.asked(by, "node_labelled", Severity::Info, text);
        event.node = Some(found.node.id);
        let audit = api.audit(by, "node.label", name.as_str(), &difference);
        api.db.change_node(found.node.id, Some(&labels), None, &event, &audit).await?;
        api.backend.plan_now();
    }
    shown(&api, &name).await
}

#[utoipa::path(post, path = "/api/v1/nodes/{node}/cordon", tag = "nodes", params(("node" = NodeName, Path)),
    responses(
        (status = 200, description = "It keeps what it has, and is given no replica more.", body = Node),
        (status = 409, description = "`conflict`: it is cordoned already.", body = Problem)))]
pub(in crate::api) async fn cordon(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<NodeName>,
) -> ApiResult<Json<Node>> {
    put(&api, &principal, &name, Service::Cordoned).await
}

#[utoipa::path(post, path = "/api/v1/nodes/{node}/uncordon", tag = "nodes", params(("node" = NodeName, Path)),
    responses(
        (status = 200, description = "It is given replicas again; a drain ends.", body = Node),
        (status = 409, description = "`conflict`: no replica is kept away from it.", body = Problem)))]
pub(in crate::api) async fn uncordon(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<NodeName>,
) -> ApiResult<Json<Node>> {
    put(&api, &principal, &name, Service::Open).await
}

#[utoipa::path(post, path = "/api/v1/nodes/{node}/drain", tag = "nodes", params(("node" = NodeName, Path)),
    responses(
        (status = 200, description = "What it holds is withdrawn little by little; `waiting` says why it is not empty yet.", body = Node),
        (status = 409, description = "`conflict`: it is being drained already.", body = Problem)))]
pub(in crate::api) async fn drain(
    State(api): State<Api>,
    principal: Principal,
    Path(name): Path<NodeName>,
) -> ApiResult<Json<Node>> {
    put(&api, &principal, &name, Service::Draining).await
}

async fn put(api: &Api, principal: &Principal, name: &NodeName, service: Service) -> ApiResult<Json<Node>> {
    let picture = api.picture().await?;
    let found = picture.node_by_name(name).ok_or_else(|| ApiError::not_found("node", name))?;
    let (kind, action, did, already) = match service {
        Service::Open => ("node_uncordoned", "node.uncordon", "uncordoned", "in service"),
        Service::Cordoned => ("node_cordoned", "node.cordon", "cordoned", "cordoned"),
        Service::Draining => ("node_draining", "node.drain", "began to drain", "being drained"),
    };
    if found.node.service == service {
        return Err(ApiError::new(Code::Conflict, format!("{name} is {already} already")));
    }
    let (id, by) = (found.node.id, &principal.name);
    let mut event = api.asked(by, kind, Severity::Info, format!("{by} {did} the node {name}"));
    event.node = Some(id);
    let audit = api.audit(by, action, name.as_str(), &id.to_string());
    api.db.change_node(id, None, Some(service), &event, &audit).await?;
    api.backend.plan_now();
    shown(api, name).await
}

async fn shown(api: &Api, name: &NodeName) -> ApiResult<Json<Node>> {
    let picture = api.picture().await?;
    let found = picture.node_by_name(name).ok_or_else(|| ApiError::not_found("node", name))?;
    Ok(Json(view(&picture, found)))
}

/// Whether a node may have these. What its agent brought may look otherwise, and is not refused where it stays.
pub(super) fn check(labels: &Labels, had: &Labels) -> ApiResult<()> {
    if labels.len() > label::MOST {
        return Err(ApiError::invalid("labels", format!("are at most {}", label::MOST)));
    }
    let new = labels.iter().filter(|(key, value)| had.get(*key) != Some(*value));
    for text in new.flat_map(|(key, value)| [key, value]) {
        if !label::fits(text) {
            let message = format!("hold {text:?}: a key or a value is {}", label::ALLOWED);
            return Err(ApiError::invalid("labels", message));
        }
    }
    Ok(())
}

/// `role=web, without zone`; `None`: they are the same.
fn difference(before: &Labels, after: &Labels) -> Option<String> {
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let parts: Vec<String> = set
        .map(|(key, value)| format!("{key}={value}"))
        .chain(gone.map(|key| format!("without {key}")))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_change_of_labels_names_what_is_other() {
        let before = labels(&[("role", "web"), ("zone", "a"), ("rack", "7")]);
        let after = labels(&[("role", "db"), ("rack", "7"), ("disk", "ssd")]);
        assert_eq!(difference(&before, &after).as_deref(), Some("disk=ssd, role=db, without zone"));
        assert_eq!(difference(&before, &before), None);
    }

    #[test]
    fn what_an_agent_brought_may_stay_and_what_is_new_must_fit() {
        let brought = labels(&[("owner", "Ann Ek")]);
        assert!(check(&brought, &brought).is_ok());
        assert!(check(&brought, &Labels::new()).is_err());
        assert!(check(&labels(&[("role", "")]), &Labels::new()).is_err());
        let many: Labels = (0..=label::MOST).map(|n| (format!("k{n}"), "v".to_owned())).collect();
        assert!(check(&many, &Labels::new()).is_err());
    }
}
