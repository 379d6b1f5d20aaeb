//! Moments: relative to see, exact on hover.

use proto::timestamp::Timestamp;
use yew::{Html, Properties, component, html};

use crate::clock::{use_now, zone_minutes};
use crate::format;

#[derive(Properties, PartialEq)]
pub struct Props {
    pub at: Timestamp,
}

/// `3 min ago`.
#[component]
pub fn Ago(props: &Props) -> Html {
    let now = use_now();
    moment(props.at, format::relative(props.at, now))
}

/// `2 h 5 min`, since then.
#[component]
pub fn Elapsed(props: &Props) -> Html {
    let now = use_now();
    moment(props.at, format::elapsed(props.at, now))
}

/// `14:02`, and its date if that was not today.
#[component]
pub fn TimeOfDay(props: &Props) -> Html {
    let now = use_now();
    moment(props.at, format::time_of_day(props.at, now, zone_minutes()))
}

fn moment(at: Timestamp, text: String) -> Html {
    html! { <time datetime={at.to_string()} title={format::exact(at, zone_minutes())}>{ text }</time> }
}
