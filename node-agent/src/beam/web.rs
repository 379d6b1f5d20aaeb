//! Where the web applications of a running system say that they are reached: the `url/0` of each Phoenix endpoint.
//!
//! Asked by names that the node itself has told, so that none is added to its atoms. What an endpoint listens on is not asked:
//! that is between it and whoever stands before it.

use std::time::Duration;

use tokio::time::Instant;

use super::{AskError, Question, ask};
use crate::dist::connection::{CallError, Connection};
use crate::dist::term::{Atom, Term};

/// Applications of which it is asked what they use; a release has some fifty.
const MOST_APPLICATIONS: usize = 500;
/// Of these, such as use Phoenix: many libraries do, too.
const MOST_ON_PHOENIX: usize = 100;
/// An umbrella has a few.
const MOST_ENDPOINTS: usize = 8;
const LONGEST_URL: usize = 300;
/// `mix phx.new` calls the module so, below the application's own name.
const ENDPOINT: &str = ".Endpoint";
/// What `use Phoenix.Endpoint` makes of a module, so that no other of that name is run.
const EXPORTS: [(&str, i64); 3] = [("url", 0), ("struct_url", 0), ("static_path", 1)];

/// For one endpoint, which has its address at hand, and for all of them: figures wait meanwhile.
const EACH_WITHIN: Duration = Duration::from_secs(1);
const ALL_WITHIN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The OTP application it belongs to.
    pub application: String,
    /// `https://shop.example.com`
    pub url: String,
}

/// Every endpoint that runs, by its application. Four calls, and one for each endpoint.
///
/// # Errors
/// Where the node does not answer, or not what was asked. An endpoint that does not run is no error.
pub async fn look(connection: &Connection) -> Result<Vec<Endpoint>, AskError> {
    let loaded = ask(connection, vec![("application", "loaded_applications", Vec::new())]).await?;
    let names = names(loaded.first());
    let uses = keys(connection, &names, "applications").await?;
    let on_phoenix = |(name, uses): (&Atom, Vec<Atom>)| {
        uses.iter().any(|it| it.as_str() == "phoenix").then(|| name.clone())
    };
    let served: Vec<Atom> = names.iter().zip(uses).filter_map(on_phoenix).take(MOST_ON_PHOENIX).collect();
    let modules = keys(connection, &served, "modules").await?;
    let candidates = candidates(&served, modules);
    let exports = |(_, module): &(Atom, Atom)| {
        let module = Term::Atom(module.clone());
        EXPORTS.map(|(name, arity)| -> Question {
            ("erlang", "function_exported", vec![module.clone(), Term::atom(name), Term::Integer(arity)])
        })
    };
    let exported = ask_some(connection, candidates.iter().flat_map(exports).collect()).await?;
    let mut endpoints = Vec::new();
    let until = Instant::now() + ALL_WITHIN;
    for ((application, module), exported) in candidates.into_iter().zip(exported.chunks(EXPORTS.len())) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        if exported.iter().any(|it| it.as_atom() != Some("true")) {
            continue;
        }
        let call = vec![Term::Atom(module), Term::atom("url"), Term::List(Vec::new())];
        match connection.call("erlang", "apply", call, EACH_WITHIN.min(left)).await {
            Ok(url) => {
                let url = url.as_text().filter(|it| is_url(it));
                let application = application.as_str().to_owned();
                endpoints.extend(url.map(|url| Endpoint { application, url }));
            }
            Err(CallError::Lost(why)) => return Err(CallError::Lost(why).into()),
            // One that is not started raises; whatever is wrong with one, others have an address.
            Err(_) => {}
        }
    }
    endpoints.sort_by(|a, b| (&a.application, &a.url).cmp(&(&b.application, &b.url)));
    endpoints.dedup();
    Ok(endpoints)
}

/// Nothing is asked where there is nothing to ask.
async fn ask_some(connection: &Connection, questions: Vec<Question>) -> Result<Vec<Term>, AskError> {
    if questions.is_empty() { Ok(Vec::new()) } else { ask(connection, questions).await }
}

/// A key that holds atoms, of each of these applications.
async fn keys(connection: &Connection, of: &[Atom], key: &'static str) -> Result<Vec<Vec<Atom>>, AskError> {
    let question =
        |it: &Atom| -> Question { ("application", "get_key", vec![Term::Atom(it.clone()), Term::atom(key)]) };
    let answers = ask_some(connection, of.iter().map(question).collect()).await?;
    Ok(answers.iter().map(atoms).collect())
}

