//! What the control plane does to tell nodes what to run, alone, so that it can be measured: plans stored one after another
//! in a database of their own. Built with the feature `bench` only; no part of an installation.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::Context as _;
use clap::Parser;
use control_plane::clock::{Clock, Time};
use control_plane::db::{
    ApplicationsDiff, Db, Enrolment, NewApplication, NewCertificate, NewJoinToken, Release, Source,
};
use control_plane::fleet::Place;
use control_plane::rollout::{Plan, Step};
use control_plane::spec::AppSpec;
use proto::ids::{AppName, Digest, NodeId, ReleaseKey, Slot};
use proto::state::Language;
use uuid::Uuid;

/// Stores plans for a while, for each number of slots that one may change, and says how many it stored.
#[derive(Debug, Parser)]
struct Arguments {
    /// Of an empty database.
    #[arg(long)]
    database_url: String,
    /// Slots in a plan, each on a node of its own; one after another.
    #[arg(long, value_delimiter = ',', required = true)]
    batches: Vec<u16>,
    /// For each of them.
    #[arg(long, default_value_t = 1000)]
    millis: u64,
}

const NOW: Time = Time(1);
const NEVER: Time = Time(1000);
const TOKEN: [u8; 32] = [1; 32];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { database_url, batches, millis } = Arguments::parse();
    let db = Db::open(&database_url).await?;
    let app: AppName = "shop".parse()?;
    // What is deployed is another release each time, so that everything is written that a deployment writes.
    let releases = [release(&app, 1)?, release(&app, 2)?];
    let nodes = fill(&db, &app, &releases, batches.iter().copied().max().unwrap_or(0)).await?;
    let clock = Clock::start();
    let mut stored: u64 = 0;
    for batch in batches {
        let (begun, before) = (clock.now(), stored);
        while clock.now().since(begun) < millis {
            let release = &releases[usize::from(stored.is_multiple_of(2))].key;
            let application = db.application(&app).await?.context("the application is gone")?;
            let plan = Plan { steps: steps(&nodes[..usize::from(batch)], release)?, ..Plan::default() };
            db.store_plan(&app, application.generation, &plan, NOW).await?;
            stored += 1;
        }
        let line = format!("stored {} plans of {batch} in {} ms", stored - before, clock.now().since(begun));
        writeln!(std::io::stdout(), "{line}").context("cannot write to standard output")?;
    }
    Ok(db.close().await?)
}

fn steps(nodes: &[NodeId], release: &ReleaseKey) -> anyhow::Result<Vec<Step>> {
    let slot = Slot::new(1).context("no slot 1")?;
    let assign = |node: &NodeId| Step::Assign {
        place: Place { node: *node, slot },
        release: release.clone(),
        pre_commands_run: None,
        begins: true,
        hot: None,
    };
    Ok(nodes.iter().map(assign).collect())
}

/// One application and so many nodes.
async fn fill(db: &Db, app: &AppName, releases: &[Release], nodes: u16) -> anyhow::Result<Vec<NodeId>> {
    let put = vec![NewApplication {
        spec: AppSpec::new(app.clone(), Language::Elixir),
        source: Source::Yaml,
        cookie: b"cookie".to_vec(),
    }];
    db.put_applications(ApplicationsDiff { put, ..ApplicationsDiff::default() }, NOW).await?;
    for release in releases {
        db.record_release(release, &[]).await?;
    }
    let token = NewJoinToken {
        hash: TOKEN,
        uses: nodes,
        labels: BTreeMap::new(),
        created_by: "bench".to_owned(),
        created_at: NOW,
        expires_at: NEVER,
    };
    db.add_join_token(&token, &[], None).await?;
    let mut ids = Vec::new();
    for number in 0..nodes {
        let node = Enrolment {
            id: NodeId(Uuid::now_v7()),
            name: format!("web-{number}").parse()?,
            labels: BTreeMap::new(),
            agent_version: "1.0".to_owned(),
            token_hash: TOKEN,
            certificate: NewCertificate { serial: format!("serial of {number}"), not_after: NEVER },
        };
        ids.push(db.enrol(&node, NOW, &[]).await?.id);
    }
    Ok(ids)
}

fn release(app: &AppName, number: u8) -> anyhow::Result<Release> {
    Ok(Release {
        app: app.clone(),
        key: ReleaseKey { version: format!("{number}.0.0").parse()?, sha256: Digest([number; 32]) },
        size: 50_000_000,
        declared_hash: None,
        pre_commands: Vec::new(),
        etag: None,
        recorded_at: NOW,
        package: None,
    })
}
