//! `notifications`: checked as they are written. Sending is not here, and not in force yet.

use super::fields::Fields;
use super::rules;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Adapter {
    Webhook,
    Slack,
    PagerDuty,
}

const ADAPTERS: [(&str, Adapter); 3] =
    [("webhook", Adapter::Webhook), ("slack", Adapter::Slack), ("pagerduty", Adapter::PagerDuty)];

/// Those of 0.x, then ours.
const EVENTS: [(&str, ()); 17] = [
    ("all", ()),
    ("crash_restart", ()),
    ("deployment_started", ()),
    ("deployment_complete", ()),
    ("application_ready", ()),
    ("deployment_shutdown", ()),
    ("watchdog_threshold_exceeded", ()),
    ("watchdog_threshold_warning", ()),
    ("certificate_renewed", ()),
    ("certificate_valid", ()),
    ("certificate_failed", ()),
    ("config_changed", ()),
    ("config_change_applied", ()),
    ("deployment_rolled_back", ()),
    ("version_ghosted", ()),
    ("node_lost", ()),
    ("node_back", ()),
];

pub(super) fn read(f: &mut Fields<'_>) {
    for item in f.items("notifications", "") {
        let Some(mut channel) = Fields::open(f.sink, item.node, item.path) else { continue };
        one(&mut channel);
        channel.finish();
    }
}

fn one(f: &mut Fields<'_>) {
    let adapter = f.required("adapter", rules::word(&ADAPTERS));
    // Whoever has the address of a channel can write into it.
    f.secret("url", rules::url(&["https", "http"]));
    if matches!(adapter, Some(Adapter::Webhook | Adapter::Slack)) && !f.has("url") {
        f.fault("url", "no url", "write `url: https://…` here; only pagerduty has one of its own");
    }
    f.read("enabled", rules::boolean);
    f.values("events", rules::word(&EVENTS));
    let mut routing_key = false;
    if let Some(mut options) = f.below("options") {
        routing_key = options.secret("routing_key", rules::text).is_some();
        options.read("username", rules::text);
        options.read("icon_emoji", rules::text);
        options.finish();
    }
    if adapter == Some(Adapter::PagerDuty) && !routing_key {
        f.fault("options", "no routing_key", "pagerduty needs `options: { routing_key: … }`");
    }
}
