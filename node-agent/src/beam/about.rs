//! What a running system is: its versions, its limits, and since when it runs. Asked when it is met, and now and then again,
//! because an upgrade changes the application's version without a new start.

use super::{AskError, Question, ask, number};
use crate::dist::connection::Connection;
use crate::dist::term::Term;

/// No version is longer than this; what is, is cut.
const LONGEST_VERSION: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// `25`, and of its runtime system `13.1.5`.
    pub otp: String,
    pub erts: String,
    /// Of the applications that are loaded and of interest; empty: it is not.
    pub application: String,
    pub elixir: String,
    pub gleam_stdlib: String,
    pub phoenix: String,
    pub up_ms: u64,
    pub process_limit: u64,
    pub port_limit: u64,
    pub atom_limit: u64,
    pub ets_limit: u64,
    pub schedulers: u32,
    /// Bytes of a word.
    pub word: u64,
}

fn questions() -> Vec<Question> {
    let info = |what| ("erlang", "system_info", vec![Term::atom(what)]);
    vec![
        info("otp_release"),
        info("version"),
        // One application is asked for by its name, which would stay among the node's atoms where it is none.
        ("application", "loaded_applications", Vec::new()),
        info("process_limit"),
        info("port_limit"),
        info("atom_limit"),
        info("ets_limit"),
        info("schedulers_online"),
        info("wordsize"),
        // Not `statistics(wall_clock)`, which remembers that it was asked.
        info("start_time"),
        ("erlang", "monotonic_time", Vec::new()),
        ("erlang", "convert_time_unit", vec![Term::Integer(1), Term::atom("second"), Term::atom("native")]),
    ]
}

/// `application`: of which OTP application the version is wanted.
///
/// # Errors
/// Where the node does not answer, or not what was asked.
pub async fn look(connection: &Connection, application: &str) -> Result<About, AskError> {
    read(&ask(connection, questions()).await?, application)
}

fn read(answers: &[Term], application: &str) -> Result<About, AskError> {
    let [otp, erts, loaded, processes, ports, atoms, ets, schedulers, word, started, now, second] = answers
    else {
        return Err(AskError::Odd(format!("{} answers", answers.len())));
    };
    let text =
        |of: &Term| of.as_text().map(|it| cut(&it)).ok_or_else(|| AskError::Odd(of.brief().to_string()));
    let version = |name: &str| version(loaded, name).unwrap_or_default();
    Ok(About {
        otp: text(otp)?,
        erts: text(erts)?,
        application: version(application),
        elixir: version("elixir"),
        gleam_stdlib: version("gleam_stdlib"),
        phoenix: version("phoenix"),
        up_ms: up_ms(started, now, second)?,
        process_limit: number(Some(processes))?,
        port_limit: number(Some(ports))?,
        atom_limit: number(Some(atoms))?,
        ets_limit: number(Some(ets))?,
        schedulers: u32::try_from(number(Some(schedulers))?).unwrap_or(u32::MAX),
        word: number(Some(word))?,
    })
}

/// `[{Application, Description, Version}]`
fn version(loaded: &Term, name: &str) -> Option<String> {
    let of = |entry: &Term| match entry.as_tuple()? {
        [it, _, version] if it.as_atom() == Some(name) => version.as_text(),
        _ => None,
    };
    loaded.as_list()?.iter().find_map(of).map(|it| cut(&it))
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_VERSION)].to_owned()
}

/// Both times are mostly below zero.
fn up_ms(started: &Term, now: &Term, second: &Term) -> Result<u64, AskError> {
    let (Term::Integer(started), Term::Integer(now), Term::Integer(second @ 1..)) = (started, now, second)
    else {
        return Err(AskError::Odd(format!("{}, {}, {}", started.brief(), now.brief(), second.brief())));
    };
    let ms = (i128::from(*now) - i128::from(*started)) * 1_000 / i128::from(*second);
    Ok(u64::try_from(ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Term {
        Term::List(text.chars().map(|it| Term::Integer(u32::from(it).into())).collect())
    }

    fn loaded(name: &'static str, version: &str) -> Term {
        Term::Tuple(vec![Term::atom(name), text("about it"), text(version)])
    }

    fn answers() -> Vec<Term> {
        let mut answers = vec![
            text("25"),
            text("13.1.5"),
            Term::List(vec![loaded("kernel", "8.5.3"), loaded("shop", "0.1.0"), loaded("elixir", "1.14.0")]),
        ];
        answers.extend([1_048_576, 65_536, 1_048_577, 8_192, 2, 8].map(Term::Integer));
        answers
            .extend([-576_460_752_000_000_000, -576_460_744_734_056_543, 1_000_000_000].map(Term::Integer));
        answers
    }

    #[test]
    fn what_a_system_is_is_read_from_its_answers() {
        assert_eq!(questions().len(), answers().len());
        let expected = About {
            otp: "25".to_owned(),
            erts: "13.1.5".to_owned(),
            application: "0.1.0".to_owned(),
            elixir: "1.14.0".to_owned(),
            up_ms: 7_265,
            process_limit: 1_048_576,
            port_limit: 65_536,
            atom_limit: 1_048_577,
            ets_limit: 8_192,
            schedulers: 2,
            word: 8,
            ..About::default()
        };
        assert_eq!(read(&answers(), "shop"), Ok(expected));
    }

    #[test]
    fn an_application_that_is_not_there_has_no_version_and_an_odd_answer_is_a_fault() {
        assert_eq!(read(&answers(), "nobody").unwrap().application, "");
        for at in (0..answers().len()).filter(|at| *at != 2) {
            let mut odd = answers();
            odd[at] = Term::Tuple(Vec::new());
            assert!(matches!(read(&odd, "shop"), Err(AskError::Odd(_))), "{at}");
        }
        let mut long = answers();
        long[2] = Term::List(vec![loaded("shop", &"ä".repeat(100))]);
        assert_eq!(read(&long, "shop").unwrap().application, "ä".repeat(50));
    }
}
