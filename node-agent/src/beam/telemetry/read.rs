//! What `deployex_telemetry:turn/4` answers, read. Pure.

use std::collections::BTreeMap;

use proto::telemetry::BOUNDS_US;

use super::Turn;
use crate::dist::term::Term;

pub(super) const NO_LIBRARY: &str = "telemetry is not in this release";
const NOT_STARTED: &str = "telemetry has not been started there";

/// As it stands now: all of it grows from when it began to be counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    pub up_ms: u64,
    /// Events that the handler could make nothing of.
    pub failures: u64,
    /// What was wished for and no code of the node names.
    pub unknown: Vec<String>,
    pub has_repositories: bool,
    pub rows: Vec<Row>,
    pub values: Vec<Value>,
}

/// One event with its labels; an empty label is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub event: String,
    pub route: String,
    pub source: String,
    /// 2 is 2xx; 0: none.
    pub status: u32,
    pub count: u64,
    pub sum_us: u64,
    pub max_us: u64,
    /// How many were in each of them, the last without a bound. Empty: it says nothing of how long it took.
    pub buckets: Vec<u64>,
}

/// What was measured last, of an event that does not say how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    pub event: String,
    pub measurement: String,
    pub value: f64,
}

/// `None`: it is something else.
pub(super) fn turn(answer: &Term) -> Option<Turn> {
    if let Some(word) = answer.as_atom() {
        return match word {
            "no_telemetry" => Some(Turn::Without(NO_LIBRARY.to_owned())),
            "not_started" => Some(Turn::Without(NOT_STARTED.to_owned())),
            _ => None,
        };
    }
    match answer.as_tuple()? {
        [tag, why] if tag.as_atom() == Some("failed") => {
            Some(Turn::Without(format!("it cannot be counted there: {}", text(why)?)))
        }
        [tag, up, failures, unknown, events, rows, values] if tag.as_atom() == Some("told") => {
            let events = events.as_list()?.iter().map(event).collect::<Option<BTreeMap<_, _>>>()?;
            let reading = Reading {
                up_ms: up.as_u64()?,
                failures: failures.as_u64()?,
                has_repositories: events.values().any(|(_, kind)| kind == "ecto"),
                unknown: unknown.as_list()?.iter().map(text).collect::<Option<_>>()?,
                rows: merged(rows.as_list()?.iter().map(|it| row(it, &events)).collect::<Option<_>>()?),
                values: values.as_list()?.iter().map(|it| value(it, &events)).collect::<Option<_>>()?,
            };
            Some(Turn::Told(reading))
        }
        _ => None,
    }
}

/// By its number, its name and what its labels are.
fn event(term: &Term) -> Option<(u64, (String, String))> {
    let [number, name, kind] = term.as_tuple()? else { return None };
    Some((number.as_u64()?, (text(name)?, kind.as_atom()?.to_owned())))
}

fn row(term: &Term, events: &BTreeMap<u64, (String, String)>) -> Option<Row> {
    let [number, label, status, count, sum_us, max_us, buckets] = term.as_tuple()? else { return None };
    let (event, kind) = events.get(&number.as_u64()?)?;
    let buckets = buckets.as_list()?.iter().map(Term::as_u64).collect::<Option<Vec<_>>>()?;
    if !(buckets.is_empty() || buckets.len() == BOUNDS_US.len() + 1) {
        return None;
    }
    let label = text(label)?;
    let (route, source) = match kind.as_str() {
        "ecto" => (String::new(), label),
        _ => (label, String::new()),
    };
    Some(Row {
        event: event.clone(),
        route,
        source,
        status: u32::try_from(status.as_u64()?).ok()?,
        count: count.as_u64()?,
        sum_us: sum_us.as_u64()?,
        max_us: max_us.as_u64()?,
        buckets,
    })
}

fn value(term: &Term, events: &BTreeMap<u64, (String, String)>) -> Option<Value> {
    let [number, measurement, value] = term.as_tuple()? else { return None };
    let (event, _) = events.get(&number.as_u64()?)?;
    #[expect(clippy::cast_precision_loss, reason = "the module tells none that is larger than 2^53")]
    let value = match value {
        Term::Float(it) => *it,
        Term::Integer(it) => *it as f64,
        _ => return None,
    };
    Some(Value { event: event.clone(), measurement: text(measurement)?, value })
}

/// Two labels may read the same: a table that is called `other`, or names that were cut within a character.
fn merged(rows: Vec<Row>) -> Vec<Row> {
    let mut by_label: BTreeMap<(String, String, String, u32), Row> = BTreeMap::new();
    for row in rows {
        let key = (row.event.clone(), row.route.clone(), row.source.clone(), row.status);
        let Some(known) = by_label.get_mut(&key) else {
            by_label.insert(key, row);
            continue;
        };
        known.count += row.count;
        known.sum_us += row.sum_us;
        known.max_us = known.max_us.max(row.max_us);
        match known.buckets.is_empty() {
            true => known.buckets = row.buckets,
            false => known.buckets.iter_mut().zip(row.buckets).for_each(|(all, more)| *all += more),
        }
    }
    by_label.into_values().collect()
}

