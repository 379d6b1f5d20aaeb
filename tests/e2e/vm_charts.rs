//! A replica's VM in the console: how its agent is connected to it, what it runs on, its last hour as it goes on, and what is
//! said where there is nothing more to be known.

use std::cell::Cell;
use std::time::Duration;

use fantoccini::Locator;
use proto::apps::Application;
use rustix::process::{Pid, Signal, kill_process};
use tests::browser::{ADMIN, Browser, PATIENCE};
use tests::ports;
use tests::programs::{Agent, ControlPlane};
use tests::release::Bucket;
use tests::wait::{Seen, within};
use tokio::time::Instant;
use xtask::fixtures::Sample;

const APP: &str = "elixir_demo";
/// As few as a VM can have: a replica at rest is above the first threshold and far below the second.
const PROCESSES: u32 = 1_024;

/// As the console does it.
const ASKED_EVERY: Duration = Duration::from_secs(4);

fn application(port: u16) -> String {
    format!(
        "  - name: {APP}\n    language: elixir\n    replicas: 2\n    \
         replica_ports: [{{ key: PORT, base: {port} }}]\n    \
         env: [{{ key: ERL_FLAGS, value: \"+P {PROCESSES}\" }}]\n    \
         deploy_schedule_interval_ms: 200\n    deploy: {{ stable_after_ms: 1000, watch_ms: 1000, drain_ms: 0 }}\n    \
         monitoring:\n      - {{ type: process, warning_threshold_percent: 3, restart_threshold_percent: 90 }}\n"
    )
}

