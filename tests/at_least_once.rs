//! Nothing that was committed is lost, nothing that was not is ever seen, and whatever came twice is explained, whoever dies.

use std::collections::{HashMap, HashSet};

use posthaste::store::connect_once;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{Partner, WorkerProcess, World};

#[tokio::test]
async fn twenty_thousand_events_survive_a_killed_worker_and_every_duplicate_is_explained() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "0s,0s,0s,0s,0s").await;
    let mut workers = Vec::new();
    for id in 1..=3 {
        workers.push((
            id,
            world
                .worker_process(&[("worker_name", &format!("w{id}")), ("lease", "1h")])
                .await,
        ));
    }
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let producers: Vec<_> = (0..8)
        .map(|number| tokio::spawn(Producer::new(world.url(), seed + number).produce(20_000 / 8)))
        .collect();

    partner.wait_for(5_000).await;
    kill_one_that_holds_leases(&world, &mut workers).await;
    let mut committed = HashSet::new();
    for producer in producers {
        committed.extend(producer.await.unwrap());
    }
    world.until_all_is_done().await;

    assert_eq!(committed.len(), 20_000);
    let counts = partner.counts();
    assert_eq!((counts.verified, counts.invalid), (counts.requests, 0));
    check(&committed, &receipts(&partner), &attempts(&world).await);
    assert!(
        world
            .holds("exists (select from posthaste.attempt where outcome = 'abandoned')")
            .await
    );
    for (_, worker) in workers {
        worker.terminate();
        assert_eq!(worker.ended().await.code(), Some(0));
    }
}

/// What the attempt rows of one event say.
struct Attempts {
    rows: i64,
    abandoned: i64,
    done: i64,
}

fn check(
    committed: &HashSet<Uuid>,
    receipts: &HashMap<Uuid, i64>,
    attempts: &HashMap<Uuid, Attempts>,
) {
    let missing = committed
        .iter()
        .filter(|id| !receipts.contains_key(id))
        .count();
    let ghosts = receipts
        .keys()
        .chain(attempts.keys())
        .filter(|id| !committed.contains(id))
        .count();
    assert_eq!((missing, ghosts), (0, 0), "missing, ghosts");
    for (id, received) in receipts {
        let Attempts {
            rows,
            abandoned,
            done,
        } = attempts[id];
        assert_eq!(done, 1, "{id} is finished once");
        assert!(*received <= rows, "{id}: {received} requests, {rows} rows");
        assert!(
            received - 1 <= abandoned,
            "{id}: {received} requests, {abandoned} of them abandoned"
        );
    }
}

fn receipts(partner: &Partner) -> HashMap<Uuid, i64> {
    let mut receipts = HashMap::new();
    for id in partner.ids() {
        *receipts.entry(id.parse().unwrap()).or_default() += 1;
    }
    receipts
}

async fn attempts(world: &World) -> HashMap<Uuid, Attempts> {
    let query = "select event_id, count(*), count(*) filter (where outcome = 'abandoned'), count(*) filter (where verdict = 'done')
        from posthaste.attempt group by event_id";
    let rows = world.db.query(query, &[]).await.unwrap();
    let of = |row: &tokio_postgres::Row| Attempts {
        rows: row.get(1),
        abandoned: row.get(2),
        done: row.get(3),
    };
    rows.iter().map(|row| (row.get(0), of(row))).collect()
}

/// Frozen first, so that what it holds can be seen before it dies with it.
async fn kill_one_that_holds_leases(world: &World, workers: &mut Vec<(i32, WorkerProcess)>) {
    loop {
        for place in 0..workers.len() {
            workers[place].1.freeze();
            let held = format!(
                "exists (select from posthaste.lease where holder = {})",
                workers[place].0
            );
            if world.holds(&held).await {
                return workers.swap_remove(place).1.kill().await;
            }
            workers[place].1.thaw();
        }
        tokio::task::yield_now().await;
    }
}

/// One of the platform's services: commits, rolls back, and now and then leaves a transaction open while it goes on in others.
struct Producer {
    url: String,
    chance: fastrand::Rng,
}

impl Producer {
    fn new(url: &str, seed: u64) -> Self {
        Self {
            url: url.to_owned(),
            chance: fastrand::Rng::with_seed(seed),
        }
    }

    /// Commits this many events and returns their ids.
    async fn produce(mut self, count: usize) -> Vec<Uuid> {
        let (client, aside) = (self.connect().await, self.connect().await);
        let mut committed = Vec::with_capacity(count);
        let mut open: Option<(usize, Vec<Uuid>)> = None;
        while committed.len() < count {
            let left = count - committed.len() - open.as_ref().map_or(0, |(_, ids)| ids.len());
            if open.is_none() && left > 0 && self.chance.u8(..10) == 0 {
                aside.batch_execute("begin").await.unwrap();
                let ids = self.insert(&aside, left).await;
                open = Some((self.chance.usize(1..20), ids));
            } else if left > 0 {
                committed.extend(self.transact(&client, left).await);
            }
            open = match open {
                Some((transactions, ids)) if transactions > 0 && left > 0 => {
                    Some((transactions - 1, ids))
                }
                Some((_, ids)) => {
                    aside.batch_execute("commit").await.unwrap();
                    committed.extend(ids);
                    None
                }
                None => None,
            };
        }
        committed
    }

    /// One transaction of a few statements; nothing comes of some.
    async fn transact(&mut self, client: &Client, most: usize) -> Vec<Uuid> {
        client.batch_execute("begin").await.unwrap();
        let mut ids = Vec::new();
        while ids.len() < most && (ids.is_empty() || self.chance.bool()) {
            ids.extend(self.insert(client, most - ids.len()).await);
            if self.chance.u8(..8) == 0 {
                client.batch_execute("savepoint s").await.unwrap();
                self.insert(client, 5).await;
                client.batch_execute("rollback to s").await.unwrap();
            }
        }
        let commits = self.chance.u8(..6) > 0;
        client
            .batch_execute(if commits { "commit" } else { "rollback" })
            .await
            .unwrap();
        if commits { ids } else { Vec::new() }
    }

    async fn insert(&mut self, client: &Client, most: usize) -> Vec<Uuid> {
        let events = i32::try_from(self.chance.usize(1..=most.min(20))).unwrap();
        let insert = "insert into posthaste.outbox (event_type, payload)
            select 'thing.happened', json_build_object('n', n) from generate_series(1, $1::integer) n returning event_id";
        let rows = client.query(insert, &[&events]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn connect(&self) -> Client {
        let client = connect_once(&self.url).await.unwrap();
        client
            .batch_execute("set application_name = 'trial'")
            .await
            .unwrap();
        client
    }
}
