//! Where there is nothing to show yet, nothing at all, or not what was wanted: what it is, why, and the way on.

use proto::state::Tone;
use yew::{AttrValue, Callback, Html, Properties, component, html, use_state};

use super::icon::Icon;
use super::state::shape;
use crate::browser;
use crate::look::Look;
use crate::shared::Shared;

/// Before the first answer: grey lines where rows will be. They appear late, so that a quick answer does not flicker.
#[component]
pub fn Loading() -> Html {
    html! {
        <div class="loading" role="status" aria-label="Loading">
            { for (0..6).map(|_| html! { <div class="bone" /> }) }
        </div>
    }
}

#[derive(Properties, PartialEq)]
pub struct EmptyProps {
    /// What will appear here.
    pub title: AttrValue,
    /// What makes it appear: words, commands, a button.
    #[prop_or_default]
    pub children: Html,
}

#[component]
pub fn Empty(props: &EmptyProps) -> Html {
    html! { <div class="empty" data-empty=""><p class="lead">{ &props.title }</p>{ props.children.clone() }</div> }
}

#[derive(Properties, PartialEq)]
pub struct FailingProps {
    pub title: AttrValue,
    pub detail: AttrValue,
    #[prop_or_default]
    pub retry: Option<Callback<()>>,
}

/// What failed and why, in place of what could not be shown.
#[component]
pub fn Failing(props: &FailingProps) -> Html {
    let retry = props.retry.clone().map(|retry| {
        html! { <button onclick={move |_| retry.emit(())}>{ "Try again" }</button> }
    });
    html! {
        <div class="failing" role="alert">
            { shape(Tone::Bad) }<div><p class="lead">{ &props.title }</p><p>{ &props.detail }</p></div>{ retry }
        </div>
    }
}

#[derive(Properties, PartialEq)]
pub struct BannerProps {
    pub tone: Tone,
    pub text: AttrValue,
    /// For tests and for whoever looks for it: what kind of banner.
    #[prop_or_default]
    pub kind: AttrValue,
    /// The way out.
    #[prop_or_default]
    pub children: Html,
}

#[component]
pub fn Banner(props: &BannerProps) -> Html {
    let BannerProps { tone, text, kind, children } = props;
    html! {
        <div class="banner" data-tone={tone.word()} data-banner={kind} role="status">
            { shape(*tone) }<p>{ text }</p><div class="way-out">{ children.clone() }</div>
        </div>
    }
}

#[derive(Properties, PartialEq)]
pub struct CommandProps {
    pub text: AttrValue,
}

/// A command to type, with a button that copies it.
#[component]
pub fn Command(props: &CommandProps) -> Html {
    let copied = use_state(|| false);
    let onclick = {
        let (text, copied) = (props.text.clone(), copied.clone());
        Callback::from(move |_| {
            browser::copy(&text);
            copied.set(true);
        })
    };
    html! {
        <div class="command">
            <code>{ &props.text }</code>
            <button class="quiet" {onclick} title="Copy" aria-label="Copy the command">
                { if *copied { html! { "copied" } } else { Icon::Copy.view() } }
            </button>
        </div>
    }
}

/// A sentence of the control plane, what stands between backticks in it as what is typed.
pub fn coded(text: &str) -> Html {
    let part = |(at, part): (usize, &str)| match at % 2 {
        0 => html! { part },
        _ => html! { <code>{ part }</code> },
    };
    html! { <>{ for text.split('`').enumerate().map(part) }</> }
}

/// A thing, or what there is instead of it. `what` names it: `application myapp`.
pub fn shown<T>(look: &Look<T>, what: &str, view: impl FnOnce(&Shared<T>) -> Html) -> Html {
    shown_or(look, what, None, view)
}

/// A thing that can be asked for again.
pub fn shown_or<T>(
    look: &Look<T>,
    what: &str,
    retry: Option<Callback<()>>,
    view: impl FnOnce(&Shared<T>) -> Html,
) -> Html {
    match look {
        Look::Awaited => html! { <Loading /> },
        Look::Gone => html! {
            <Empty title={format!("There is no {what}.")}>
                <p>{ "It was removed, or never was." }</p><a class="button" href="/">{ "Go to the overview" }</a>
            </Empty>
        },
        Look::Failed(fault) => html! {
            <Failing title={format!("The {what} could not be read.")} detail={crate::words::sentence(fault)} {retry} />
        },
        Look::Here { value, fault } => {
            let fault = fault.as_ref().map(|fault| {
                let text =
                    format!("This is old: it could not be read again. {}", crate::words::sentence(fault));
                html! { <Banner tone={Tone::Waiting} kind="old" {text} /> }
            });
            html! { <>{ fault }{ view(value) }</> }
        }
    }
}
