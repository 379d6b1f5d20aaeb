//! Has expressions evaluated by the Erlang node of what runs in a slot, over the connection that is kept to it. Which slots
//! have one is listed here by those that keep it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::evaluations::LONGEST_TIMEOUT_MS;
use proto::ids::Slot;
use proto::pb;
use proto::pb::evaluated::Outcome as Said;
use tokio::time::Instant;

use super::SlotId;
use super::acts::chain;
use super::probe::NodeEnd;
use crate::beam::AskError;
use crate::beam::evaluate::{Evaluation, Language, Outcome, evaluate, unfit};
use crate::dist::connection::{CallError, Connection};
use crate::dist::link::Standing;
use crate::link::Evaluate;
use crate::replica::Ticket;

/// The nodes of this host that are kept up with. Clones share the list.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes(Arc<Mutex<BTreeMap<SlotId, (Ticket, NodeEnd)>>>);

/// A slot's entry, for as long as it is held.
#[derive(Debug)]
pub(super) struct Listed {
    nodes: Nodes,
    id: SlotId,
    ticket: Ticket,
}

impl Nodes {
    pub(super) fn list(&self, id: SlotId, ticket: Ticket, end: NodeEnd) -> Listed {
        self.lock().insert(id.clone(), (ticket, end));
        Listed { nodes: self.clone(), id, ticket }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SlotId, (Ticket, NodeEnd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut nodes = self.nodes.lock();
        // The next process of the slot may be listed already.
        if nodes.get(&self.id).is_some_and(|(ticket, _)| *ticket == self.ticket) {
            nodes.remove(&self.id);
        }
    }
}

impl Evaluate for Nodes {
    fn evaluate(&self, wish: pb::Evaluate) -> Result<BoxFuture<'static, pb::Evaluated>, String> {
        let language = match wish.language() {
            pb::EvaluationLanguage::Auto => Language::Auto,
            pb::EvaluationLanguage::Erlang => Language::Erlang,
            pb::EvaluationLanguage::Elixir => Language::Elixir,
        };
        let pb::Evaluate { app, slot, expression, timeout_ms, .. } = wish;
        if let Some(why) = unfit(&expression) {
            return Err(why);
        }
        let name = |error: proto::ids::BadName| error.to_string();
        let id = SlotId { app: app.parse().map_err(name)?, slot: Slot::new(slot).map_err(name)? };
        let end = self.lock().get(&id).map(|(_, end)| end.clone());
        let end =
            end.ok_or_else(|| format!("nothing runs in slot {} of {} on this node", id.slot, id.app))?;
        let connection = connection(&end)?;
        let patience = Duration::from_millis(timeout_ms.clamp(1, LONGEST_TIMEOUT_MS));
        let evaluation = async move {
            let began = Instant::now();
            let answer = evaluate(&connection, &expression, language, patience).await;
            told(answer, u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX))
        };
        Ok(evaluation.boxed())
    }
}

/// A caller's own share; or why there is none, a sentence.
fn connection(NodeEnd { standing, said }: &NodeEnd) -> Result<Connection, String> {
    let why = match &*standing.borrow() {
        Standing::Connected { connection, .. } => return Ok(connection.for_another()),
        Standing::Without(reason) => Some(chain(reason)),
        Standing::Dialling => {
            said.borrow().node.as_ref().map(|it| it.because.clone()).filter(|it| !it.is_empty())
        }
    };
    // Whoever would dial it has gone.
    let never = standing.has_changed().is_err();
    Err(match why {
        Some(why) => format!("the agent is not connected to its Erlang node: {why}"),
        None if never => {
            "its process has no Erlang node: distribution is off, or it runs no virtual machine".to_owned()
        }
        None => {
            "the agent is not connected to its Erlang node yet: it may be booting, or have none".to_owned()
        }
    })
}

