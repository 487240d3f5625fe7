//! What Prometheus is shown: partners that are well, fail, refuse, hang and are paused, and workers of which one died.

use std::net::SocketAddr;

use bytes::Bytes;
use posthaste::trial::partner::{Received, Replies, Reply};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{Partner, WorkerProcess, World};

/// The subscription that the dashboard of one subscription shows: it accepted something, and then failed for long.
pub(crate) const FAILING: &str = "it's failing";

pub(crate) struct Stage {
    world: World,
    workers: [WorkerProcess; 2],
    event: Uuid,
    /// A session whose transaction nobody ends.
    _forgotten: Client,
    _partners: Vec<Partner>,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let world = World::new().await;
        world.run(PARTITIONS).await;
        let mut partners = agreed(&world).await;
        lose_a_worker(&world).await;
        let workers = [
            world.worker_process(&SETTINGS).await,
            world
                .worker_process(&[SETTINGS[0], SETTINGS[1], ("max_in_flight", "64")])
                .await,
        ];
        let event = world.publish("order.made", r#"{"number": 1}"#).await;
        world
            .until("(select count(*) from posthaste.attempt where outcome = 'accepted') >= 2")
            .await;
        let failing = partners.last_mut().unwrap();
        failing.set_reply(Replies::by(refuses_or_fails));
        let stage = Self {
            workers,
            event,
            _forgotten: forgotten(&world).await,
            _partners: partners,
            world,
        };
        stage.go_wrong().await;
        stage
    }

    /// Where the workers serve their pages.
    pub(crate) async fn addresses(&self) -> [SocketAddr; 2] {
        let [one, other] = &self.workers;
        [
            one.telemetry_address().await,
            other.telemetry_address().await,
        ]
    }

    /// What Prometheus scrapes: the workers, and an address at which nobody listens.
    pub(crate) async fn targets(&self) -> Vec<String> {
        let mut targets = self
            .addresses()
            .await
            .map(|address| address.to_string())
            .to_vec();
        targets.push("127.0.0.1:1".into());
        targets
    }

    /// Some more of everything that is counted.
    pub(crate) async fn go_on(&self) {
        self.world.publish("order.made", r#"{"number": 2}"#).await;
        self.world
            .publish("order.made", r#"{"refuse": true}"#)
            .await;
        self.world.publish("order.made", "[]").await;
        self.world.publish("order.lost", "{}").await;
        self.world.publish_old("order.late", 1).await;
        // Let the breaker's next probe go.
        self.world
            .run("update posthaste.lane set hold_until = now() - interval '1 ms' where breaker <> 'closed'")
            .await;
        self.world.make_due().await;
    }

    /// Holds where each of these statements, run as an auditor, returns rows.
    pub(crate) async fn rows_are_there(&self, statements: &[(String, String)]) {
        let auditor = self.world.login("posthaste_auditor").await;
        for (place, statement) in statements {
            let rows = auditor.db.query(statement, &[]).await;
            let rows = rows.unwrap_or_else(|error| panic!("{place}: {statement}: {error:?}"));
            assert_eq!(
                rows.is_empty(),
                NO_ROWS.contains(&place.as_str()),
                "{place}: {statement}"
            );
        }
    }

    /// One that had a delivery to everybody.
    pub(crate) fn event(&self) -> String {
        self.event.to_string()
    }

    /// Everything that takes time to go wrong has done so an hour ago.
    async fn go_wrong(&self) {
        self.go_on().await;
        self.world
            .until("exists (select from posthaste.lane where breaker <> 'closed') and exists (select from posthaste.quarantine)
                    and exists (select from posthaste.dead_letter) and exists (select from posthaste.attempt where outcome = 'abandoned')
                    and exists (select from posthaste.operational_event where event_type = 'posthaste.subscription.paused')")
            .await;
        self.world
            .run("update posthaste.lane set failing_since = failing_since - interval '1 hour', breaker_since = breaker_since - interval '1 hour';
                  update posthaste.signing_secret set created_at = now() - interval '10 years'
                  where subscription_id = (select subscription_id from posthaste.subscription where name = 'well');
                  update posthaste.setting set four_eyes = false")
            .await;
        self.world.run(ORDERED).await;
    }
}

/// The subscriptions, and the partners behind them; the last one is of [`FAILING`].
async fn agreed(world: &World) -> Vec<Partner> {
    let mut partners = Vec::new();
    for (name, reply, types, retry) in [
        (
            "well",
            Reply::Status(200),
            &["order.made", "order.late"][..],
            "1h",
        ),
        ("gives up", Reply::Status(503), &["order.made"], ""),
        ("gone", Reply::Status(410), &["order.made"], "1h"),
        ("hangs", Reply::Hang, &["order.stuck"], "1h"),
        ("paused", Reply::Status(200), &["order.made"], "1h"),
        ("nameless", Reply::Status(200), &["order.stuck"], "1h"),
        (
            FAILING,
            Reply::Status(200),
            &["order.made", "order.late"],
            RETRIES,
        ),
    ] {
        let partner = Partner::replying(reply).await;
        world
            .subscribe_url(name, &partner.url("/hooks"), types, None, retry)
            .await;
        partners.push(partner);
    }
    world.change(FAILING, BREAKER).await;
    world
        .change("nameless", r#"{"headers": {"X-Key": {"secret": true}}}"#)
        .await;
    world
        .run("select posthaste.deactivate('paused', 'a trial')")
        .await;
    world.run(SCHEMA).await;
    partners
}

/// A worker that dies between sending and recording.
async fn lose_a_worker(world: &World) {
    let lost = world.worker_process(&[]).await;
    world.publish("order.stuck", "{}").await;
    world.until("exists (select from posthaste.lease)").await;
    lost.kill().await;
}

async fn forgotten(world: &World) -> Client {
    let session = world.session().await;
    session
        .batch_execute("begin isolation level repeatable read; select from posthaste.setting")
        .await
        .unwrap();
    session
}

/// What it does not want for good is a dead letter; all else it fails to take.
fn refuses_or_fails(received: &Received) -> Reply {
    let refuses = received.body.windows(6).any(|six| six == b"refuse");
    let abort = ("webhook-delivery".to_owned(), "abort-message".to_owned());
    Reply::StatusWith {
        status: 500,
        headers: refuses.then_some(abort).into_iter().collect(),
        body: Bytes::from_static(b"out of order"),
    }
}

const SETTINGS: [(&str, &str); 2] = [("listen", "127.0.0.1:0"), ("observe_interval", "1s")];

const RETRIES: &str = "1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h,1h";

const BREAKER: &str = r#"{"breaker": {"failures": 3, "ratio": null, "open_for": "1 hour", "open_for_at_most": "3 hours"}}"#;

/// Payloads are objects: others are held.
const SCHEMA: &str =
    r#"select posthaste.change_event_type('order.made', '{"schema": {"type": "object"}}')"#;

/// Also of yesterday: some events are two hours old. Before the first event, which would go into the default one.
const PARTITIONS: &str = "select posthaste.create_partition('posthaste.outbox', (now() at time zone 'UTC')::date - 1), posthaste.create_partitions(7)";

/// Of one key, the second waits behind the first.
const ORDERED: &str = "insert into posthaste.outbox (event_type, ordering_key, payload)
    values ('order.made', 'k', '{}'), ('order.made', 'k', '{}')";

/// Panels of what this stage does not play.
const NO_ROWS: [&str; 3] = [
    // Half an hour is not over.
    "database.json, Findings about the database, A",
    "subscription.json, Requests to be let in, A",
    "subscription.json, Replays, A",
];
