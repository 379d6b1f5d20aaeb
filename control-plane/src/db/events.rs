//! What happened, for people: events, and the audit of who asked for what.
//!
//! Both are written in the transaction of the change they speak of ([`insert`], [`insert_audit`]), so that neither is there
//! without the other. Their ids are UUIDv7: newest first is the order of ids, and a page goes on below the last id of the one before.

use proto::ids::{AppName, EventId, NodeId, RolloutId, Slot};
use proto::state::Severity;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::connection::Db;
use super::entity::records::{audit, event};
use super::entity::row::{Row, json, millis, slot_number};
use super::error::{DbError, Fault, doing};
use super::{Page, PageRequest};
use crate::clock::Time;

/// Something worth remembering, not yet stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    pub at: Time,
    /// One word, as in the HTTP API: `crash_restart`, `rollout_done`, …
    pub kind: String,
    pub severity: Severity,
    pub app: Option<AppName>,
    pub node: Option<NodeId>,
    pub slot: Option<Slot>,
    pub rollout: Option<RolloutId>,
    /// A sentence.
    pub text: String,
    /// What a program would want to know of it.
    pub data: Map<String, Value>,
}

impl NewEvent {
    pub fn new(at: Time, kind: impl Into<String>, severity: Severity, text: impl Into<String>) -> Self {
        Self {
            at,
            kind: kind.into(),
            severity,
            app: None,
            node: None,
            slot: None,
            rollout: None,
            text: text.into(),
            data: Map::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub event: NewEvent,
}

/// What is asked for; everything that is `None` matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub app: Option<AppName>,
    pub node: Option<NodeId>,
    pub slot: Option<Slot>,
    pub rollout: Option<RolloutId>,
    pub kind: Option<String>,
    /// This severity and all above it.
    pub at_least: Option<Severity>,
    pub since: Option<Time>,
    pub until: Option<Time>,
}

/// Who asked for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub at: Time,
    /// A user, a token's name, or `local:{user}`.
    pub who: String,
    pub what: String,
    pub object: String,
    pub detail: String,
}

/// Rows in one statement: well below what either engine takes.
const ROWS_PER_INSERT: usize = 500;
/// Rows deleted in one transaction, so that a long retention run never keeps a writer waiting.
const ROWS_PER_DELETE: u64 = 1000;

