//! The loop that keeps what is assigned in step with what is wanted: load, plan, store, wake the nodes concerned.
//!
//! It takes no input. Whatever happens (a wish, a report, a node that falls silent, a deadline, or nothing for a while) is
//! a reason to look at everything again; what is done follows from what is found. Two of them may run at once: of two plans
//! made from the same state one is stored, the other is dropped and made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proto::ids::{AppName, NodeId};
use proto::state::Liveness;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Time};
use crate::fleet::{AppFleet, Observed, Place};
use crate::rollout::{Plan, Waiting, plan};

/// How long nothing may be looked at: whatever was missed is noticed after that.
const PERIOD: Duration = Duration::from_secs(3);

/// Between two looks: a thousand reports that come at once are one reason.
const PAUSE: Duration = Duration::from_millis(20);

/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

/// Looks in a row that each stored something, before others get a turn. More than any application needs.
const LOOKS: usize = 16;

/// What is waited for, by application; those that wait for nothing are not there.
pub type WaitingByApp = BTreeMap<AppName, Vec<Waiting>>;

/// A failure behind one of these traits; what exactly, is for the log.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What became of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Stored {
    /// Stored; these nodes' assignments changed.
    Yes(BTreeSet<NodeId>),
    /// Somebody else was faster: nothing was stored.
    Conflict,
}

/// Where plans are made from and go to.
#[async_trait::async_trait]
pub trait PlanStore: Send + Sync {
    /// Every application that is configured or still holds a slot, as of one instant, without what agents say.
    async fn load(&self) -> Result<Vec<AppFleet>, Source>;
    /// All of the plan or nothing, and only while the application's generation is the one it was made from.
    async fn store(&self, fleet: &AppFleet, plan: &Plan, now: Time) -> Result<Stored, Source>;
}

/// What agents say, and how to tell them that there is something new.
pub trait Agents: Send + Sync {
    fn liveness(&self, node: NodeId) -> Liveness;
    /// The generation of the last assignment that the node said, in its present session, to have stored.
    fn stored(&self, node: NodeId) -> u64;
    fn observed(&self, app: &AppName) -> BTreeMap<Place, Observed>;
    fn changes(&self) -> watch::Receiver<u64>;
    fn wake(&self, node: NodeId);
}

pub struct Reconciler {
    store: Arc<dyn PlanStore>,
    agents: Arc<dyn Agents>,
    clock: Clock,
    wake: Arc<Notify>,
    waiting: watch::Sender<Arc<WaitingByApp>>,
}

/// What one look at everything came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Look {
    /// Something was stored, or somebody else stored something: look again.
    again: bool,
    /// Something could not be stored.
    failed: bool,
    wake_at: Option<Time>,
}

impl Reconciler {
    pub fn new(store: Arc<dyn PlanStore>, agents: Arc<dyn Agents>, clock: Clock) -> Self {
        let waiting = watch::Sender::new(Arc::default());
        Self { store, agents, clock, wake: Arc::new(Notify::new()), waiting }
    }

    /// To be notified when something was wished or changed.
    pub fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    /// What each application waits for, as of the last look.
    pub fn waiting(&self) -> watch::Receiver<Arc<WaitingByApp>> {
        self.waiting.subscribe()
    }