const PHOENIX: &str = "
    defmodule DemoWeb.Endpoint do
      def url, do: ~s(https://demo.example.com)
      def struct_url, do: URI.parse(url())
      def static_path(path), do: path
    end
    load = fn name, version, uses, modules ->
      spec = [vsn: String.to_charlist(version), applications: uses, modules: modules]
      :ok = :application.load({:application, name, spec})
    end
    load.(:phoenix, ~s(1.7.10), [:kernel], [])
    load.(:demo_web, ~s(1.0.0), [:kernel, :phoenix], [DemoWeb.Endpoint])";

/// When the newest point was measured, as the chart says.
async fn newest(browser: &Browser) -> String {
    browser.text("[data-chart=Processes] .times span:last-child").await
}

/// How often figures of a VM were asked for, as far as the browser has an answer.
async fn asked(browser: &Browser) -> u64 {
    let script =
        "return performance.getEntriesByType('resource').filter(it => it.name.includes('/metrics')).length";
    let count = browser.client.execute(script, Vec::new()).await.expect("it can be counted");
    count.as_u64().expect("a number")
}

/// The same once the last answer is there: it was not more for a second.
async fn asked_at_last(browser: &Browser) -> u64 {
    let last = Cell::new((asked(browser).await, Instant::now()));
    within(PATIENCE, "the last answer", || async {
        let (count, since) = last.get();
        let now = asked(browser).await;
        if now != count {
            last.set((now, Instant::now()));
        } else if since.elapsed() > Duration::from_secs(1) {
            return Seen::Done(now);
        }
        Seen::NotYet(now.to_string())
    })
    .await
}

async fn goes_on(browser: &Browser) {
    let before = newest(browser).await;
    within(PATIENCE, "the next points", || async {
        let now = newest(browser).await;
        if now == before { Seen::NotYet(now) } else { Seen::Done(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_is_seen_as_it_goes_and_why_not_is_said() {
    let bucket = Bucket::new();
    bucket.publish(Sample::Elixir, "0.1.0").await;
    let mut control_plane = ControlPlane::start(&bucket, &application(ports::free(3))).await;
    let mut agent = Agent::join(&control_plane, "web-1").await;
    control_plane.settles_on(APP, "0.1.0").await;
    let browser = Browser::open().await;
    let page = format!("/applications/{APP}?replica=web-1/1");
    browser.client.goto(&control_plane.url(&page)).await.expect("the console answers");
    browser.sign_in(ADMIN).await;
    browser.reads("Its agent is connected to its Erlang node").await;
    browser.there("[data-vm=versions]").await;
    browser.reads("application 0.1.0").await;
    let versions = browser.text("[data-vm=versions]").await;
    assert!(versions.starts_with("On OTP ") && versions.contains(", Elixir 1."), "{versions}");

    // Its picture, out of its release, and drawn as one.
    browser.there("img.logo").await;
    let drawn = "return document.querySelector('img.logo').naturalWidth";
    within(PATIENCE, "the logo", || async {
        match browser.client.execute(drawn, Vec::new()).await.expect("a number").as_u64() {
            Some(width) if width > 0 => Seen::Done(()),
            width => Seen::NotYet(format!("{width:?}")),
        }
    })
    .await;

    // Its mesh, and where Phoenix says that it is reached: what is left of that in a release, put into this one.
    browser.reads("It is connected to its sibling.").await;
    let slot = ["--node", "web-1", "--slot", "1"];
    let said = control_plane.command_line().run(&[&["rpc", APP, PHOENIX][..], &slot].concat());
    assert_eq!(said.status, 0, "{said:?}");
    browser.there("[data-vm=urls] a[href='https://demo.example.com']").await;
    browser.reads("Phoenix 1.7.10").await;

    // Its limit, the threshold that is in sight, and not the one that is far above.
    let chart = "[data-chart=Processes]";
    browser.there(&format!("{chart} path.series")).await;
    browser.reads("% of 1,024").await;
    assert_eq!(browser.text(&format!("{chart} .limit-name")).await, "warns 3 %");
    let all = browser.client.find_all(Locator::Css(".vm-hour [data-chart]")).await.expect("charts");
    assert_eq!(all.len(), 12);
    goes_on(&browser).await;
    goes_on(&browser).await;
    browser.reads("that is warned of").await;
    browser.pictured("whole").await;

    browser.client.set_window_size(1_280, 900).await.expect("a window has a size");

    let stopped = |it: &Application| it.slots[0].vm.as_ref().is_some_and(|it| it.fault.is_some());
    let pid = control_plane.application(APP).unwrap().slots[0].pid.unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    control_plane.application_when("that it does not answer", APP, stopped).await;
    browser.reads("Its figures cannot be read: no answer within").await;
    kill_process(pid, Signal::CONT).unwrap();
    goes_on(&browser).await;

    // What was read stays, and is called old.
    control_plane.kill();
    browser.there(".vm-hour [data-banner=old]").await;
    browser.there(&format!("{chart} path.series")).await;
    browser.pictured("failing").await;
    control_plane.resume().await;
    browser.gone(".vm-hour [data-banner=old]").await;

    agent.kill();
    browser.reads("Its node is not connected: nothing is known of its VM.").await;
    browser.there(&format!("{chart} path.series")).await;
    browser.pictured("lost").await;

    // Nobody reads on for a row that is closed.
    browser.client.set_window_size(1_280, 900).await.expect("a window has a size");
    // Else a browser that has noted as many as it keeps would count no more.
    let forget = "performance.clearResourceTimings()";
    browser.client.execute(forget, Vec::new()).await.expect("it is forgotten");
    within(PATIENCE, "that the row is read for while it is open", || async {
        if asked(&browser).await > 0 { Seen::Done(()) } else { Seen::NotYet("nothing".to_owned()) }
    })
    .await;
    browser.click(&format!("tr[data-row='web-1/{APP}/1']")).await;
    browser.gone(".vm-hour").await;
    let before = asked_at_last(&browser).await;
    agent.resume();
    browser.there("tr[data-row] [data-state=stable]").await;
    let since = Instant::now();
    within(PATIENCE, "two more questions, were there any", || async {
        assert_eq!(asked(&browser).await, before);
        if since.elapsed() > 2 * ASKED_EVERY { Seen::Done(()) } else { Seen::NotYet("too early".to_owned()) }
    })
    .await;
    browser.close().await;
}
