//! What a replica left behind when it failed: its last failed check, how it ended, what it printed.

use proto::releases::Ghost;
use proto::replicas::{FailedCheck, LastExit};
use yew::{Html, html};

use super::time::Ago;
use crate::words;

/// `log`: with what it had printed by then.
pub fn failed_check(check: &FailedCheck, log: bool) -> Html {
    html! {
        <section class="exit" aria-label="Last failed check">
            <p>{ words::failed_check(check) }{ " " }<Ago at={check.at} /></p>
            if !check.body.is_empty() { <pre tabindex="0">{ &check.body }</pre> }
            if log && check.in_a_row > 0 && !check.log_tail.is_empty() { <pre tabindex="0">{ &check.log_tail }</pre> }
        </section>
    }
}

/// `log`: with what it had printed by then.
pub fn last_exit(exit: &LastExit, log: bool) -> Html {
    html! {
        <section class="exit" aria-label="Last exit">
            <p>{ "Last exit: " }{ words::last_exit(exit) }{ ", " }<Ago at={exit.at} /></p>
            if let Some(slogan) = &exit.slogan { <p>{ "Erlang says: " }<code>{ slogan }</code></p> }
            if let Some(dump) = &exit.crash_dump { <p class="dim">{ "Its crash dump is kept on that host: " }<code>{ dump }</code></p> }
            if log && !exit.log_tail.is_empty() { <pre tabindex="0">{ &exit.log_tail }</pre> }
        </section>
    }
}

/// Why a release is not deployed again: its log once, under `title`.
pub fn of_ghost(ghost: &Ghost, title: &'static str, open: bool) -> Html {
    let Ghost { failed_check: check, last_exit: exit, log_tail, .. } = ghost;
    if check.is_none() && exit.is_none() && log_tail.is_none() {
        return html! {};
    }
    html! {
        <details class="last-lines" {open}>
            <summary>{ title }</summary>
            { for check.iter().map(|it| failed_check(it, false)) }
            { for exit.iter().map(|it| last_exit(it, false)) }
            if let Some(tail) = log_tail { <pre tabindex="0">{ tail }</pre> }
        </details>
    }
}
