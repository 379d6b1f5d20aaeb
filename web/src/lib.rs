//! DeployEx's console: a single-page application over the HTTP API and its WebSocket.
//!
//! ```text
//!   router ─▶ session ─▶ live (one WebSocket ─▶ store) ─▶ clock ─▶ frame ─▶ page ─▶ components
//!                └─ client (all of HTTP)
//! ```
//!
//! What decides or words something is in pure modules with tests that run on the host (`format`, `words`, `keys`, `matching`,
//! `steps`, `window`, `live::link`, `live::store`, …); components only show.
//!
//! What browser tests may hold on to:
//!
//! | | |
//! |---|---|
//! | sign-in | `form#sign-in`, `input[name=username]`, `input[name=password]`, its `[role=alert]` |
//! | link | `[data-link="live"]`, `"connecting"`, `"reconnecting"`; `.frame[data-stale="true"]` while what is shown is old |
//! | rail | `a[data-page="overview"]`, `applications`, `nodes`, `rollouts`, `events`; `aria-current="page"` |
//! | page | `[data-view="overview"]` and so on: the page is there, not its loading state |
//! | tables | `table[data-table="replicas"] tr[data-row="node/app/slot"]`; elsewhere the row is an application's, node's, rollout's or release's name |
//! | states | `[data-state="stable"]`, `[data-tone="ok"]`; `[data-phase]` and `[data-rollout]` of a stepper |
//! | cells | `td [data-version="1.2.3"]` of a replica |
//! | tabs | `a[data-tab="logs"]` |
//! | a VM | `[data-vm="connection"]`, `"versions"` in a replica's `[data-detail]`; `.vm-hour [data-chart="Processes"]` |
//! | banners | `[data-banner="ghost"]`, `"release-fault"`, `"old"` |
//! | buttons | `#deploy`, `#add-node`, `#remove-node`, `#sign-out`, `[data-clear-ghost="VERSION"]`; dialogs `dialog#deploy-dialog`, `#token-dialog`, `#remove-dialog`, `#palette`, `#keyboard` |

#![cfg_attr(not(target_arch = "wasm32"), allow(clippy::unused_async))]

pub mod app;
pub mod browser;
pub mod client;
pub mod clock;
pub mod components;
pub mod format;
pub mod frame;
pub mod keys;
pub mod labels;
pub mod live;
pub mod look;
pub mod matching;
pub mod order;
pub mod pages;
pub mod route;
pub mod router;
#[cfg(any(test, feature = "gallery"))]
pub mod sample;
pub mod session;
pub mod shared;
pub mod steps;
pub mod theme;
pub mod window;
pub mod words;

/// Draws the console into the page.
pub fn start() {
    theme::Theme::remembered().apply();
    yew::Renderer::<app::App>::new().render();
}