impl Db {
    /// Stores what was asked for and changes no state.
    pub async fn record_request(&self, event: NewEvent, audit: &AuditEntry) -> Result<(), DbError> {
        doing("record a request", async {
            let tx = self.write().await?;
            insert(&tx, &[event]).await?;
            insert_audit(&tx, Some(audit)).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Stores events that belong to no other change, such as an agent's.
    pub async fn record_events(&self, events: &[NewEvent]) -> Result<(), DbError> {
        doing("record events", async {
            let tx = self.write().await?;
            insert(&tx, events).await?;
            Ok(tx.commit().await?)
        })
        .await
    }

    /// Newest first.
    pub async fn events(
        &self,
        filter: &EventFilter,
        page: PageRequest<EventId>,
    ) -> Result<Page<Event, EventId>, DbError> {
        doing("list events", async {
            let mut query = event::Entity::find().order_by_desc(event::Column::Id).limit(page.rows() + 1);
            if let Some(after) = page.after {
                query = query.filter(event::Column::Id.lt(after.0));
            }
            if let Some(app) = &filter.app {
                query = query.filter(event::Column::App.eq(app.as_str()));
            }
            if let Some(node) = filter.node {
                query = query.filter(event::Column::Node.eq(node.0));
            }
            if let Some(slot) = filter.slot {
                query = query.filter(event::Column::Slot.eq(slot_number(slot)));
            }
            if let Some(rollout) = filter.rollout {
                query = query.filter(event::Column::Rollout.eq(rollout.0));
            }
            if let Some(kind) = &filter.kind {
                query = query.filter(event::Column::Kind.eq(kind.as_str()));
            }
            if let Some(least) = filter.at_least {
                let words = Severity::ALL.iter().filter(|it| **it >= least).map(|it| it.word());
                query = query.filter(event::Column::Severity.is_in(words));
            }
            if let Some(since) = filter.since {
                query = query.filter(event::Column::At.gte(millis(since)));
            }
            if let Some(until) = filter.until {
                query = query.filter(event::Column::At.lt(millis(until)));
            }
            let rows = query.all(self.reader()).await?;
            let events = rows.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            Ok(Page::cut(events, &page, |event| event.id))
        })
        .await
    }

    /// Retention: forgets what is older, a batch at a time; returns how many.
    pub async fn forget_events_before(&self, time: Time) -> Result<u64, DbError> {
        doing("forget old events", async {
            let mut forgotten = 0;
            loop {
                let ids: Vec<Uuid> = event::Entity::find()
                    .select_only()
                    .column(event::Column::Id)
                    .filter(event::Column::At.lt(millis(time)))
                    .limit(ROWS_PER_DELETE)
                    .into_tuple()
                    .all(self.reader())
                    .await?;
                if ids.is_empty() {
                    return Ok(forgotten);
                }
                let deleted = event::Entity::delete_many()
                    .filter(event::Column::Id.is_in(ids))
                    .exec(self.writer())
                    .await?;
                forgotten += deleted.rows_affected;
            }
        })
        .await
    }

    /// Newest first.
    pub async fn audit(&self, page: PageRequest<Uuid>) -> Result<Page<AuditEntry, Uuid>, DbError> {
        doing("list the audit", async {
            let mut query = audit::Entity::find().order_by_desc(audit::Column::Id).limit(page.rows() + 1);
            if let Some(after) = page.after {
                query = query.filter(audit::Column::Id.lt(after));
            }
            let rows = Page::cut(query.all(self.reader()).await?, &page, |row| row.id);
            let items = rows.items.into_iter().map(parse_audit).collect::<Result<Vec<_>, _>>()?;
            Ok(Page { items, next: rows.next })
        })
        .await
    }
}

/// Within a transaction of whatever the events speak of.
pub(super) async fn insert(tx: &impl ConnectionTrait, events: &[NewEvent]) -> Result<(), Fault> {
    for batch in events.chunks(ROWS_PER_INSERT) {
        let rows = batch.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        event::Entity::insert_many(rows.into_iter().map(IntoActiveModel::into_active_model))
            .exec_without_returning(tx)
            .await?;
    }
    Ok(())
}

/// Within a transaction of what was asked for. `None`: the program itself did it.
pub(super) async fn insert_audit(tx: &impl ConnectionTrait, entry: Option<&AuditEntry>) -> Result<(), Fault> {
    let Some(entry) = entry else { return Ok(()) };
    let AuditEntry { at, who, what, object, detail } = entry.clone();
    let row = audit::Model { id: Uuid::now_v7(), at: millis(at), who, what, object, detail };
    row.into_active_model().insert(tx).await?;
    Ok(())
}

fn row(event: &NewEvent) -> Result<event::Model, Fault> {
    let NewEvent { at, kind, severity, app, node, slot, rollout, text, data } = event;
    Ok(event::Model {
        id: Uuid::now_v7(),
        at: millis(*at),
        kind: kind.clone(),
        severity: severity.word().to_owned(),
        app: app.as_ref().map(ToString::to_string),
        node: node.map(|node| node.0),
        slot: slot.map(slot_number),
        rollout: rollout.map(|rollout| rollout.0),
        message: text.clone(),
        data: json(data)?,
    })
}

fn parse(model: event::Model) -> Result<Event, Fault> {
    let event::Model { id, at, kind, severity, app, node, slot, rollout, message, data } = model;
    let row = Row::new("events", id);
    Ok(Event {
        id: EventId(id),
        event: NewEvent {
            at: row.time("at", at)?,
            kind,
            severity: row.word("severity", &severity, Severity::from_word)?,
            app: app.map(|app| row.text("app", &app)).transpose()?,
            node: node.map(NodeId),
            slot: slot.map(|slot| row.slot("slot", slot)).transpose()?,
            rollout: rollout.map(RolloutId),
            text: message,
            data: row.json("data", &data)?,
        },
    })
}

fn parse_audit(model: audit::Model) -> Result<AuditEntry, Fault> {
    let audit::Model { id, at, who, what, object, detail } = model;
    Ok(AuditEntry { at: Row::new("audit", id).time("at", at)?, who, what, object, detail })
}
