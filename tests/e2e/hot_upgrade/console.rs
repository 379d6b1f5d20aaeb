//! A hot upgrade as the console shows it: what would happen, while it is chosen; and afterwards how it went, and in the history.

use proto::apps::Deployment;
use tests::browser::{ADMIN, Browser};
use xtask::fixtures::Sample;

use super::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_says_before_what_is_hot_and_afterwards_how_it_went() {
    let mut world = World::new(Sample::Erlang, 2, "strategy: start_first").await;
    let app = world.sample.name();
    // What is published is recorded, and waits for a person.
    let _: Deployment = world.control_plane.ask(&["pin", app, "1.1.0"]).expect("it can be pinned");
    for version in ["1.2.0-stranger", "1.2.0"] {
        world.publish(version).await;
        world.check(version).await;
    }
    let browser = Browser::open().await;
    let page = format!("/applications/{app}?deploy");
    browser.client.goto(&world.control_plane.url(&page)).await.expect("the console answers");
    browser.sign_in(ADMIN).await;
    browser.click("#deploy-dialog input[value='1.2.0-stranger']").await;
    browser.there("#deploy-check").await;
    browser.reads("no appup").await;
    browser.pictured("deploy-full").await;
    browser.click("#deploy-dialog input[value='1.2.0']").await;
    browser.reads("Hot from 1.1.0 on 2 replicas.").await;
    let said = browser.text("#deploy-check").await;
    assert!(!said.contains("stranger"), "{said}");
    browser.pictured("deploy-hot").await;
    browser.click("#deploy-confirm").await;
    world.settles_on("1.2.0").await;
    browser.pictured("rollout").await;

    let page = format!("/applications/{app}?replica=only/1");
    browser.client.goto(&world.control_plane.url(&page)).await.expect("the console answers");
    browser.reads("Hot-upgraded from 1.1.0 to 1.2.0 in").await;
    browser.reads("install").await;
    browser.click("button.replica-history").await;
    browser.reads("hot from 1.1.0").await;
    browser.pictured("replica").await;
    browser.client.goto(&world.control_plane.url(&format!("/applications/{app}"))).await.expect("it answers");
    browser.pictured("application").await;

    let errors = browser.console_errors().await;
    assert!(errors.is_empty(), "{errors:?}");

    // A setting that no hot upgrade brings is named before one is asked for.
    let more = "    env:\n      - { key: GREETING, value: hello }\n";
    world.configure_with(2, "strategy: start_first", more).await;
    world
        .when("what waits for a start", |it| it.slots.iter().all(|it| !it.waiting_settings.is_empty()))
        .await;
    browser.client.goto(&world.control_plane.url(&page)).await.expect("the console answers");
    browser.reads("Changed since it was started: env[GREETING]").await;
    browser.pictured("replica-waiting").await;
    browser.close().await;
}
