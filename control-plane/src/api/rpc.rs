//! An expression, evaluated by the Erlang node of one replica for somebody who may reach into it.
//!
//! That it was asked for is recorded before it begins, and what became of it after its end, also where whoever asked has gone:
//! then it is ended on the node as well. The answer may take minutes; until it is there an empty line now and then says that
//! it is waited for, which in JSON means nothing.

use std::io;
use std::pin::pin;
use std::time::Duration;

use async_stream::stream;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use futures_util::Stream;
use proto::evaluations::{
    DEFAULT_TIMEOUT_MS, Evaluation, LONGEST_EXPRESSION, LONGEST_TIMEOUT_MS, NewEvaluation, Outcome, Spoken,
};
use proto::ids::{AppName, NodeId, NodeName, Slot};
use proto::pb;
use proto::pb::evaluated::Outcome as Said;
use proto::problem::{Code, Problem};
use proto::state::{Language, Liveness, Severity};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::auth::principal::Principal;
use crate::db::NewEvent;
use crate::error::{ApiError, ApiResult, chain};
use crate::fleet::Place;
use crate::http::input::{Input, Path};
use crate::picture::StreamError;

/// NGINX gives up after 60 s where nobody says otherwise; other proxies after 30 s.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Beyond the expression's own time: there, a node that stands, and back.
const GRACE: Duration = Duration::from_secs(20);

/// Of an expression in a record, in characters, and in its sentence.
const RECORDED: usize = 2_000;
const IN_A_SENTENCE: usize = 160;

#[utoipa::path(post, path = "/api/v1/replicas/{node}/{app}/{slot}/rpc", tag = "replicas",
    params(("node" = NodeName, Path), ("app" = AppName, Path), ("slot" = Slot, Path)), request_body = NewEvaluation,
    responses((status = 200, description = "What came of it; white space before it while it is waited for.", body = Evaluation),
        (status = 409, description = "It cannot be evaluated there now: why.", body = Problem),
        (status = 503, description = "`node-not-connected`, or too much is going on there.", body = Problem)))]
pub(super) async fn evaluate(
    State(api): State<Api>,
    principal: Principal,
    Path((node, app, slot)): Path<(NodeName, AppName, Slot)>,
    Input(wish): Input<NewEvaluation>,
) -> ApiResult<([(HeaderName, &'static str); 1], Body)> {
    let asked = Asked::new(&api, principal, (node, app, slot), wish).await?;
    let (begun, begins) = oneshot::channel();
    let (over, ends) = oneshot::channel();
    // With the caller's request ends what is done for it, and with everything else it does as well.
    let cancel = api.cancel.child_token();
    let gone = cancel.clone().drop_guard();
    api.tasks.spawn(run(api.clone(), asked, (begun, over), cancel));
    let lost = || ApiError::new(Code::NotReady, "the control plane is stopping");
    begins.await.map_err(|_| lost())??;
    let body = told(async move {
        let answer = ends.await;
        drop(gone);
        answer.ok()
    });
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(body)))
}

/// Who asks for what of whom.
struct Asked {
    by: String,
    place: Place,
    node: NodeName,
    app: AppName,
    expression: String,
    language: Option<Spoken>,
    timeout: Duration,
}

impl Asked {
    async fn new(
        api: &Api,
        principal: Principal,
        (name, app, slot): (NodeName, AppName, Slot),
        wish: NewEvaluation,
    ) -> ApiResult<Self> {
        let NewEvaluation { expression, language, timeout_ms } = wish;
        if expression.trim().is_empty() {
            return Err(ApiError::invalid("expression", "is empty"));
        }
        if expression.len() > LONGEST_EXPRESSION {
            let what = format!("has {} bytes, of which {LONGEST_EXPRESSION} are taken", expression.len());
            return Err(ApiError::invalid("expression", what));
        }
        let timeout_ms = timeout_ms.unwrap_or(DEFAULT_TIMEOUT_MS);
        if !(1..=LONGEST_TIMEOUT_MS).contains(&timeout_ms) {
            return Err(ApiError::invalid("timeout_ms", format!("is from 1 to {LONGEST_TIMEOUT_MS}")));
        }
        let picture = api.picture().await?;
        let node = picture.node_by_name(&name).ok_or_else(|| ApiError::not_found("node", &name))?;
        let known = picture.apps.get(&app).ok_or_else(|| ApiError::not_found("application", &app))?;
        let place = Place { node: node.node.id, slot };
        if !picture.places(&known.fleet).iter().any(|(_, it)| *it == place) {
            return Err(ApiError::not_found("replica", format!("slot {slot} of {app} on {name}")));
        }
        if node.sight.liveness == Liveness::Lost {
            let detail = format!("{name} is not connected: nothing can be evaluated there");
            return Err(ApiError::new(Code::NodeNotConnected, detail));
        }
        let is_gleam = known.fleet.spec.as_ref().is_some_and(|it| it.language == Language::Gleam);
        let language = language.or(is_gleam.then_some(Spoken::Erlang));
        let timeout = Duration::from_millis(timeout_ms);
        Ok(Self { by: principal.name, place, node: name, app, expression, language, timeout })
    }

