//! The console's addresses in a real browser: back and forward, a link from elsewhere, and links that are to open elsewhere.

use fantoccini::Locator;
use fantoccini::actions::{
    InputSource, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, MOUSE_BUTTON_MIDDLE, MouseActions, PointerAction,
};
use serde_json::{Value, from_value};
use tests::browser::{ADMIN, Browser, PATIENCE};
use tests::programs::ControlPlane;
use tests::release::Bucket;
use tests::wait::{Seen, within};

const APP: &str = "myapp";
/// As WebDriver writes it.
const CONTROL: char = '\u{E009}';

async fn address(browser: &Browser) -> String {
    let url = browser.client.current_url().await.expect("a page has an address");
    format!("{}{}", url.path(), url.query().map(|it| format!("?{it}")).unwrap_or_default())
}

/// How far the page is scrolled.
async fn scrolled(browser: &Browser) -> f64 {
    let script = "return document.getElementById('content').scrollTop";
    from_value(browser.client.execute(script, Vec::new()).await.expect("it can be measured"))
        .expect("a number")
}

/// Returns how far that is.
const DOWN: &str = "const page = document.getElementById('content'); page.scrollTop = page.scrollHeight; \
                    return page.scrollTop";

async fn history_length(browser: &Browser) -> Value {
    browser.client.execute("return history.length", Vec::new()).await.expect("it is known")
}

async fn scrolled_to(browser: &Browser, place: f64) {
    within(PATIENCE, &format!("the page at {place}"), || async {
        let is = scrolled(browser).await;
        if (is - place).abs() < 1.0 { Seen::Done(()) } else { Seen::NotYet(is.to_string()) }
    })
    .await;
}

async fn windows(browser: &Browser, count: usize) {
    within(PATIENCE, &format!("{count} windows"), || async {
        match browser.client.windows().await {
            Ok(all) if all.len() == count => Seen::Done(()),
            other => Seen::NotYet(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_goes_back_and_forward_and_opens_links_elsewhere() {
    let bucket = Bucket::new();
    let applications = format!("  - name: {APP}\n    language: elixir\n    replicas: 1\n");
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let browser = Browser::open().await;
    // Low enough for something to scroll.
    browser.client.set_window_size(1_280, 420).await.expect("a window has a size");

    // From elsewhere, with a slash at its end, into a tab, and with a question.
    let deep = format!("/applications/{APP}/releases/?replica=web-1/1");
    browser.client.goto(&control_plane.url(&deep)).await.expect("the console answers");
    browser.sign_in(ADMIN).await;
    browser.there("a[data-tab=releases][aria-current=page]").await;
    assert_eq!(address(&browser).await, deep);

    browser.click("a[data-page=configuration]").await;
    browser.there("[data-view=configuration] [data-version='1']").await;
    let down = "document.getElementById('content').scrollTop = 30";
    browser.client.execute(down, Vec::new()).await.expect("it scrolls");
    scrolled_to(&browser, 30.0).await;
    browser.click("a[data-page=nodes]").await;
    browser.there("[data-view=nodes]").await;
    scrolled_to(&browser, 0.0).await;

    browser.client.back().await.expect("there is a page before");
    browser.there("[data-view=configuration]").await;
    scrolled_to(&browser, 30.0).await;
    browser.client.back().await.expect("there is a page before");
    browser.there("a[data-tab=releases][aria-current=page]").await;
    assert_eq!(address(&browser).await, deep, "with what it asked");
    for view in ["configuration", "nodes"] {
        browser.client.forward().await.expect("there is a page behind");
        browser.there(&format!("[data-view={view}]")).await;
        browser.there(&format!("a[data-page={view}][aria-current=page]")).await;
    }

    // A page that is only there once it was sent: at first it is too short to be scrolled to where it was left.
    let long = format!("/applications/{APP}/configuration");
    browser.client.goto(&control_plane.url(&long)).await.expect("the console answers");
    browser.there("a[data-tab=configuration][aria-current=page]").await;
    let bottom = browser.client.execute(DOWN, Vec::new()).await.expect("it scrolls");
    let bottom: f64 = from_value(bottom).expect("a number");
    assert!(bottom > 150.0, "{bottom}: higher than what is shown while it is awaited");
    browser.click("a[data-page=nodes]").await;
    browser.there("[data-view=nodes]").await;
    scrolled_to(&browser, 0.0).await;
    browser.client.back().await.expect("there is a page before");
    browser.there("a[data-tab=configuration][aria-current=page]").await;
    scrolled_to(&browser, bottom).await;

    // Neither the page that one is at nor a place on it is another entry to go back from.
    browser.client.forward().await.expect("there is a page behind");
    browser.there("[data-view=nodes]").await;
    let entries = history_length(&browser).await;
    browser.click("a[data-page=nodes]").await;
    let skip = "document.querySelector('a.skip').click()";
    browser.client.execute(skip, Vec::new()).await.expect("it is clicked");
    browser.there("#content:focus").await;
    assert_eq!(history_length(&browser).await, entries);
    browser.client.back().await.expect("there is a page before");
    browser.there("a[data-tab=configuration][aria-current=page]").await;
    scrolled_to(&browser, bottom).await;

    browser.client.forward().await.expect("there is a page behind");
    browser.there("[data-view=nodes]").await;
    // What a question opens is opened from here too, and gone with the way back.
    browser.click("#add-node").await;
    browser.there("#token-dialog[open]").await;
    browser.client.goto(&control_plane.url("/nodes?add")).await.expect("the console answers");
    browser.there("#token-dialog[open]").await;
    browser.client.goto(&control_plane.url("/nodes/no/such/page")).await.expect("the console answers");
    browser.reads("There is no such page.").await;
    browser.click("#content a.button").await;
    browser.there("[data-view=overview]").await;

    // A new window for each, and here nothing happens.
    let link = browser.client.find(Locator::Css("a[data-page=events]")).await.expect("the rail has it");
    let to = |button| {
        let moved = PointerAction::MoveToElement { element: link.clone(), duration: None, x: 0.0, y: 0.0 };
        MouseActions::new("mouse".to_owned())
            .then(moved)
            .then(PointerAction::Down { button })
            .then(PointerAction::Up { button })
    };
    browser.client.perform_actions(to(MOUSE_BUTTON_MIDDLE)).await.expect("it is clicked");
    windows(&browser, 2).await;
    let held = KeyActions::new("keys".to_owned()).then(KeyAction::Down { value: CONTROL });
    browser.client.perform_actions(held).await.expect("a key is held");
    browser.client.perform_actions(to(MOUSE_BUTTON_LEFT)).await.expect("it is clicked");
    windows(&browser, 3).await;
    browser.client.release_actions().await.expect("the key is let go");
    assert_eq!(address(&browser).await, "/");
    browser.click("a[data-page=events]").await;
    browser.there("[data-view=events]").await;
    let not_loaded_anew = "return performance.getEntriesByType('navigation')[0].name";
    let loaded: Value = browser.client.execute(not_loaded_anew, Vec::new()).await.expect("it is known");
    assert!(loaded.as_str().is_some_and(|it| it.ends_with("/nodes/no/such/page")), "{loaded}");

    let errors = browser.console_errors().await;
    browser.close().await;
    assert_eq!(errors, Vec::<String>::new());
}
