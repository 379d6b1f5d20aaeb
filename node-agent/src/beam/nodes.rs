//! Which nodes a node is connected to, and that it connects to another: as any of its own processes would ask it to.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{AskError, PATIENCE};
use crate::dist::connection::Connection;
use crate::dist::term::{Atom, Term};

/// Erlang gives up after seven seconds (`net_setuptime`), and then answers.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Hidden ones included, who are connected as well as others.
///
/// # Errors
/// Where the node does not answer, or not what was asked.
pub async fn connected(connection: &Connection) -> Result<BTreeSet<String>, AskError> {
    let all = connection.call("erlang", "nodes", vec![Term::atom("connected")], PATIENCE).await?;
    names(&all).ok_or_else(|| AskError::Odd(all.brief().to_string()))
}

/// `None`: it is no list of names.
fn names(all: &Term) -> Option<BTreeSet<String>> {
    all.as_list()?.iter().map(|it| it.as_atom().map(str::to_owned)).collect()
}

/// Whether it is connected to that node now. The node keeps the name among its atoms for as long as it lives.
///
/// # Errors
/// Where the node does not answer, or the name is longer than one can be.
pub async fn connect(connection: &Connection, to: &str) -> Result<bool, AskError> {
    let name = Atom::new(to).map_err(|too_long| AskError::Odd(too_long.to_string()))?;
    let asked = vec![Term::Atom(name)];
    let answer = connection.call("net_kernel", "connect_node", asked, CONNECT_PATIENCE).await?;
    Ok(answer.as_atom() == Some("true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_list_of_names_or_a_fault() {
        let all = Term::List(vec![Term::atom("a@web"), Term::atom("b@web")]);
        assert_eq!(names(&all), Some(["a@web", "b@web"].map(str::to_owned).into()));
        assert_eq!(names(&Term::List(Vec::new())), Some(BTreeSet::new()));
        assert_eq!(names(&Term::List(vec![Term::Integer(1)])), None);
        assert_eq!(names(&Term::atom("ignored")), None);
    }
}