    /// For everybody who may read events, and for the audit.
    async fn record_request(&self, api: &Api) -> ApiResult<()> {
        let text = format!("{} evaluates on {}: {}", self.by, self.scope(), self.in_short());
        let event = self.event(api, "evaluation_requested", Severity::Info, text);
        let object = format!("{}/{}/{}", self.node, self.app, self.place.slot);
        let audit = api.audit(&self.by, "replica.rpc", &object, &cut(&self.expression, RECORDED));
        Ok(api.db.record_request(event, &audit).await?)
    }

    async fn record_outcome(&self, api: &Api, outcome: &Outcome, took_ms: u64) {
        let mut event =
            self.event(api, "evaluation_finished", severity(outcome), self.ended(outcome, took_ms));
        event.data.insert("outcome".to_owned(), outcome.word().into());
        event.data.insert("took_ms".to_owned(), took_ms.into());
        if let Err(error) = api.db.record_events(&[event]).await {
            tracing::error!(
                by = self.by,
                scope = self.scope(),
                outcome = outcome.word(),
                took_ms,
                error = chain(&error),
                "what came of an evaluation is not recorded"
            );
        }
    }

    /// A sentence.
    fn ended(&self, outcome: &Outcome, took_ms: u64) -> String {
        let what = match outcome {
            Outcome::Value { .. } => "gave a value".to_owned(),
            Outcome::Raised { class, .. } if class == "syntax" => "could not be read".to_owned(),
            Outcome::Raised { class, message, .. } => {
                format!("failed with {class}: {}", one_line(message, IN_A_SENTENCE))
            }
            Outcome::TimedOut => "took too long and was ended".to_owned(),
            Outcome::NoAnswer => "was not answered: the Erlang node says nothing".to_owned(),
            Outcome::Unknown { because } => {
                format!("has no known outcome: {}", one_line(because, IN_A_SENTENCE))
            }
            Outcome::Refused { because } => {
                format!("was not evaluated: {}", one_line(because, IN_A_SENTENCE))
            }
        };
        let (by, scope, short) = (&self.by, self.scope(), self.in_short());
        format!("what {by} asked of {scope} {what}, after {took_ms} ms: {short}")
    }

    fn event(&self, api: &Api, kind: &str, severity: Severity, text: String) -> NewEvent {
        let mut event = api.asked(&self.by, kind, severity, text);
        event.app = Some(self.app.clone());
        event.node = Some(self.place.node);
        event.slot = Some(self.place.slot);
        event.data.insert("expression".to_owned(), Value::from(cut(&self.expression, RECORDED)));
        event
    }

    fn scope(&self) -> String {
        format!("slot {} of {} on {}", self.place.slot, self.app, self.node)
    }

    fn in_short(&self) -> String {
        one_line(&self.expression, IN_A_SENTENCE)
    }

    fn message(&self) -> (NodeId, pb::Evaluate) {
        let language = match self.language {
            None => pb::EvaluationLanguage::Auto,
            Some(Spoken::Erlang) => pb::EvaluationLanguage::Erlang,
            Some(Spoken::Elixir) => pb::EvaluationLanguage::Elixir,
        };
        let what = pb::Evaluate {
            app: self.app.to_string(),
            slot: u32::from(self.place.slot.number()),
            expression: self.expression.clone(),
            language: language.into(),
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        };
        (self.place.node, what)
    }

    fn answer(&self, evaluated: pb::Evaluated) -> Evaluation {
        let pb::Evaluated { printed, printed_bytes, took_ms, .. } = &evaluated;
        let held = u64::try_from(printed.len()).unwrap_or(u64::MAX);
        let language = match evaluated.language() {
            pb::EvaluationLanguage::Auto => None,
            pb::EvaluationLanguage::Erlang => Some(Spoken::Erlang),
            pb::EvaluationLanguage::Elixir => Some(Spoken::Elixir),
        };
        let (printed_dropped, took_ms) = (printed_bytes.saturating_sub(held), *took_ms);
        let outcome = outcome(evaluated.outcome);
        let printed = evaluated.printed;
        Evaluation { printed, printed_dropped, language, ..self.without(outcome, took_ms) }
    }

    fn without(&self, outcome: Outcome, took_ms: u64) -> Evaluation {
        Evaluation {
            application: self.app.clone(),
            node: self.node.clone(),
            slot: self.place.slot,
            outcome,
            language: None,
            printed: String::new(),
            printed_dropped: 0,
            took_ms,
        }
    }
}

