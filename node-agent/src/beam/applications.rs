//! Which OTP applications of a running system are started.

use std::time::Duration;

use super::AskError;
use crate::dist::connection::Connection;
use crate::dist::term::Term;

/// Whether this one is. One call, which asks the system's application controller: it has nothing to do with what the
/// applications themselves are busy with.
///
/// # Errors
/// Where the node does not answer within `patience`, or not what was asked.
pub async fn is_started(
    connection: &Connection,
    application: &str,
    patience: Duration,
) -> Result<bool, AskError> {
    let within = i64::try_from(patience.as_millis()).unwrap_or(i64::MAX);
    let all =
        connection.call("application", "which_applications", vec![Term::Integer(within)], patience).await?;
    holds(&all, application).ok_or_else(|| AskError::Odd(all.brief().to_string()))
}

/// Of `[{Application, Description, Version}]`. `None`: it is no such list.
fn holds(all: &Term, application: &str) -> Option<bool> {
    let name = |entry: &Term| match entry.as_tuple()? {
        [name, _, _] => name.as_atom().map(|it| it == application),
        _ => None,
    };
    let named: Option<Vec<bool>> = all.as_list()?.iter().map(name).collect();
    Some(named?.contains(&true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_started_where_it_is_in_the_list() {
        let entry = |name| Term::Tuple(vec![Term::atom(name), Term::default(), Term::default()]);
        let all = Term::List(vec![entry("shop"), entry("kernel")]);
        assert_eq!(
            [holds(&all, "shop"), holds(&all, "sho"), holds(&all, "")],
            [Some(true), Some(false), Some(false)]
        );
        assert_eq!(holds(&Term::List(vec![entry("shop"), Term::atom("odd")]), "shop"), None);
        assert_eq!(holds(&Term::atom("odd"), "shop"), None);
    }
}
