//! How full something is: a thin bar and its number.

use yew::{AttrValue, Html, Properties, component, html};

use crate::format;

/// From here on it is said in another colour as well.
const HIGH: f64 = 90.0;

#[derive(Properties, PartialEq)]
pub struct Props {
    /// 0 to 100.
    pub percent: f64,
    /// What the number is of, for those who hear it.
    pub label: AttrValue,
    /// In place of the percentage.
    #[prop_or_default]
    pub text: Option<AttrValue>,
}

#[component]
pub fn Meter(props: &Props) -> Html {
    let percent = props.percent.clamp(0.0, 100.0);
    let text = props.text.clone().unwrap_or_else(|| format::percent(props.percent).into());
    html! {
        <span class="meter" data-high={(percent >= HIGH).to_string()} role="meter" aria-label={&props.label}
            aria-valuemin="0" aria-valuemax="100" aria-valuenow={format!("{percent:.0}")} aria-valuetext={&text}>
            <span class="bar"><span style={format!("width:{percent:.1}%")} /></span><span class="number">{ text }</span>
        </span>
    }
}
