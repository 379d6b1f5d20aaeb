//! Who is told where the other Erlang nodes of an application are: agents that run a replica of it, where it is to be connected
//! across hosts, of that application alone.

use proto::pb;

use crate::fleet::{Agent, ControlPlane, app, until};

fn report(app: &str, slot: u32, pid: u32, name: &str) -> pb::SlotReport {
    let erlang = Some(pb::ErlangNode { name: name.to_owned(), ..Default::default() });
    pb::SlotReport { app: app.to_owned(), slot, pid, erlang, ..Default::default() }
}

fn reports(agent: &Agent, reports: &[pb::SlotReport]) {
    agent.observed.send_modify(|observed| {
        for report in reports {
            let id = (report.app.parse().unwrap(), proto::ids::Slot::new(report.slot).unwrap());
            observed.slots.insert(id, report.clone());
        }
    });
}

fn told(agent: &Agent) -> Vec<(String, Vec<String>)> {
    let told = agent.siblings.borrow();
    told.applications.iter().map(|it| (it.app.clone(), it.nodes.clone())).collect()
}

#[tokio::test]
async fn agents_are_told_of_the_nodes_on_other_hosts_of_applications_that_are_fleets() {
    let plane = ControlPlane::start().await;
    let assign = |generation, cluster: pb::Cluster| {
        plane.wishes.assign(generation);
        let mut assignment = plane.wishes.assignment.lock().unwrap();
        let application =
            pb::Application { name: app().to_string(), cluster: cluster.into(), ..Default::default() };
        assignment.applications = vec![application];
    };
    assign(1, pb::Cluster::Node);
    let (one, other) = (plane.agent("web-1").await, plane.agent("web-2").await);
    reports(&one, &[report("shop", 1, 7, "shop-1@web-1"), report("blog", 1, 8, "blog-1@web-1")]);
    // Of one that does not run its name says nothing.
    reports(&one, &[report("shop", 2, 0, "shop-2@web-1")]);
    reports(&other, &[report("shop", 1, 7, "shop-1@web-2")]);
    until("both have reported", || plane.agents.observed(&app()).len() == 3).await;
    assert_eq!((told(&one), told(&other)), (vec![], vec![]), "each host is a cluster of its own");

    assign(2, pb::Cluster::Fleet);
    for agent in [&one, &other] {
        plane.agents.wake(agent.node);
    }
    let of_shop =
        |names: &[&str]| vec![("shop".to_owned(), names.iter().map(|it| (*it).to_owned()).collect())];
    until("the first is told", || told(&one) == of_shop(&["shop-1@web-2"])).await;
    until("the other is told", || told(&other) == of_shop(&["shop-1@web-1"])).await;

    reports(&one, &[report("shop", 2, 9, "shop-2@web-1")]);
    until("what changes is told", || told(&other) == of_shop(&["shop-1@web-1", "shop-2@web-1"])).await;
}