/// What a program wrote: on one line, and as text whatever it is.
fn text(term: &Term) -> Option<String> {
    let text = match term {
        Term::Binary(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Term::Atom(atom) => atom.as_str().to_owned(),
        _ => return None,
    };
    Some(text.chars().filter(|it| !it.is_control()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(all: impl IntoIterator<Item = i64>) -> Vec<Term> {
        all.into_iter().map(Term::Integer).collect()
    }

    fn row_term(number: i64, label: Term, status: i64, buckets: Vec<Term>) -> Term {
        let mut row = vec![Term::Integer(number), label, Term::Integer(status)];
        row.extend(numbers([3, 1_500, 900]));
        row.push(Term::List(buckets));
        Term::Tuple(row)
    }

    fn told(rows: Vec<Term>) -> Term {
        let event = |number, name: &str, kind: &'static str| {
            Term::Tuple(vec![Term::Integer(number), Term::from(name), Term::atom(kind)])
        };
        let events = vec![
            event(1, "phoenix.endpoint.stop", "phoenix"),
            event(2, "shop.repo.query", "ecto"),
            event(3, "vm.memory", "plain"),
        ];
        let values = vec![
            Term::Tuple(vec![Term::Integer(3), Term::from("total"), Term::Integer(7)]),
            Term::Tuple(vec![Term::Integer(3), Term::from("share"), Term::Float(0.5)]),
        ];
        let unknown = Term::List(vec![Term::from("shop.nothing")]);
        Term::Tuple(vec![
            Term::atom("told"),
            Term::Integer(9_000),
            Term::Integer(1),
            unknown,
            Term::List(events),
            Term::List(rows),
            Term::List(values),
        ])
    }

    fn all_in_the_second() -> Vec<Term> {
        numbers((0..=BOUNDS_US.len()).map(|at| if at == 1 { 3 } else { 0 }))
    }

    fn reading(rows: Vec<Term>) -> Reading {
        match turn(&told(rows)) {
            Some(Turn::Told(reading)) => reading,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn labels_are_what_the_kind_of_the_event_makes_of_them() {
        let rows = vec![
            row_term(1, Term::from("/users"), 2, all_in_the_second()),
            row_term(1, Term::atom("other"), 0, all_in_the_second()),
            row_term(2, Term::from("orders"), 0, all_in_the_second()),
            row_term(3, Term::from(""), 0, Vec::new()),
        ];
        let reading = reading(rows);
        let labels: Vec<_> = reading
            .rows
            .iter()
            .map(|it| (it.event.as_str(), it.route.as_str(), it.source.as_str(), it.status, it.buckets.len()))
            .collect();
        assert_eq!(
            labels,
            [
                ("phoenix.endpoint.stop", "/users", "", 2, 13),
                ("phoenix.endpoint.stop", "other", "", 0, 13),
                ("shop.repo.query", "", "orders", 0, 13),
                ("vm.memory", "", "", 0, 0),
            ]
        );
        assert_eq!(
            (reading.up_ms, reading.failures, reading.unknown),
            (9_000, 1, vec!["shop.nothing".to_owned()])
        );
        let values: Vec<_> = reading.values.iter().map(|it| (it.measurement.as_str(), it.value)).collect();
        assert_eq!(values, [("total", 7.0), ("share", 0.5)]);
    }

    #[test]
    fn rows_whose_labels_read_the_same_are_one() {
        let orders = |label| row_term(2, label, 0, all_in_the_second());
        let rows = reading(vec![orders(Term::from("other")), orders(Term::atom("other"))]).rows;
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.count, row.sum_us, row.max_us, row.buckets[1]), (6, 3_000, 900, 6));
    }

    #[test]
    fn why_nothing_is_counted_is_a_sentence_and_what_is_odd_is_nothing() {
        let without = |answer| match turn(&answer) {
            Some(Turn::Without(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(without(Term::atom("no_telemetry")), "telemetry is not in this release");
        assert_eq!(without(Term::atom("not_started")), "telemetry has not been started there");
        let failed = Term::Tuple(vec![Term::atom("failed"), Term::from("error: badarg")]);
        assert_eq!(without(failed), "it cannot be counted there: error: badarg");
        assert_eq!(turn(&Term::atom("ok")), None);
        assert_eq!(turn(&told(vec![row_term(9, Term::from(""), 0, Vec::new())])), None, "of no event");
        assert_eq!(
            turn(&told(vec![row_term(1, Term::from(""), 0, numbers([1, 2]))])),
            None,
            "too few buckets"
        );
    }
}