    /// Runs until cancelled; a plan that is being stored is stored.
    pub async fn run(self, cancel: CancellationToken) {
        let mut changes = self.agents.changes();
        while !cancel.is_cancelled() {
            changes.mark_unchanged();
            let pause = self.look_until_settled().await;
            tokio::select! {
                biased; // stopping comes before new work
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            tokio::select! {
                biased; // stopping comes before new work; which of the others woke it does not matter
                () = cancel.cancelled() => return,
                () = self.wake.notified() => {}
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Returns how long nothing needs to be looked at.
    async fn look_until_settled(&self) -> Duration {
        for _ in 0..LOOKS {
            match self.look().await {
                Ok(Look { failed: true, .. }) => return RETRY,
                Ok(Look { again: true, .. }) => {}
                Ok(Look { wake_at, .. }) => {
                    let left = wake_at.map(|at| Duration::from_millis(at.since(self.clock.now())));
                    return left.map_or(PERIOD, |left| left.min(PERIOD));
                }
                Err(error) => {
                    tracing::error!(error = &*error, "cannot load what plans are made from; trying again");
                    return RETRY;
                }
            }
        }
        Duration::ZERO
    }

    async fn look(&self) -> Result<Look, Source> {
        let mut look = Look::default();
        let mut waiting = WaitingByApp::new();
        // One application's failure does not hold up the others.
        for mut fleet in self.store.load().await? {
            self.fill_in(&mut fleet);
            let now = self.clock.now();
            let plan = plan(&fleet, now);
            look.wake_at = [look.wake_at, plan.wake_at].into_iter().flatten().min();
            if !plan.is_empty() {
                match self.put(&fleet, &plan, now).await {
                    Ok(()) => look.again = true,
                    Err(error) => {
                        tracing::error!(app = %fleet.app, error = &*error, "cannot store a plan; trying again");
                        look.failed = true;
                    }
                }
            }
            if !plan.waiting.is_empty() {
                waiting.insert(fleet.app, plan.waiting);
            }
        }
        self.waiting.send_if_modified(|last| {
            let differs = **last != waiting;
            if differs {
                *last = Arc::new(waiting);
            }
            differs
        });
        Ok(look)
    }

    fn fill_in(&self, fleet: &mut AppFleet) {
        for (id, node) in &mut fleet.nodes {
            node.liveness = self.agents.liveness(*id);
            node.stored = self.agents.stored(*id);
        }
        fleet.observed = self.agents.observed(&fleet.app);
    }

    async fn put(&self, fleet: &AppFleet, plan: &Plan, now: Time) -> Result<(), Source> {
        match self.store.store(fleet, plan, now).await? {
            Stored::Yes(nodes) => {
                for happening in &plan.events {
                    tracing::info!(app = %fleet.app, kind = happening.kind.word(), "{}", happening.text);
                }
                for node in nodes {
                    self.agents.wake(node);
                }
            }
            Stored::Conflict => tracing::debug!(app = %fleet.app, "a plan was overtaken and is made anew"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Mutex, PoisonError};

    use proto::state::{SlotState, Strategy};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::rollout::fixture;

    /// One application's fleet as a database and agents would have it.
    struct World {
        fleet: Mutex<(AppFleet, BTreeMap<NodeId, u64>)>,
        /// What becomes of the next plans that are stored; then they are.
        trouble: Mutex<VecDeque<Result<Stored, Source>>>,
        changes: watch::Sender<u64>,
        woken: mpsc::UnboundedSender<NodeId>,
    }

    impl World {
        fn with<T>(&self, look: impl FnOnce(&mut AppFleet, &mut BTreeMap<NodeId, u64>) -> T) -> T {
            let mut inside = self.fleet.lock().unwrap_or_else(PoisonError::into_inner);
            let (fleet, generations) = &mut *inside;
            look(fleet, generations)
        }

        /// Every slot becomes what it was told to be.
        fn all_do_as_told(&self) {
            self.with(|fleet, _| {
                for (place, assigned) in &fleet.assigned {
                    let state = if assigned.release.is_some() { SlotState::Stable } else { SlotState::Empty };
                    let seen = fixture::seen(state, assigned.release.clone(), assigned.generation);
                    fleet.observed.insert(*place, seen);
                }
            });
            self.changes.send_modify(|count| *count += 1);
        }
    }

    #[async_trait::async_trait]
    impl PlanStore for World {
        async fn load(&self) -> Result<Vec<AppFleet>, Source> {
            Ok(vec![self.with(|fleet, _| AppFleet { observed: BTreeMap::new(), ..fleet.clone() })])
        }

        async fn store(&self, fleet: &AppFleet, plan: &Plan, now: Time) -> Result<Stored, Source> {
            if let Some(trouble) = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return trouble;
            }
            Ok(self.with(|stored, generations| {
                if stored.generation != fleet.generation {
                    return Stored::Conflict;
                }
                fixture::store(stored, plan, generations, now);
                Stored::Yes(plan.steps.iter().map(|step| step.place().node).collect())
            }))
        }
    }

    impl Agents for World {
        fn liveness(&self, _: NodeId) -> Liveness {
            Liveness::Up
        }

        fn stored(&self, _: NodeId) -> u64 {
            0
        }

        fn observed(&self, _: &AppName) -> BTreeMap<Place, Observed> {
            self.with(|fleet, _| fleet.observed.clone())
        }

        fn changes(&self) -> watch::Receiver<u64> {
            self.changes.subscribe()
        }

        fn wake(&self, node: NodeId) {
            let _ = self.woken.send(node);
        }
    }

    struct Running {
        world: Arc<World>,
        wake: Arc<Notify>,
        waiting: watch::Receiver<Arc<WaitingByApp>>,
        woken: mpsc::UnboundedReceiver<NodeId>,
        cancel: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Running {
        #[expect(clippy::disallowed_methods, reason = "the test owns the task and waits for it")]
        fn start(fleet: AppFleet, trouble: Vec<Result<Stored, Source>>) -> Self {
            let (sender, woken) = mpsc::unbounded_channel();
            let world = Arc::new(World {
                fleet: Mutex::new((fleet, BTreeMap::new())),
                trouble: Mutex::new(trouble.into()),
                changes: watch::Sender::new(0),
                woken: sender,
            });
            let reconciler = Reconciler::new(world.clone(), world.clone(), Clock::start());
            let (wake, waiting) = (reconciler.waker(), reconciler.waiting());
            let cancel = CancellationToken::new();
            let task = tokio::spawn(reconciler.run(cancel.clone()));
            Self { world, wake, waiting, woken, cancel, task }
        }

        async fn says(&mut self, sentence: &str) {
            let said = |waiting: &Arc<WaitingByApp>| {
                waiting.values().flatten().any(|it| it.to_string().starts_with(sentence))
            };
            self.waiting.wait_for(said).await.unwrap();
        }

        async fn stop(self) {
            self.cancel.cancel();
            self.task.await.unwrap();
        }
    }

    fn wished() -> AppFleet {
        let mut fleet = fixture::fleet(Strategy::StopFirst, 1, 1);
        fleet.wanted = Some(fixture::wish(1, 1));
        fleet
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_is_carried_out_and_the_nodes_concerned_are_woken() {
        let mut running = Running::start(wished(), Vec::new());
        assert_eq!(running.woken.recv().await, Some(fixture::node_id(1)));
        running.says("slot 1 on node-1 has not yet taken up what it was told").await;
        running.world.all_do_as_told();
        running.says("1.1.0 is stable and is watched").await;
        assert_eq!(running.world.with(|fleet, _| fleet.in_force.clone()), Some(fixture::release(1)));
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_plan_that_was_overtaken_or_not_stored_is_made_anew() {
        let trouble = vec![Ok(Stored::Conflict), Err("the disk is full".into()), Ok(Stored::Conflict)];
        let mut running = Running::start(wished(), trouble);
        assert_eq!(running.woken.recv().await, Some(fixture::node_id(1)));
        assert_eq!(running.world.with(|fleet, _| fleet.generation), 1);
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_wish_is_looked_at_when_it_is_notified_of() {
        let mut running = Running::start(fixture::fleet(Strategy::StopFirst, 1, 1), Vec::new());
        running.world.with(|fleet, _| fleet.wanted = Some(fixture::wish(1, 1)));
        running.wake.notify_one();
        assert_eq!(running.woken.recv().await, Some(fixture::node_id(1)));
        running.stop().await;
    }
}
