//! Evaluating an expression on a running system, with nothing of ours loaded there: a text of our own (`evaluator.erl`) is
//! parsed and evaluated by the node, and evaluates the expression in a process of its own.
//!
//! The node itself keeps to the time, caps what is written and collects what is printed; it ends the work as well where our
//! process there is ended (nobody waits any more) or the connection is gone. What it leaves behind are the atoms of our text,
//! once, and those of the expression; and what the expression itself began without a link to its process.

use std::time::Duration;

use proto::evaluations::LONGEST_EXPRESSION;
use tokio::time::Instant;

use super::{AskError, PATIENCE};
use crate::dist::connection::{CallError, Cap, Connection};
use crate::dist::term::{Atom, Limits, Term};

const EVALUATOR: &str = include_str!("evaluate/evaluator.erl");

/// Of a value as it is written, and of what is printed, in bytes each.
const MOST_SHOWN: i64 = 64 << 10;
/// Of a message and of a stack trace, in bytes each.
const MOST_EXPLAINED: i64 = 8 << 10;
/// Of the process that evaluates, and of ours that collects what is printed, in bytes of their heaps each. So much is not
/// shown to anybody, and a replica has enough for it beside its own work.
const MOST_MEMORY: i64 = 256 << 20;
/// For the whole answer: all of these, the expression, which comes back with it, and room for what is around them.
const LONGEST_ANSWER: usize = 256 << 10;

/// For what the node does beyond the expression's own time; it ends all of it a second after that by itself, with the outcome
/// as the reason where ours is too busy to take it.
const GRACE: Duration = Duration::from_secs(2);

/// What an expression is to be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Elixir where that is loaded, else Erlang.
    Auto,
    Erlang,
    Elixir,
}

