//! The figures of one moment: memory, what there is of everything that is limited, queues, and what has been done so far.
//!
//! All of it are counters that the runtime system keeps anyway: some 100 microseconds of one scheduler, most of them for the
//! memory, about which its schedulers ask each other. `statistics(reductions)` remembers when it was asked last, for whoever
//! wants the difference; we take the total, and so should others.

use super::{AskError, Question, ask, number};
use crate::dist::connection::Connection;
use crate::dist::term::Term;

/// Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    pub memory: Memory,
    pub processes: u64,
    pub ports: u64,
    pub atoms: u64,
    pub ets_tables: u64,
    /// What is ready to run and waits, in each queue.
    pub run_queues: Vec<u64>,
    /// Since it started, as all below.
    pub reductions: u64,
    pub collections: u64,
    pub reclaimed_words: u64,
    pub input: u64,
    pub output: u64,
}

/// `erlang:memory/0`. `total` is `processes` and `system`; the others are parts of `system`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub processes: u64,
    pub system: u64,
    pub atom: u64,
    pub binary: u64,
    pub code: u64,
    pub ets: u64,
}

fn questions() -> Vec<Question> {
    let count = |what| ("erlang", "system_info", vec![Term::atom(what)]);
    let statistics = |what| ("erlang", "statistics", vec![Term::atom(what)]);
    vec![
        ("erlang", "memory", Vec::new()),
        count("process_count"),
        count("port_count"),
        count("atom_count"),
        count("ets_count"),
        statistics("run_queue_lengths_all"),
        statistics("reductions"),
        statistics("garbage_collection"),
        statistics("io"),
    ]
}

/// One call.
///
/// # Errors
/// Where the node does not answer, or not what was asked.
pub async fn look(connection: &Connection) -> Result<Vitals, AskError> {
    read(&ask(connection, questions()).await?)
}

fn read(answers: &[Term]) -> Result<Vitals, AskError> {
    let [memory, processes, ports, atoms, ets, queues, reductions, collections, io] = answers else {
        return Err(AskError::Odd(format!("{} answers", answers.len())));
    };
    let kind = |name| number(memory.get(name));
    let element = |of: &Term, at: usize| number(of.as_tuple().and_then(|it| it.get(at)));
    // {{input, Bytes}, {output, Bytes}}
    let direction = |at: usize| {
        let pair = io.as_tuple().and_then(|it| it.get(at)).and_then(Term::as_tuple);
        number(pair.and_then(|it| it.get(1)))
    };
    Ok(Vitals {
        memory: Memory {
            total: kind("total")?,
            processes: kind("processes")?,
            system: kind("system")?,
            atom: kind("atom")?,
            binary: kind("binary")?,
            code: kind("code")?,
            ets: kind("ets")?,
        },
        processes: number(Some(processes))?,
        ports: number(Some(ports))?,
        atoms: number(Some(atoms))?,
        ets_tables: number(Some(ets))?,
        run_queues: queues
            .as_list()
            .unwrap_or_default()
            .iter()
            .map(|it| number(Some(it)))
            .collect::<Result<_, _>>()?,
        reductions: element(reductions, 0)?,
        collections: element(collections, 0)?,
        reclaimed_words: element(collections, 1)?,
        input: direction(0)?,
        output: direction(1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &'static str, number: i64) -> Term {
        Term::Tuple(vec![Term::atom(name), Term::Integer(number)])
    }

    /// As OTP 25 answers.
    fn answers() -> Vec<Term> {
        let memory = ["total", "processes", "system", "atom", "binary", "code", "ets"];
        let memory = memory.into_iter().zip(1..).map(|(name, number)| pair(name, number)).collect();
        vec![
            Term::List(memory),
            Term::Integer(50),
            Term::Integer(3),
            Term::Integer(9_600),
            Term::Integer(20),
            Term::List(vec![Term::Integer(2), Term::Integer(0), Term::Integer(5)]),
            Term::Tuple(vec![Term::Integer(476_729_935), Term::Integer(278_312)]),
            Term::Tuple(vec![Term::Integer(2_173), Term::Integer(116_713_039), Term::Integer(0)]),
            Term::Tuple(vec![pair("input", 20), pair("output", 1_891)]),
        ]
    }

    #[test]
    fn every_answer_is_read_and_there_is_one_for_each_question() {
        assert_eq!(questions().len(), answers().len());
        let expected = Vitals {
            memory: Memory { total: 1, processes: 2, system: 3, atom: 4, binary: 5, code: 6, ets: 7 },
            processes: 50,
            ports: 3,
            atoms: 9_600,
            ets_tables: 20,
            run_queues: vec![2, 0, 5],
            reductions: 476_729_935,
            collections: 2_173,
            reclaimed_words: 116_713_039,
            input: 20,
            output: 1_891,
        };
        assert_eq!(read(&answers()), Ok(expected));
    }

    #[test]
    fn an_answer_that_is_something_else_is_a_fault_and_none_is_made_up() {
        for at in 0..answers().len() {
            let mut odd = answers();
            odd[at] = if at == 5 { Term::List(vec![Term::atom("odd")]) } else { Term::atom("odd") };
            assert!(matches!(read(&odd), Err(AskError::Odd(_))), "{at}");
        }
        assert!(read(&answers()[1..]).is_err());
    }
}