/// `{ok, [Atom]}`, else nothing.
fn atoms(answer: &Term) -> Vec<Atom> {
    let list = match answer.as_tuple() {
        Some([ok, list]) if ok.as_atom() == Some("ok") => list.as_list().unwrap_or_default(),
        _ => &[],
    };
    list.iter().filter_map(atom).collect()
}

fn atom(term: &Term) -> Option<Atom> {
    match term {
        Term::Atom(atom) => Some(atom.clone()),
        _ => None,
    }
}

/// Of `[{Application, Description, Version}]`. Empty where Phoenix is not among them: then nothing more needs to be asked.
fn names(loaded: Option<&Term>) -> Vec<Atom> {
    let entries = loaded.and_then(Term::as_list).unwrap_or_default();
    let names: Vec<Atom> = entries.iter().filter_map(|it| atom(it.as_tuple()?.first()?)).collect();
    if !names.iter().any(|it| it.as_str() == "phoenix") {
        return Vec::new();
    }
    names.into_iter().take(MOST_APPLICATIONS).collect()
}

/// Modules that are called as endpoints are, each with its application.
fn candidates(applications: &[Atom], modules: Vec<Vec<Atom>>) -> Vec<(Atom, Atom)> {
    let of = |(application, modules): (&Atom, Vec<Atom>)| {
        let application = application.clone();
        modules
            .into_iter()
            .filter(|it| it.as_str().starts_with("Elixir.") && it.as_str().ends_with(ENDPOINT))
            .map(move |module| (application.clone(), module))
    };
    applications.iter().zip(modules).flat_map(of).take(MOST_ENDPOINTS).collect()
}

/// What a browser may be sent to, and nothing with a password in it: an application says what it likes.
fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    rest.is_some_and(|it| !it.is_empty() && !it.starts_with('/'))
        && text.len() <= LONGEST_URL
        && text
            .chars()
            .all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '<' | '>' | '`' | '@' | '?' | '#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Atom {
        Atom::new(name).unwrap()
    }

    #[test]
    fn only_what_a_browser_may_be_sent_to_is_told() {
        for good in ["https://shop.example.com", "http://localhost:4000/shop", "https://[::1]:4000"] {
            assert!(is_url(good), "{good}");
        }
        let long = format!("https://{}", "x".repeat(LONGEST_URL));
        for bad in [
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "https://a b",
            "https://a\n",
            "https://a\"b",
            "https://me:s3cret@a",
            "https://a?token=s3cret",
            &long,
        ] {
            assert!(!is_url(bad), "{bad}");
        }
    }

    #[test]
    fn modules_that_are_called_so_are_candidates_and_not_too_many() {
        let modules =
            ["Elixir.ShopWeb.Endpoint", "Elixir.ShopWeb.Router", "odd.Endpoint", "Elixir.Endpoint.Of"];
        let found = candidates(&[named("shop")], vec![modules.map(named).to_vec()]);
        assert_eq!(found, [(named("shop"), named("Elixir.ShopWeb.Endpoint"))]);
        let many = (0..100).map(|it| named(&format!("Elixir.A{it}.Endpoint"))).collect();
        assert_eq!(candidates(&[named("shop")], vec![many]).len(), MOST_ENDPOINTS);
    }

    #[test]
    fn without_phoenix_nothing_more_is_asked() {
        let entry = |name: &str| Term::Tuple(vec![Term::Atom(named(name)), Term::default(), Term::default()]);
        assert!(names(Some(&Term::List(vec![entry("shop"), entry("kernel")]))).is_empty());
        let all = Term::List(vec![entry("shop"), Term::atom("odd"), entry("phoenix")]);
        assert_eq!(names(Some(&all)), [named("shop"), named("phoenix")]);
        assert!(names(None).is_empty());
    }

    #[test]
    fn what_is_no_list_of_atoms_holds_none() {
        let list = Term::List(vec![Term::atom("phoenix"), Term::Integer(1)]);
        let ok = Term::Tuple(vec![Term::atom("ok"), list]);
        assert_eq!(atoms(&ok), [named("phoenix")]);
        assert!(atoms(&Term::atom("undefined")).is_empty());
    }
}
