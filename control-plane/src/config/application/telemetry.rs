//! `telemetry`: which events of the application's replicas are counted.

use crate::config::fields::Fields;
use crate::config::rules::{Allowed, Checked, Scalar};

/// Each stands for the events of a library.
const GROUPS: [&str; 3] = ["phoenix", "ecto", "vm"];
/// Every one is a handler in every replica.
const MOST: usize = 50;
const MOST_SEGMENTS: usize = 10;
/// Of an event's name, in bytes.
const LONGEST: usize = 200;

pub(super) fn events(f: &mut Fields<'_>) -> Vec<String> {
    let Some(mut t) = f.below("telemetry") else { return Vec::new() };
    let listed = t.values("events", event).unwrap_or_default();
    if listed.len() > MOST {
        t.fault("events", format!("{} events", listed.len()), format!("at most {MOST}"));
    }
    let mut events: Vec<String> = Vec::new();
    for event in listed.into_iter().take(MOST) {
        if events.contains(&event.value) {
            let path = t.path.key("events");
            t.sink.fault(event.origin, path.as_str(), format!("{} again", event.value), "each stands once");
            continue;
        }
        events.push(event.value);
    }
    t.finish();
    events
}

/// A name has two parts at least: a word alone is a group that is not written as it is called.
fn event(scalar: Scalar<'_>) -> Checked<String> {
    let text = scalar.text;
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'@' | b'?' | b'!');
    let is_segment = |it: &str| !it.is_empty() && it.len() <= 64 && it.bytes().all(plain);
    let segments = text.split('.').count();
    let is_name =
        (2..=MOST_SEGMENTS).contains(&segments) && text.len() <= LONGEST && text.split('.').all(is_segment);
    match GROUPS.contains(&text) || is_name {
        true => Ok(text.to_owned()),
        false => {
            let groups = GROUPS.join(", ");
            Err(Allowed(format!(
                "{groups}, or an event's name with dots, such as my_app.orders.checkout.stop"
            )))
        }
    }
}
