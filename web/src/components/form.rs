//! Fields of forms: a label, the input, and at the field what the control plane said of it.

use web_sys::{HtmlInputElement, InputEvent};
use yew::{AttrValue, Callback, Html, Properties, TargetCast, component, html};

#[derive(Properties, PartialEq)]
pub struct FieldProps {
    /// Also the request's key.
    pub name: AttrValue,
    pub label: AttrValue,
    pub value: AttrValue,
    pub oninput: Callback<String>,
    #[prop_or(AttrValue::Static("text"))]
    pub kind: AttrValue,
    #[prop_or_default]
    pub autocomplete: Option<AttrValue>,
    #[prop_or_default]
    pub hint: Option<AttrValue>,
    #[prop_or_default]
    pub error: Option<AttrValue>,
    #[prop_or_default]
    pub disabled: bool,
    /// Is ready to be typed into when it appears.
    #[prop_or_default]
    pub first: bool,
}

#[component]
pub fn Field(props: &FieldProps) -> Html {
    let FieldProps { name, label, value, kind, autocomplete, hint, error, disabled, first, .. } = props;
    let oninput =
        props.oninput.reform(|event: InputEvent| event.target_unchecked_into::<HtmlInputElement>().value());
    let note = format!("{name}-note");
    let said = error.clone().or_else(|| hint.clone());
    html! {
        <label class="field" data-invalid={error.is_some().to_string()}>
            <span>{ label }</span>
            <input type={kind} {name} {value} {oninput} autocomplete={autocomplete.clone()} disabled={*disabled}
                autofocus={*first} aria-invalid={error.is_some().to_string()}
                aria-describedby={said.is_some().then(|| note.clone())} />
            if let Some(said) = said { <small id={note}>{ said }</small> }
        </label>
    }
}
