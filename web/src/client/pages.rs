//! Lists that come in parts: the first part at once, the next on request, all of what is shown again when asked to.

use std::rc::Rc;

use proto::page::{DEFAULT_LIMIT, MAX_LIMIT, Page};
use serde::de::DeserializeOwned;
use wasm_bindgen_futures::spawn_local;
use yew::{Callback, Reducible, hook, use_effect_with, use_reducer};

use super::ClientError;
use crate::look::Look;
use crate::session::use_account;

/// A list of the API as far as it was loaded.
pub struct Pages<T> {
    pub items: Look<Vec<T>>,
    /// There is more.
    pub more: Option<Callback<()>>,
    /// Something is being loaded.
    pub busy: bool,
    pub reload: Callback<()>,
}

struct State<T> {
    /// Of which list the items are.
    path: String,
    items: Look<Vec<T>>,
    next: Option<String>,
    busy: bool,
}

enum Action<T> {
    Asked { path: String },
    First { path: String, page: Page<T> },
    Next { path: String, page: Page<T> },
    Failed { path: String, error: ClientError },
}

impl<T: Clone> Reducible for State<T> {
    type Action = Action<T>;

    fn reduce(self: Rc<Self>, action: Action<T>) -> Rc<Self> {
        let same = |path: &String| *path == self.path;
        let known = || self.items.value().map(|it| (**it).clone()).unwrap_or_default();
        Rc::new(match action {
            Action::Asked { path } => {
                // Another list begins empty; the same one stays in sight while it is asked for again.
                let (items, next) =
                    if same(&path) { (self.items.clone(), self.next.clone()) } else { (Look::Awaited, None) };
                Self { path, items, next, busy: true }
            }
            Action::First { path, page } if same(&path) => {
                Self { path, items: Look::here(page.items), next: page.next, busy: false }
            }
            Action::Next { path, page } if same(&path) => {
                let items = known().into_iter().chain(page.items).collect();
                Self { path, items: Look::here(items), next: page.next, busy: false }
            }
            Action::Failed { path, error } if same(&path) => {
                let items = self.items.clone().failed(&error.sentence());
                Self { path, items, next: self.next.clone(), busy: false }
            }
            // The answer to a question that is no longer asked.
            Action::First { .. } | Action::Next { .. } | Action::Failed { .. } => return self,
        })
    }
}

/// The list at `path`, read again whenever `version` changes.
#[hook]
pub fn use_pages<T: DeserializeOwned + Clone + 'static, V: PartialEq + Clone + 'static>(
    path: String,
    version: V,
) -> Pages<T> {
    let client = use_account().client;
    let state =
        use_reducer(|| State { path: String::new(), items: Look::<Vec<T>>::Awaited, next: None, busy: true });
    let dispatcher = state.dispatcher();

    let load = {
        let (client, path, dispatcher) = (client.clone(), path.clone(), dispatcher.clone());
        let shown = state.items.value().map_or(0, |items| items.len());
        move || {
            let limit = u32::try_from(shown).unwrap_or(MAX_LIMIT).clamp(DEFAULT_LIMIT, MAX_LIMIT);
            let (client, path, dispatcher) = (client.clone(), path.clone(), dispatcher.clone());
            dispatcher.dispatch(Action::Asked { path: path.clone() });
            spawn_local(async move {
                let page = client.get(&with(&path, &format!("limit={limit}"))).await;
                dispatcher.dispatch(match page {
                    Ok(page) => Action::First { path, page },
                    Err(error) => Action::Failed { path, error },
                });
            });
        }
    };
    let reload = Callback::from({
        let load = load.clone();
        move |()| load()
    });
    use_effect_with((path.clone(), version), move |_| load());

    let more = state.next.clone().filter(|_| !state.busy).map(|cursor| {
        Callback::from(move |()| {
            let (client, path, dispatcher) = (client.clone(), path.clone(), dispatcher.clone());
            let asked = with(&path, &format!("cursor={cursor}"));
            dispatcher.dispatch(Action::Asked { path: path.clone() });
            spawn_local(async move {
                dispatcher.dispatch(match client.get(&asked).await {
                    Ok(page) => Action::Next { path, page },
                    Err(error) => Action::Failed { path, error },
                });
            });
        })
    });
    Pages { items: state.items.clone(), more, busy: state.busy, reload }
}

fn with(path: &str, query: &str) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(path: &str) -> Rc<State<u8>> {
        Rc::new(State { path: path.into(), items: Look::Awaited, next: None, busy: true })
    }

    fn page(items: &[u8], next: Option<&str>) -> Page<u8> {
        Page { items: items.to_vec(), next: next.map(str::to_owned) }
    }

    #[test]
    fn parts_follow_each_other() {
        let path = || "/a".to_owned();
        let state = state("/a").reduce(Action::First { path: path(), page: page(&[1, 2], Some("x")) });
        assert_eq!(state.next.as_deref(), Some("x"));
        let state = state.reduce(Action::Next { path: path(), page: page(&[3], None) });
        assert_eq!(**state.items.value().unwrap(), [1, 2, 3]);
        assert_eq!(state.next, None);
    }

    #[test]
    fn a_late_answer_to_another_question_is_dropped_and_a_failure_keeps_what_is_shown() {
        let path = || "/a".to_owned();
        let state = state("/a").reduce(Action::First { path: path(), page: page(&[1], None) });
        let state = state.reduce(Action::First { path: "/b".into(), page: page(&[9], None) });
        assert_eq!(**state.items.value().unwrap(), [1]);
        let state = state.reduce(Action::Failed { path: path(), error: ClientError::Status(502) });
        assert_eq!(**state.items.value().unwrap(), [1]);
        assert!(state.items.fault().is_some());
        let state = state.reduce(Action::Asked { path: "/b".into() });
        assert!(state.items.value().is_none());
    }

    #[test]
    fn a_query_is_joined_to_what_there_is() {
        assert_eq!(with("/events", "limit=5"), "/events?limit=5");
        assert_eq!(with("/events?a=b", "limit=5"), "/events?a=b&limit=5");
    }
}