impl Language {
    fn term(self) -> Term {
        Term::atom(match self {
            Self::Auto => "auto",
            Self::Erlang => "erlang",
            Self::Elixir => "elixir",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluation {
    pub outcome: Outcome,
    /// What the expression was read as; `Auto`: as nothing.
    pub language: Language,
    /// The first of what it printed.
    pub printed: String,
    /// All that it printed, in bytes.
    pub printed_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As its language writes it; `cut`: that is not all.
    Value { text: String, cut: bool },
    /// `class`: `error`, `exit`, `throw`, or `syntax` where it cannot be read.
    Raised { class: String, message: String, stacktrace: String, cut: bool },
    /// It was ended.
    TimedOut,
    /// It was to be read as Elixir, which is not there.
    NoElixir,
}

/// Within `patience`, from when the expression begins.
///
/// # Errors
/// Where the node does not answer, or not what was asked. Whoever stops waiting ends it there.
pub async fn evaluate(
    connection: &Connection,
    expression: &str,
    language: Language,
    patience: Duration,
) -> Result<Evaluation, AskError> {
    let forms = evaluator(connection).await?;
    let limits = Limits::default();
    let cap = Cap { longest: LONGEST_ANSWER, limits };
    let arguments = vec![forms, bindings(connection.us(), expression, language, patience)];
    let answer = match connection.call_within(cap, "erl_eval", "exprs", arguments, patience + GRACE).await {
        Err(CallError::Ended(reason)) => return ended(reason, language),
        answer => answer?,
    };
    let odd = || AskError::Odd(answer.brief().to_string());
    let [_, answered, _] = answer.as_tuple().ok_or_else(odd)? else { return Err(odd()) };
    read(answered)
}

/// Our process there was ended before it could answer. What was printed went with it.
fn ended(reason: Term, language: Language) -> Result<Evaluation, AskError> {
    let outcome = match outcome_of(&reason) {
        Some(outcome) => outcome,
        None if reason.as_atom() == Some("killed") => Outcome::Raised {
            class: "exit".to_owned(),
            message: format!(
                "killed: something did it, or formatting what it prints took more than {} MiB of memory",
                MOST_MEMORY >> 20
            ),
            stacktrace: String::new(),
            cut: false,
        },
        None => return Err(CallError::Ended(reason).into()),
    };
    Ok(Evaluation { outcome, language, printed: String::new(), printed_bytes: 0 })
}

/// As the node's own parser has it.
async fn evaluator(connection: &Connection) -> Result<Term, AskError> {
    let until = Instant::now() + PATIENCE;
    let left = || until.saturating_duration_since(Instant::now());
    let text = EVALUATOR.chars().map(|it| Term::Integer(u32::from(it).into())).collect();
    let tokens = connection.call("erl_scan", "string", vec![Term::List(text)], left()).await?;
    let tokens = of_ok(tokens)?;
    of_ok(connection.call("erl_parse", "parse_exprs", vec![tokens], left()).await?)
}

/// `{ok, It, …}`
fn of_ok(answer: Term) -> Result<Term, AskError> {
    match answer.as_tuple() {
        Some([ok, it, ..]) if ok.as_atom() == Some("ok") => Ok(it.clone()),
        _ => Err(AskError::Odd(answer.brief().to_string())),
    }
}

/// In the order of their names, as `erl_eval` looks for them.
fn bindings(us: &Atom, expression: &str, language: Language, patience: Duration) -> Term {
    let patience = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
    let given = [
        ("Language", language.term()),
        ("MostExplained", Term::Integer(MOST_EXPLAINED)),
        ("MostMemory", Term::Integer(MOST_MEMORY)),
        ("MostPrinted", Term::Integer(MOST_SHOWN)),
        ("MostShown", Term::Integer(MOST_SHOWN)),
        ("Patience", Term::Integer(patience)),
        ("Text", Term::from(expression)),
        ("Us", Term::Atom(us.clone())),
    ];
    Term::List(given.map(|(name, value)| Term::Tuple(vec![Term::atom(name), value])).into())
}

/// `{Outcome, Language, Printed, PrintedBytes}`
fn read(answer: &Term) -> Result<Evaluation, AskError> {
    let odd = || AskError::Odd(answer.brief().to_string());
    let [outcome, language, printed, bytes] = answer.as_tuple().ok_or_else(odd)? else { return Err(odd()) };
    Ok(Evaluation {
        outcome: outcome_of(outcome).ok_or_else(odd)?,
        language: match language.as_atom() {
            Some("elixir") => Language::Elixir,
            Some("erlang") => Language::Erlang,
            _ => Language::Auto,
        },
        printed: text(printed).ok_or_else(odd)?,
        printed_bytes: bytes.as_u64().ok_or_else(odd)?,
    })
}

fn outcome_of(outcome: &Term) -> Option<Outcome> {
    match (outcome.as_atom(), outcome.as_tuple()) {
        (Some("late"), _) => Some(Outcome::TimedOut),
        (Some("no_elixir"), _) => Some(Outcome::NoElixir),
        (_, Some([tag, value, cut])) if tag.as_atom() == Some("value") => {
            Some(Outcome::Value { text: text(value)?, cut: is_true(cut) })
        }
        (_, Some([tag, class, message, stacktrace, cut])) if tag.as_atom() == Some("raised") => {
            Some(Outcome::Raised {
                class: class.as_atom()?.to_owned(),
                message: text(message)?,
                stacktrace: text(stacktrace)?,
                cut: is_true(cut),
            })
        }
        _ => None,
    }
}

fn is_true(it: &Term) -> bool {
    it.as_atom() == Some("true")
}

/// The node cuts by bytes: what is left of a character at the end is no character.
fn text(of: &Term) -> Option<String> {
    let Term::Binary(bytes) = of else { return None };
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    };
    Some(String::from_utf8_lossy(whole).into_owned())
}

/// Why an expression is not even sent.
pub fn unfit(expression: &str) -> Option<String> {
    match expression.len() {
        _ if expression.trim().is_empty() => Some("there is no expression".to_owned()),
        length if length > LONGEST_EXPRESSION => {
            Some(format!("the expression has {length} bytes, of which {LONGEST_EXPRESSION} are taken"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(outcome: Term, printed: &'static [u8]) -> Term {
        let printed = Term::Binary(bytes::Bytes::from_static(printed));
        Term::Tuple(vec![outcome, Term::atom("erlang"), printed, Term::Integer(9)])
    }

    #[test]
    fn each_outcome_is_read_and_a_cut_character_is_left_out() {
        let value = Term::Tuple(vec![Term::atom("value"), Term::from("2"), Term::atom("true")]);
        let read_value = read(&answer(value, "aä".as_bytes().get(..2).unwrap())).unwrap();
        assert_eq!(read_value.outcome, Outcome::Value { text: "2".to_owned(), cut: true });
        assert_eq!((read_value.printed.as_str(), read_value.printed_bytes), ("a", 9));
        assert_eq!(read_value.language, Language::Erlang);
        let texts = ["badarith", "erlang:'/'/2\n"].map(Term::from);
        let [message, stacktrace] = texts;
        let raised =
            vec![Term::atom("raised"), Term::atom("error"), message, stacktrace, Term::atom("false")];
        let raised = read(&answer(Term::Tuple(raised), b"")).unwrap().outcome;
        assert!(matches!(raised, Outcome::Raised { class, cut: false, .. } if class == "error"));
        assert_eq!(read(&answer(Term::atom("late"), b"")).unwrap().outcome, Outcome::TimedOut);
        assert_eq!(read(&answer(Term::atom("no_elixir"), b"")).unwrap().outcome, Outcome::NoElixir);
    }

    #[test]
    fn another_answer_is_a_fault() {
        let short = Term::Tuple(vec![Term::atom("value"), Term::from("2")]);
        for odd in [answer(short, b""), answer(Term::atom("gone"), b""), Term::atom("late")] {
            assert!(matches!(read(&odd), Err(AskError::Odd(_))), "{odd}");
        }
    }

    #[test]
    fn names_are_given_in_their_order_and_all_that_the_text_asks_for() {
        let line = EVALUATOR.lines().find_map(|it| it.strip_prefix("%% Given: ")).unwrap();
        let mut asked: Vec<&str> = line.trim_end_matches('.').split(", ").collect();
        asked.sort_unstable();
        let Term::List(given) = bindings(&Atom::of("us@host"), "1", Language::Auto, PATIENCE) else {
            panic!("no list")
        };
        let name = |it: &Term| it.as_tuple().unwrap()[0].as_atom().unwrap().to_owned();
        assert_eq!(given.iter().map(name).collect::<Vec<_>>(), asked);
    }

    #[test]
    fn the_outcome_is_also_what_our_process_was_ended_with() {
        let late = ended(Term::atom("late"), Language::Erlang).unwrap();
        assert_eq!((late.outcome, late.language), (Outcome::TimedOut, Language::Erlang));
        let killed = ended(Term::atom("killed"), Language::Auto).unwrap().outcome;
        assert!(matches!(killed, Outcome::Raised { message, .. } if message.contains("256 MiB")));
        let other = ended(Term::atom("gone"), Language::Auto).unwrap_err();
        assert_eq!(other, AskError::Call(CallError::Ended(Term::atom("gone"))));
    }

    #[test]
    fn an_expression_has_its_bounds() {
        assert_eq!(unfit("1 + 1"), None);
        assert_eq!(unfit(" \n"), Some("there is no expression".to_owned()));
        assert!(unfit(&"x".repeat(LONGEST_EXPRESSION)).is_none());
        assert!(unfit(&"x".repeat(LONGEST_EXPRESSION + 1)).unwrap().contains("16385 bytes"));
    }
}
