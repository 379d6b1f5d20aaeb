//! Changes below when they count.

use proto::configuration::{Class, Difference, Line};
use yew::{Html, html};

use crate::route::Route;
use crate::words;

pub(super) fn changes(difference: &Difference) -> Html {
    if difference.is_empty() {
        return html! { <p class="dim">{ "It changes nothing of what is in force; its text is another one." }</p> };
    }
    let groups = Class::ALL.into_iter().map(|class| (class, difference.lines(class)));
    html! {
        <div class="difference">
            { for groups.filter(|(_, lines)| !lines.is_empty()).map(|(class, lines)| html! {
                <div data-class={class.word()}>
                    <h3>{ words::sentence(class.when()) }</h3>
                    <ul class="changes">{ for lines.iter().map(line) }</ul>
                </div>
            }) }
        </div>
    }
}

fn line(line: &Line<'_>) -> Html {
    let Line { application, text, .. } = line;
    html! {
        <li>
            if let Some(name) = application { <a href={Route::application(name).path()}>{ name.to_string() }</a>{ " " } }
            { text }
        </li>
    }
}