fn told(answer: Result<Evaluation, AskError>, took_ms: u64) -> pb::Evaluated {
    let Evaluation { outcome, language, printed, printed_bytes } = match answer {
        Ok(evaluation) => evaluation,
        Err(error) => {
            let outcome = match &error {
                AskError::Call(CallError::TimedOut(_)) => Said::Silent(true),
                error => Said::Unknown(chain(error)),
            };
            return pb::Evaluated { outcome: Some(outcome), took_ms, ..Default::default() };
        }
    };
    let outcome = match outcome {
        Outcome::Value { text, cut } => Said::Value(pb::EvaluatedValue { text, cut }),
        Outcome::Raised { class, message, stacktrace, cut } => {
            Said::Raised(pb::EvaluatedException { class, message, stacktrace, cut })
        }
        Outcome::TimedOut => Said::TimedOut(true),
        Outcome::NoElixir => Said::Refused("Elixir is not loaded there: write it in Erlang".to_owned()),
    };
    let language = match language {
        Language::Auto => pb::EvaluationLanguage::Auto,
        Language::Erlang => pb::EvaluationLanguage::Erlang,
        Language::Elixir => pb::EvaluationLanguage::Elixir,
    };
    pb::Evaluated { outcome: Some(outcome), language: language.into(), printed, printed_bytes, took_ms }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::sync::watch;

    use super::*;
    use crate::dist::connection::Lost;
    use crate::dist::link::Reason;
    use crate::supervisor::slot::node::Said as OfNode;

    fn id() -> SlotId {
        SlotId { app: "shop".parse().unwrap(), slot: Slot::new(1).unwrap() }
    }

    fn wish() -> pb::Evaluate {
        let (app, expression) = ("shop".to_owned(), "1 + 1".to_owned());
        pb::Evaluate { app, slot: 1, expression, ..Default::default() }
    }

    fn refusal(nodes: &Nodes, wish: pb::Evaluate) -> String {
        nodes.evaluate(wish).err().unwrap()
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused_with_the_reason_that_is_known() {
        let nodes = Nodes::default();
        assert_eq!(refusal(&nodes, wish()), "nothing runs in slot 1 of shop on this node");
        assert!(refusal(&nodes, pb::Evaluate { app: "../x".to_owned(), ..wish() }).contains("name"));
        let empty = pb::Evaluate { expression: String::new(), ..wish() };
        assert_eq!(refusal(&nodes, empty), "there is no expression");

        let (stands, standing) = watch::channel(Standing::Dialling);
        let (says, said) = watch::channel(OfNode::default());
        let _listed = nodes.list(id(), Ticket(1), NodeEnd { standing, said });
        assert!(refusal(&nodes, wish()).contains("not connected to its Erlang node yet"));
        let no_cookie = pb::ErlangNode { because: "without a cookie".to_owned(), ..Default::default() };
        says.send_modify(|said| said.node = Some(no_cookie));
        assert_eq!(
            refusal(&nodes, wish()),
            "the agent is not connected to its Erlang node: without a cookie"
        );
        stands.send_replace(Standing::Without(Reason::Lost(Lost::ClosedByPeer)));
        assert!(refusal(&nodes, wish()).ends_with("the node closed the connection"));
        stands.send_replace(Standing::Dialling);
        says.send_modify(|said| said.node = None);
        drop(stands);
        assert!(refusal(&nodes, wish()).contains("distribution is off"));
    }

    #[test]
    fn the_end_of_one_process_takes_nothing_from_the_next() {
        let nodes = Nodes::default();
        let end = || NodeEnd {
            standing: watch::channel(Standing::Dialling).1,
            said: watch::channel(OfNode::default()).1,
        };
        let first = nodes.list(id(), Ticket(1), end());
        let second = nodes.list(id(), Ticket(2), end());
        drop(first);
        assert_eq!(nodes.lock().len(), 1);
        drop(second);
        assert!(nodes.lock().is_empty());
    }

    #[test]
    fn a_node_that_does_not_answer_is_told_apart_from_an_expression_that_takes_too_long() {
        let late = told(Err(AskError::Call(CallError::TimedOut(Duration::from_secs(3)))), 3_000);
        assert_eq!(late.outcome, Some(Said::Silent(true)));
        let evaluation = Evaluation {
            outcome: Outcome::TimedOut,
            language: Language::Erlang,
            printed: "so far".to_owned(),
            printed_bytes: 6,
        };
        let over = told(Ok(evaluation), 1_000);
        assert_eq!((over.outcome, over.printed.as_str()), (Some(Said::TimedOut(true)), "so far"));
        let lost = Lost::Failed(io::Error::other("cable").to_string());
        let lost = told(Err(AskError::Call(CallError::Lost(lost))), 1);
        assert!(matches!(lost.outcome, Some(Said::Unknown(why)) if why.contains("cable")));
    }
}
