//! The console in a real browser: one signs in, watches a release roll out, and visits every page without one error.

use control_plane::db::{Db, User};
use fantoccini::Locator;
use proto::apps::Application;
use proto::archive::hostile::Builder;
use proto::state::{Role, SlotState};
use tests::browser::{ADMIN, Browser, PATIENCE};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use xtask::fixtures::Sample;

const APP: &str = "elixir_demo";

fn two_replicas(port: u16) -> String {
    format!(
        "  - name: {APP}\n    language: elixir\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         deploy_rollback_timeout_ms: 60000\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ strategy: start_first, stable_after_ms: 1000, watch_ms: 2000, stop_grace_ms: 5000 }}\n"
    )
}

async fn open(control_plane: &ControlPlane, path: &str) -> Browser {
    let browser = Browser::open().await;
    browser.client.goto(&control_plane.url(path)).await.expect("the console answers");
    browser
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_watches_a_release_roll_out_and_no_page_has_an_error() {
    let bucket = Bucket::new();
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &two_replicas(ports::free(3))).await;
    let _agent = Agent::join(&control_plane, "first").await;
    control_plane.settles_on(APP, "0.1.0").await;

    let browser = open(&control_plane, "/").await;
    browser.sign_in(ADMIN).await;
    browser.there("[data-link=live]").await;
    browser.there(&format!(".group[data-application={APP}] a[data-state=stable]")).await;

    browser.click("a[data-page=applications]").await;
    browser.click(&format!("tr[data-row={APP}] a")).await;
    for slot in 1..=2 {
        browser.there(&format!("tr[data-row='first/{APP}/{slot}'] [data-version='0.1.0']")).await;
        browser.there(&format!("tr[data-row='first/{APP}/{slot}'] [data-state=stable]")).await;
    }

    bucket.publish(Sample::Elixir, "0.2.0").await;
    browser.there(".stepper[data-phase=running]").await;
    let tab = browser.place("a[data-tab=rollouts]").await;
    for slot in 1..=2 {
        browser.there(&format!("tr[data-row='first/{APP}/{slot}'] [data-version='0.2.0']")).await;
    }
    control_plane.settles_on(APP, "0.2.0").await;
    browser.gone(".stepper").await;
    assert_eq!(browser.place("a[data-tab=rollouts]").await, tab, "it moved beneath the pointer");
    browser.click("a[data-tab=rollouts]").await;
    browser.there("table[data-table=history] [data-state=done]").await;

    for tab in ["releases", "logs", "configuration", "replicas"] {
        browser.click(&format!("a[data-tab={tab}]")).await;
        browser.there(&format!("a[data-tab={tab}][aria-current=page]")).await;
    }
    browser.click(&format!("tr[data-row='first/{APP}/1']")).await;
    browser.there(&format!("[data-detail='first/{APP}/1']")).await;
    restart(&browser, &format!("[data-detail='first/{APP}/1'] .restart-replica"), "serves nobody until")
        .await;
    restarted(&control_plane, [1, 0]).await;
    restart(&browser, "#restart", "2 replicas are started anew, one by one").await;
    restarted(&control_plane, [2, 1]).await;
    for page in ["nodes", "rollouts", "events", "configuration", "overview"] {
        browser.click(&format!("a[data-page={page}]")).await;
        browser.there(&format!("[data-view={page}]")).await;
    }
    for (page, row) in [("nodes", "node"), ("rollouts", "rollout")] {
        browser.click(&format!("a[data-page={page}]")).await;
        browser.click(&format!("table[data-table={page}] tr[data-row] a")).await;
        browser.there(&format!("[data-view={row}]")).await;
        if row == "node" {
            restart(&browser, "#restart-agent", "Its replicas go on running").await;
            restarted(&control_plane, [2, 1]).await;
            restart(&browser, "#restart", "2 replicas on first are started anew").await;
            restarted(&control_plane, [3, 2]).await;
        }
    }

    let errors = browser.console_errors().await;
    browser.close().await;
    assert_eq!(errors, Vec::<String>::new());
}

