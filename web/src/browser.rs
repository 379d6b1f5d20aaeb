//! The browser's own things that pages need: the clipboard, the focus, what it remembers. Every one of them may be missing.

use wasm_bindgen::JsCast;
use web_sys::{Document, Element, HtmlElement, Storage};

pub fn document() -> Option<Document> {
    web_sys::window()?.document()
}

/// What a page is in, and scrolls in.
pub fn content() -> Option<Element> {
    document()?.get_element_by_id("content")
}

pub fn copy(text: &str) {
    if let Some(window) = web_sys::window() {
        // Refused where the page is not served securely; the text can still be selected.
        let _ = window.navigator().clipboard().write_text(text);
    }
}

fn storage() -> Option<Storage> {
    web_sys::window()?.local_storage().ok()?
}

pub fn remembered(key: &str) -> Option<String> {
    storage()?.get_item(key).ok()?
}

pub fn remember(key: &str, value: Option<&str>) {
    if let Some(storage) = storage() {
        // A browser that remembers nothing asks again next time.
        let _ = match value {
            Some(value) => storage.set_item(key, value),
            None => storage.remove_item(key),
        };
    }
}

pub fn focus(selector: &str) {
    let found = document().and_then(|it| it.query_selector(selector).ok()?);
    if let Some(element) = found.and_then(|it| it.dyn_into::<HtmlElement>().ok()) {
        let _ = element.focus();
    }
}

/// The element or one around it that fits the selector.
pub fn closest(element: &Element, selector: &str) -> Option<Element> {
    element.closest(selector).ok()?
}

/// Focuses the row after (or before) the one that has the focus; the first where none has.
pub fn focus_row(forward: bool) {
    let Some(document) = document() else { return };
    let Ok(rows) = document.query_selector_all("main [data-row]") else { return };
    let rows: Vec<HtmlElement> =
        (0..rows.length()).filter_map(|at| rows.get(at)?.dyn_into::<HtmlElement>().ok()).collect();
    let active = document.active_element();
    let at = active.and_then(|active| closest(&active, "[data-row]"));
    let at = at.and_then(|row| rows.iter().position(|it| **it == row));
    let next = match (at, forward) {
        (None, _) => Some(0),
        (Some(at), true) => Some(at + 1),
        (Some(at), false) => at.checked_sub(1),
    };
    if let Some(row) = next.and_then(|at| rows.get(at)) {
        let _ = row.focus();
    }
}

/// Where text is typed now.
pub fn typing() -> bool {
    let active = document().and_then(|it| it.active_element());
    active.is_some_and(|it| {
        matches!(it.tag_name().as_str(), "TEXTAREA" | "SELECT")
            || (it.tag_name() == "INPUT"
                && !matches!(it.get_attribute("type").as_deref(), Some("radio" | "checkbox")))
    })
}

pub fn dialog_is_open() -> bool {
    document().and_then(|it| it.query_selector("dialog[open]").ok()?).is_some()
}

/// What the browser calls the page.
pub fn set_title(title: &str) {
    if let Some(document) = document() {
        document.set_title(&format!("{title} · DeployEx"));
    }
}

/// The page is in a tab that nobody looks at.
pub fn hidden() -> bool {
    document().is_some_and(|it| it.hidden())
}

/// A text as part of an address.
pub fn encoded(text: &str) -> String {
    js_sys::encode_uri_component(text).into()
}
