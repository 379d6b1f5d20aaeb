//! A followed log: the newest lines at the bottom, kept in sight unless one scrolled away from them.

use std::collections::VecDeque;
use std::rc::Rc;

use proto::replicas::{LogLine, LogStream};
use wasm_bindgen_futures::spawn_local;
use web_sys::{AbortController, Element};
use yew::{
    Callback, Html, Properties, Reducible, component, html, use_effect_with, use_node_ref, use_reducer,
    use_state_eq,
};

use super::notice::Banner;
use crate::client::ClientError;
use crate::session::use_account;
use proto::state::Tone;

/// Older lines make room: a page is no archive.
const MOST_LINES: usize = 2_000;
/// Lines from before one began to look.
const FROM_BEFORE: u32 = 200;

#[derive(Default)]
struct Log {
    lines: VecDeque<(u64, LogStream, Rc<str>)>,
    next: u64,
    /// Why no more comes.
    ended: Option<String>,
}

enum Change {
    Opened,
    Lines(Vec<LogLine>),
    Ended(Result<(), ClientError>),
}

impl Reducible for Log {
    type Action = Change;

    fn reduce(self: Rc<Self>, change: Change) -> Rc<Self> {
        let mut next = Self { lines: self.lines.clone(), next: self.next, ended: self.ended.clone() };
        match change {
            Change::Opened => return Rc::new(Self::default()),
            Change::Lines(lines) => {
                for line in lines {
                    next.take(line);
                }
            }
            Change::Ended(result) => {
                let why = result.map_or_else(|error| error.sentence(), |()| "The log has ended.".to_owned());
                next.ended.get_or_insert(why);
            }
        }
        Rc::new(next)
    }
}

impl Log {
    fn take(&mut self, line: LogLine) {
        match line {
            LogLine::Line { stream, text } => {
                self.lines.push_back((self.next, stream, text.into()));
                self.next += 1;
                if self.lines.len() > MOST_LINES {
                    self.lines.pop_front();
                }
            }
            LogLine::Ended { reason } => self.ended = Some(crate::words::sentence(&reason)),
        }
    }
}

#[derive(Properties, PartialEq)]
pub struct Props {
    /// `/replicas/{node}/{app}/{slot}/logs`
    pub path: String,
    pub stream: LogStream,
}

#[component]
pub fn LogView(props: &Props) -> Html {
    let client = use_account().client;
    let log = use_reducer(Log::default);
    let wrap = use_state_eq(|| true);
    let follow = use_state_eq(|| true);
    let again = use_state_eq(|| 0_u32);
    let view = use_node_ref();
    {
        let dispatcher = log.dispatcher();
        use_effect_with((props.path.clone(), props.stream, *again), move |(path, stream, _)| {
            dispatcher.dispatch(Change::Opened);
            let stream = match stream {
                LogStream::Both => "both",
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            };
            let path = format!("{path}?follow=true&lines={FROM_BEFORE}&stream={stream}");
            let letting_go = AbortController::new().ok();
            if let Some(signal) = letting_go.as_ref().map(AbortController::signal) {
                spawn_local(async move {
                    let take = |lines| dispatcher.dispatch(Change::Lines(lines));
                    let ended = client.follow_log(&path, &signal, take).await;
                    // Who let go does not want to hear that it ended.
                    if !signal.aborted() {
                        dispatcher.dispatch(Change::Ended(ended));
                    }
                });
            }
            move || {
                if let Some(it) = letting_go {
                    it.abort();
                }
            }
        });
    }
    {
        let view = view.clone();
        use_effect_with((log.next, *follow), move |(_, follow)| {
            if let Some(view) = view.cast::<Element>().filter(|_| *follow) {
                view.set_scroll_top(view.scroll_height());
            }
        });
    }
    let onscroll = {
        let (view, follow) = (view.clone(), follow.clone());
        Callback::from(move |_| {
            if let Some(view) = view.cast::<Element>() {
                follow.set(view.scroll_top() + view.client_height() >= view.scroll_height() - 8);
            }
        })
    };
    let (to_end, wrapped) = (follow.clone(), wrap.clone());
    let retry = Callback::from(move |_| again.set(*again + 1));
    html! {
        <section class="log" aria-label="Log">
            <div class="log-tools">
                <label class="check"><input type="checkbox" checked={*wrap} onchange={move |_| wrapped.set(!*wrapped)} />{ "Wrap lines" }</label>
                <span class="dim" data-log={if log.ended.is_some() { "ended" } else { "following" }}>
                    { if log.ended.is_some() { "not following" } else if *follow { "following" } else { "scrolled up" } }
                </span>
                if !*follow { <button class="quiet" onclick={move |_| to_end.set(true)}>{ "Go to the end" }</button> }
            </div>
            <div ref={view} class="lines" data-wrap={wrap.to_string()} tabindex="0" role="log" aria-live="off" {onscroll}>
                { for log.lines.iter().map(|(at, stream, text)| html! { <Line key={*at} stream={*stream} text={text.clone()} /> }) }
                if log.lines.is_empty() && log.ended.is_none() { <p class="dim">{ "Nothing was written yet. Lines appear here as they come." }</p> }
            </div>
            if let Some(why) = &log.ended {
                <Banner tone={Tone::Waiting} kind="log-ended" text={why.clone()}><button onclick={retry}>{ "Follow again" }</button></Banner>
            }
        </section>
    }
}

#[derive(Properties, PartialEq)]
struct LineProps {
    stream: LogStream,
    text: Rc<str>,
}

#[component]
fn Line(props: &LineProps) -> Html {
    let stream = if props.stream == LogStream::Stderr { "stderr" } else { "stdout" };
    html! { <div data-stream={stream}>{ props.text.to_string() }</div> }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine::Line { stream: LogStream::Stdout, text: text.into() }
    }

    #[test]
    fn the_newest_lines_stay_and_keep_their_numbers() {
        let log = Rc::new(Log::default());
        let log = log.reduce(Change::Lines((0..MOST_LINES + 5).map(|n| line(&n.to_string())).collect()));
        assert_eq!(log.lines.len(), MOST_LINES);
        assert_eq!(log.lines.front().map(|it| (it.0, &*it.2)), Some((5, "5")));
    }

    #[test]
    fn the_reason_that_the_log_gives_is_not_replaced_by_its_end() {
        let log = Rc::new(Log::default());
        let log = log.reduce(Change::Lines(vec![LogLine::Ended { reason: "the node is gone".into() }]));
        let log = log.reduce(Change::Ended(Ok(())));
        assert_eq!(log.ended.as_deref(), Some("The node is gone."));
        assert!(log.reduce(Change::Opened).ended.is_none());
    }
}