/// Asks for a restart, and reads what will happen before it is confirmed.
async fn restart(browser: &Browser, button: &str, consequence: &str) {
    browser.click(button).await;
    browser.there("#restart-dialog[open]").await;
    let said = browser.text("#restart-dialog .consequence").await;
    assert!(said.contains(consequence), "{said}");
    browser.click("#restart-confirm").await;
    closed(browser, "#restart-dialog").await;
}

async fn closed(browser: &Browser, dialog: &str) {
    within(PATIENCE, "the dialog closed", || async {
        match browser.is_absent(dialog).await {
            true => Seen::Done(()),
            false => Seen::NotYet(browser.text(dialog).await),
        }
    })
    .await;
}

/// So often each slot, and all of them well again.
async fn restarted(control_plane: &ControlPlane, times: [u32; 2]) {
    let is_so = |it: &Application| {
        let counts: Vec<u32> = it.slots.iter().map(|slot| slot.forced_restarts).collect();
        counts == times && it.slots.iter().all(|slot| slot.state == SlotState::Stable)
    };
    control_plane.application_when("the replicas started anew", APP, is_so).await;
}

/// A script in the form of a release, so that two hosts of this one machine can run it; its slots are slow to count as stable.
const SCRIPT: &str = "demo";

fn publish_script(bucket: &Bucket, version: &str) {
    bucket.put_tarball(SCRIPT, version, &Builder::elixir().gzip());
    bucket.write_current(SCRIPT, &format!(r#"{{"version": "{version}", "hash": "local"}}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_labels_and_cordons_a_node_and_sees_a_rollout_by_its_batches() {
    let bucket = Bucket::new();
    publish_script(&bucket, "0.1.0");
    let applications = format!(
        "  - name: {SCRIPT}\n    language: elixir\n    replicas: 1\n    nodes: {{ role: web }}\n    \
         deploy_schedule_interval_ms: 200\n    deploy: {{ stable_after_ms: 10000, watch_ms: 60000 }}\n"
    );
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let _first = Agent::join_labelled(&control_plane, "web-1", &["role=web"]).await;
    let _second = Agent::join(&control_plane, "web-2").await;
    let browser = open(&control_plane, "/nodes/web-2").await;
    browser.sign_in(ADMIN).await;

    browser.click("#edit-labels").await;
    browser.there("#labels-dialog[open]").await;
    let field =
        browser.client.find(Locator::Css("#labels-dialog input[name=labels]")).await.expect("a field");
    field.send_keys("role").await.expect("it takes text");
    browser.click("#labels-confirm").await;
    browser.reads("\"role\" is no label: write key=value.").await;
    field.send_keys("=web").await.expect("it takes text");
    browser.click("#labels-confirm").await;
    closed(&browser, "#labels-dialog").await;
    browser.there("[data-view=node] .label").await;
    browser.click("#cordon").await;
    browser.there("#cordon-dialog[open]").await;
    let said = browser.text("#cordon-dialog .consequence").await;
    assert!(said.contains("is given no replica more"), "{said}");
    browser.click("#cordon-confirm").await;
    browser.there("[data-view=node] [data-banner=service]").await;
    browser.there("[data-view=node] [data-state=cordoned]").await;
    browser.click("a[data-page=nodes]").await;
    browser.there("tr[data-row=web-2] [data-state=cordoned]").await;
    browser.click("tr[data-row=web-2] a").await;
    browser.click("#uncordon").await;
    browser.click("#uncordon-confirm").await;
    browser.there("#cordon").await;
    assert!(browser.is_absent("[data-banner=service]").await, "it is in service");

    control_plane.settles_on(SCRIPT, "0.1.0").await;
    publish_script(&bucket, "0.2.0");
    let moving = |it: &Application| {
        it.current_rollout.as_ref().is_some_and(|it| it.summary.release.version.as_str() == "0.2.0")
    };
    let application = control_plane.application_when("a rollout", SCRIPT, moving).await;
    let paused = control_plane.command_line().run(&["rollout", "pause", SCRIPT]);
    assert_eq!(paused.status, 0, "{paused:?}");
    let id = application.current_rollout.expect("it moves").summary.id;
    browser.client.goto(&control_plane.url(&format!("/rollouts/{id}"))).await.expect("the console answers");
    browser.there("[data-batch=to-come] [data-node=web-2][data-stage=to-come] .slot").await;
    browser.reads("one node at a time").await;
    browser.click("#abort").await;
    browser.there("#abort-dialog[open]").await;
    let said = browser.text("#abort-dialog .consequence").await;
    assert!(said.contains("goes back to 0.1.0") && said.contains("not ghosted"), "{said}");
    browser.click("#abort-dialog .buttons button:first-child").await;
    closed(&browser, "#abort-dialog").await;
    browser.click("#resume").await;
    browser.there("[data-node=web-2][data-stage=moving]").await;
    browser.there(".stepper[data-phase=watching]").await;
    browser.there("[data-batch=batch] [data-node=web-1][data-stage=moved]").await;

    // What became of it is in the history of its replica.
    browser
        .client
        .goto(&control_plane.url(&format!("/applications/{SCRIPT}?replica=web-1/1")))
        .await
        .expect("it answers");
    browser.click(".replica-history").await;
    browser.there(&format!(".past a[href='/rollouts/{id}']")).await;
    let errors = browser.console_errors().await;
    browser.close().await;
    assert_eq!(errors, Vec::<String>::new());
}

/// Whoever promotes a batch has looked at that one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialog_that_promotes_a_batch_does_not_go_on_to_the_next_one() {
    let bucket = Bucket::new();
    publish_script(&bucket, "0.1.0");
    let applications = format!(
        "  - name: {SCRIPT}\n    language: elixir\n    replicas: 1\n    deploy_schedule_interval_ms: 200\n    \
         deploy: {{ stable_after_ms: 500, watch_ms: 60000, batch: 1, pause_between_ms: 3600000 }}\n"
    );
    let control_plane = ControlPlane::start(&bucket, &applications).await;
    let mut agents = Vec::new();
    for name in ["web-1", "web-2", "web-3"] {
        agents.push(Agent::join(&control_plane, name).await);
    }
    let everywhere =
        |it: &Application| it.slots.len() == 3 && it.slots.iter().all(|slot| slot.state == SlotState::Stable);
    control_plane.settles_on(SCRIPT, "0.1.0").await;
    control_plane.application_when("a replica on each host", SCRIPT, everywhere).await;
    publish_script(&bucket, "0.2.0");
    let waits = |number| {
        move |it: &Application| {
            let batch = it.current_rollout.as_ref().and_then(|it| it.batch.as_ref());
            batch.is_some_and(|batch| batch.number == number && batch.may_be_promoted)
        }
    };
    let application = control_plane.application_when("a batch that waits", SCRIPT, waits(1)).await;
    let id = application.current_rollout.expect("it moves").summary.id;
    let browser = open(&control_plane, &format!("/rollouts/{id}")).await;
    browser.sign_in(ADMIN).await;
    browser.click("#promote").await;
    browser.there("#promote-dialog[open]").await;
    browser.reads("no longer behind this batch: 2 nodes follow").await;

    let meanwhile = control_plane.command_line().run(&["rollout", "promote", SCRIPT, "--batch", "1"]);
    assert_eq!(meanwhile.status, 0, "{meanwhile:?}");
    control_plane.application_when("the next batch waits", SCRIPT, waits(2)).await;
    browser.there("[data-batch=batch] [data-node=web-2][data-stage=moved]").await;
    browser.click("#promote-confirm").await;
    browser.reads("moves batch 2 by now").await;
    let after: Application = control_plane.ask(&["app", "show", SCRIPT]).expect("it answers");
    assert!(waits(2)(&after), "{:?}", after.current_rollout);
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_configuration_is_applied_from_its_page_and_an_earlier_one_restored() {
    let bucket = Bucket::new();
    let port = ports::free(4);
    let control_plane = ControlPlane::start(&bucket, &two_replicas(port)).await;
    let browser = open(&control_plane, "/configuration").await;
    browser.sign_in(ADMIN).await;
    browser.there("[data-view=configuration] [data-version='1']").await;
    browser.there("[data-file=in-force]").await;

    // It appears by itself once it was noticed.
    let scaled = two_replicas(port).replace("replicas: 2", "replicas: 3");
    control_plane.configure(&bucket, &scaled);
    browser.there("[data-file=pending] [data-class=immediate]").await;
    let said = browser.text("[data-file=pending]").await;
    assert!(said.contains("replicas 2 → 3"), "{said}");
    confirm(&browser, "apply", "1 change is put in force.").await;
    browser.there("[data-view=configuration] [data-version='2']").await;
    browser.there("[data-file=in-force]").await;
    let shown = control_plane.application(APP).expect("it is there");
    assert_eq!(shown.settings.replicas_per_node, 3);

    browser.click("[data-version-row='1'] button").await;
    browser.there("[data-detail='1'] pre.yaml").await;
    assert!(browser.text("[data-detail='1'] pre.yaml").await.contains("replicas: 2"));
    confirm(&browser, "restore", "Version 1 is put in force again, as version 3").await;
    browser.there("[data-view=configuration] [data-version='3']").await;
    // The file holds what was applied before that.
    browser.there("[data-file=overridden]").await;

    control_plane.configure(&bucket, &scaled.replace("replicas: 3", "replicas: many"));
    browser.there("[data-file=faulty] .changes").await;
    assert!(browser.text("[data-file=faulty]").await.contains("found \"many\""));
    assert!(browser.is_absent("#apply").await, "what has faults cannot be applied");
    let errors = browser.console_errors().await;
    browser.close().await;
    assert_eq!(errors, Vec::<String>::new());
}

/// Asks for something, and reads what will happen before it is confirmed.
async fn confirm(browser: &Browser, id: &str, consequence: &str) {
    browser.click(&format!("#{id}")).await;
    browser.there(&format!("#{id}-dialog[open]")).await;
    let said = browser.text(&format!("#{id}-dialog .consequence")).await;
    assert!(said.contains(consequence), "{said}");
    browser.click(&format!("#{id}-confirm")).await;
    within(PATIENCE, "the dialog closed", || async {
        match browser.is_absent(&format!("#{id}-dialog")).await {
            true => Seen::Done(()),
            false => Seen::NotYet(browser.text(&format!("#{id}-dialog")).await),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_fits_on_a_telephone() {
    let bucket = Bucket::new();
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let control_plane = ControlPlane::start(&bucket, &two_replicas(ports::free(3))).await;
    let _agent = Agent::join(&control_plane, "a-host-with-a-longer-name").await;
    control_plane.settles_on(APP, "0.1.0").await;
    let browser = open(&control_plane, "/").await;
    browser.sign_in(ADMIN).await;
    browser.there("[data-view=overview]").await;
    browser.client.set_window_size(390, 844).await.expect("a window has a size");
    let (app, node) = (format!("applications/{APP}"), "nodes/a-host-with-a-longer-name");
    let pages = ["", "applications", &app, "nodes", node, "rollouts", "events", "configuration"];
    let views =
        ["overview", "applications", "application", "nodes", "node", "rollouts", "events", "configuration"];
    for (page, view) in pages.into_iter().zip(views) {
        browser.client.goto(&control_plane.url(&format!("/{page}"))).await.expect("the console answers");
        browser.there(&format!("[data-view={view}] h1")).await;
        // How much wider than the window it is, and how many lines its title takes; what wraps has a gap between.
        let measured = "return [document.documentElement.scrollWidth - window.innerWidth, \
                        document.querySelector('h1').getBoundingClientRect().height / 28]";
        let measured = browser.client.execute(measured, Vec::new()).await.expect("it can be measured");
        let [wider, lines]: [f64; 2] = serde_json::from_value(measured).expect("two numbers");
        assert!(wider <= 0.0 && lines < 2.5, "/{page} is {wider} px too wide, its title has {lines} lines");
    }
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_is_restarted_from_its_menu_and_the_page_comes_back() {
    let bucket = Bucket::new();
    let control_plane = ControlPlane::start(&bucket, &two_replicas(ports::free(3))).await;
    let browser = open(&control_plane, "/").await;
    browser.sign_in(ADMIN).await;
    browser.there("[data-link=live]").await;
    browser.click("#account summary").await;
    restart(&browser, "#restart-control-plane", "Replicas go on running").await;
    browser.there("[data-link]:not([data-link=live])").await;
    browser.there("[data-link=live]").await;
    browser.there("[data-view=overview]").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_refused_in_words_and_the_address_is_kept() {
    let bucket = Bucket::new();
    let control_plane = ControlPlane::start(&bucket, &two_replicas(ports::free(3))).await;
    let browser = open(&control_plane, "/nodes").await;
    browser.sign_in(("admin", "not the password")).await;
    browser.there("form#sign-in [role=alert]").await;
    let said = browser.text("form#sign-in [role=alert]").await;
    assert_eq!(said, "The user name or the password is wrong.");

    browser.sign_in(ADMIN).await;
    browser.there("[data-view=nodes]").await;
    browser.there("#add-node").await;

    // The session goes; the page comes back with the next one.
    browser.client.delete_all_cookies().await.expect("the browser forgets");
    browser.client.refresh().await.expect("the page is loaded again");
    browser.sign_in(ADMIN).await;
    browser.there("[data-view=nodes]").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_only_look_is_offered_nothing_else() {
    let bucket = Bucket::new();
    let control_plane = ControlPlane::start(&bucket, &two_replicas(ports::free(3))).await;
    add_viewer(&control_plane, "onlooker").await;
    let browser = open(&control_plane, &format!("/applications/{APP}")).await;
    browser.sign_in(("onlooker", ADMIN.1)).await;
    browser.there("[data-view=application]").await;
    assert!(browser.is_absent("#deploy").await, "a viewer may not deploy");
    assert!(browser.is_absent("#restart").await, "a viewer may not restart");
    browser.click("a[data-page=nodes]").await;
    browser.there("[data-view=nodes]").await;
    assert!(browser.is_absent("#add-node").await, "a viewer may add no node");
    browser.click("a[data-page=configuration]").await;
    browser.click("[data-version-row='1'] button").await;
    browser.there("[data-detail='1'] pre.yaml").await;
    assert!(browser.text("[data-detail='1']").await.contains("Secrets and comments are left out."));
    control_plane.configure(&bucket, "  []\n");
    browser.there("[data-file=pending]").await;
    assert!(browser.is_absent("#apply").await, "a viewer may apply nothing");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_outlives_its_control_plane_and_says_how_old_it_is() {
    let bucket = Bucket::new();
    let mut control_plane = ControlPlane::start(&bucket, &two_replicas(ports::free(3))).await;
    let browser = open(&control_plane, "/applications").await;
    browser.sign_in(ADMIN).await;
    browser.there("[data-link=live]").await;
    browser.there(&format!("tr[data-row={APP}]")).await;

    control_plane.kill();
    browser.there(".frame[data-stale=true] [data-link=reconnecting]").await;
    browser.there(&format!("tr[data-row={APP}]")).await;
    assert!(browser.text("[data-link]").await.contains("as of"), "it says of when it is");

    control_plane.resume().await;
    browser.there(".frame[data-stale=false] [data-link=live]").await;
    browser.close().await;
}

/// No command makes users yet, so this one is put into the database, with the administrator's password.
async fn add_viewer(control_plane: &ControlPlane, name: &str) {
    let db = Db::open(&control_plane.database_url()).await.expect("the database is there");
    let admin = db.user(ADMIN.0).await.expect("the database answers").expect("the demo has an administrator");
    let user = User { name: name.to_owned(), role: Role::Viewer, ..admin };
    db.add_user(&user).await.expect("the user is new");
    db.close().await.expect("the database is closed");
}
