//! What a running system says of itself, asked over the connection to its node. Knows nothing of replicas.
//!
//! Every question but one is one call, of functions that every release has: nothing is loaded into the node and no code of ours
//! runs there. The exceptions are asked for by somebody: what is to be evaluated (`evaluate`), and which of an application's events
//! are to be counted (`telemetry`). Functions that go through its processes are never asked, so that a look costs the same
//! however many there are.

pub mod about;
pub mod applications;
pub mod evaluate;
pub mod nodes;
pub mod schedulers;
pub mod telemetry;
pub mod thresholds;
pub mod vitals;
pub mod web;

use std::time::Duration;

use crate::dist::connection::{CallError, Connection};
use crate::dist::term::{Atom, Term};

/// An answer takes a millisecond. A node that needs longer than this does not answer, for whoever looks.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is nothing to be told.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it answered something else than was asked: {0}")]
    Odd(String),
}

/// A function of the node, and its arguments.
type Question = (&'static str, &'static str, Vec<Term>);

/// The answers to all of these, in their order, in one call and in one process: a list of modules, one of functions and one of
/// lists of arguments, put together by `erlang:apply/3`. That needs no evaluator, and no name that the node does not know.
async fn ask(connection: &Connection, questions: Vec<Question>) -> Result<Vec<Term>, AskError> {
    let count = questions.len();
    let (mut modules, mut functions, mut arguments) = (Vec::new(), Vec::new(), Vec::new());
    for (module, function, of) in questions {
        modules.push(Term::atom(module));
        functions.push(Term::atom(function));
        arguments.push(Term::List(of));
    }
    let apply = Term::Export { module: Atom::of("erlang"), function: Atom::of("apply"), arity: 3 };
    let lists = [modules, functions, arguments].map(Term::List);
    let all = std::iter::once(apply).chain(lists).collect();
    match connection.call("lists", "zipwith3", all, PATIENCE).await? {
        Term::List(answers) if answers.len() == count => Ok(answers),
        other => Err(AskError::Odd(other.brief().to_string())),
    }
}

/// A whole number, where one is expected.
fn number(answer: Option<&Term>) -> Result<u64, AskError> {
    let said = || AskError::Odd(answer.map_or_else(|| "nothing".to_owned(), |it| it.brief().to_string()));
    answer.and_then(Term::as_u64).ok_or_else(said)
}
