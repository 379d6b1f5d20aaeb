//! The figures of a replica's VM while somebody looks at them: the hour at first, then what came since.

use std::cell::Cell;
use std::rc::Rc;

use gloo_timers::future::TimeoutFuture;
use proto::metrics::VmHistory;
use wasm_bindgen_futures::spawn_local;
use yew::{hook, use_effect_with, use_state};

use super::ClientError;
use crate::browser;
use crate::look::Look;
use crate::session::use_account;

/// Two samples of an agent, in milliseconds.
const EVERY_MS: u32 = 4_000;

/// The history at `path`: read until the component is gone, and not while the page is hidden.
#[hook]
pub fn use_vm_history(path: String) -> Look<VmHistory> {
    let client = use_account().client;
    let look = use_state(Look::default);
    let set = look.setter();
    use_effect_with(path, move |path| {
        let (path, going) = (path.clone(), Rc::new(Cell::new(true)));
        let goes_on = Rc::clone(&going);
        set.set(Look::Awaited);
        spawn_local(async move {
            let mut known = Look::Awaited;
            while going.get() {
                if !browser::hidden() {
                    known = match client.get(&asked(&path, &known)).await {
                        Ok(next) => with(&known, next),
                        Err(ClientError::Refused(problem)) if problem.status == 404 => Look::Gone,
                        Err(error) => known.failed(&error.sentence()),
                    };
                    if going.get() {
                        set.set(known.clone());
                    }
                }
                TimeoutFuture::new(EVERY_MS).await;
            }
        });
        move || goes_on.set(false)
    });
    (*look).clone()
}

fn asked(path: &str, known: &Look<VmHistory>) -> String {
    match known.value().and_then(|it| it.points.last()) {
        Some(last) => format!("{path}?since={}", last.at),
        None => path.to_owned(),
    }
}

fn with(known: &Look<VmHistory>, next: VmHistory) -> Look<VmHistory> {
    match known.value() {
        Some(known) if next.since.is_some() => {
            let no_news =
                next.points.is_empty() && (next.every_ms, next.bounds) == (known.every_ms, known.bounds);
            if no_news {
                // The very same one: nothing is drawn again.
                return Look::Here { value: known.clone(), fault: None };
            }
            let mut history = (**known).clone();
            history.absorb(next);
            Look::here(history)
        }
        _ => Look::here(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn what_came_since_is_asked_for_and_added() {
        let whole = sample::vm_history();
        let path = "/replicas/node-1/shop/1/metrics";
        assert_eq!(asked(path, &Look::Awaited), path);
        let mut first = whole.clone();
        let last = first.points.pop().unwrap();
        let known = with(&Look::Awaited, first);
        let newest = known.value().unwrap().points.last().unwrap().at;
        assert_eq!(asked(path, &known), format!("{path}?since={newest}"));
        let known = with(&known, VmHistory { since: Some(newest), points: vec![last], ..whole.clone() });
        assert_eq!(**known.value().unwrap(), whole);
    }

    #[test]
    fn a_failure_keeps_what_is_shown_and_no_news_ends_it_without_another_drawing() {
        let known = Look::here(sample::vm_history()).failed("the link is gone");
        let none = VmHistory { since: Some(sample::NOW), points: Vec::new(), ..sample::vm_history() };
        let next = with(&known, none);
        assert!(next.fault().is_none() && next.value() == known.value());

        let sparser = VmHistory {
            since: Some(sample::NOW),
            points: Vec::new(),
            every_ms: 6_000,
            ..sample::vm_history()
        };
        let next = with(&next, sparser);
        assert_eq!(next.value().map(|it| it.every_ms), Some(6_000));
    }
}