type Begun = oneshot::Sender<ApiResult<()>>;

/// From its record to its end, which is recorded as well, whoever still waits for it.
async fn run(api: Api, asked: Asked, tell: (Begun, oneshot::Sender<Evaluation>), cancel: CancellationToken) {
    let (begun, over) = tell;
    if let Err(error) = asked.record_request(&api).await {
        drop(begun.send(Err(error)));
        return;
    }
    let began = api.clock.now();
    let (node, what) = asked.message();
    let mut begun = Some(begun);
    let work = async {
        let answer = match api.backend.evaluate(node, what).await {
            Ok(answer) => answer,
            Err(error) => {
                let outcome = Outcome::Refused { because: error.to_string() };
                return Err((refused(&asked.node, error), outcome));
            }
        };
        // Whoever asked may have gone, which is seen elsewhere.
        drop(begun.take().map(|begun| begun.send(Ok(()))));
        Ok(match timeout(asked.timeout + GRACE, answer).await {
            Ok(Ok(evaluated)) => Ok(asked.answer(evaluated)),
            Ok(Err(because)) => Err(Outcome::Unknown { because }),
            Err(_) => Err(Outcome::Unknown { because: "the node's agent does not answer".to_owned() }),
        })
    };
    let done = tokio::select! {
        biased; // what is there already is told, also where everything stops
        done = work => done,
        () = cancel.cancelled() => {
            let because = if api.cancel.is_cancelled() {
                "the control plane was stopped, and it was ended on the node"
            } else {
                "whoever asked has gone, and it was ended on the node"
            };
            Ok(Err(Outcome::Unknown { because: because.to_owned() }))
        }
    };
    let took_ms = api.clock.now().since(began);
    match done {
        Err((error, outcome)) => {
            asked.record_outcome(&api, &outcome, took_ms).await;
            drop(begun.take().map(|begun| begun.send(Err(error))));
        }
        Ok(done) => {
            let evaluation = done.unwrap_or_else(|outcome| asked.without(outcome, took_ms));
            asked.record_outcome(&api, &evaluation.outcome, took_ms).await;
            drop(over.send(evaluation));
        }
    }
}

/// The answer, once it is there. `None`: there will be none, and whoever reads sees one that breaks off.
fn told(
    answer: impl Future<Output = Option<Evaluation>> + Send,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream! {
        let mut answer = pin!(answer);
        let answer = loop {
            tokio::select! {
                biased; // an answer says more than that there is none yet
                answer = &mut answer => break answer,
                () = sleep(SIGN_OF_LIFE) => yield Ok(Bytes::from_static(b"\n")),
            }
        };
        yield match answer {
            Some(answer) => serde_json::to_vec(&answer).map(Bytes::from).map_err(io::Error::other),
            None => Err(io::Error::other("the evaluation broke off")),
        };
    }
}

fn refused(node: &NodeName, error: StreamError) -> ApiError {
    let detail = format!("{node}: {error}");
    match error {
        StreamError::NotConnected => ApiError::new(Code::NodeNotConnected, detail),
        StreamError::TimedOut => ApiError::new(Code::TimedOut, detail),
        StreamError::TooMany => ApiError::new(Code::TooBusy, detail),
        StreamError::Refused(_) => ApiError::new(Code::Conflict, detail),
    }
}

fn outcome(said: Option<Said>) -> Outcome {
    match said {
        Some(Said::Value(pb::EvaluatedValue { text, cut })) => Outcome::Value { value: text, cut },
        Some(Said::Raised(pb::EvaluatedException { class, message, stacktrace, cut })) => {
            Outcome::Raised { class, message, stacktrace, cut }
        }
        Some(Said::TimedOut(_)) => Outcome::TimedOut,
        Some(Said::Silent(_)) => Outcome::NoAnswer,
        Some(Said::Unknown(because)) => Outcome::Unknown { because },
        Some(Said::Refused(because)) => Outcome::Refused { because },
        None => Outcome::Unknown { because: "the node answered something else".to_owned() },
    }
}

/// A mistake in an expression is nobody's trouble but of who wrote it.
fn severity(outcome: &Outcome) -> Severity {
    match outcome {
        Outcome::Value { .. } | Outcome::Raised { .. } | Outcome::Refused { .. } => Severity::Info,
        Outcome::TimedOut | Outcome::NoAnswer | Outcome::Unknown { .. } => Severity::Warning,
    }
}

fn one_line(text: &str, most: usize) -> String {
    let words = text.split(|it: char| it.is_whitespace() || it.is_control()).filter(|it| !it.is_empty());
    cut(&words.collect::<Vec<_>>().join(" "), most)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
