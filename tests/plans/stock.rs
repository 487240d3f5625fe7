//! A database that holds as much as a test wants, and sessions with a worker's settings on it.

use posthaste::config::Config;
use posthaste::store::{Store, connect_once, migrate};
use tokio_postgres::Client;

use super::session::Session;
use crate::harness::Database;

pub(crate) struct Stock {
    pub(crate) db: Client,
    database: Database,
}

impl Stock {
    /// Migrated, with two months of partitions, and holding nothing.
    pub(crate) async fn empty() -> Self {
        let database = Database::empty().await;
        migrate(&database.url).await.unwrap();
        let db = connect_once(&database.url).await.unwrap();
        db.batch_execute(include_str!("stock.sql")).await.unwrap();
        let stock = Self { db, database };
        stock.note_settings().await;
        stock.analyze().await;
        stock
    }

    /// One row for each number from `low` to `high` in intake, outbox, queue and history; see stock.sql.
    pub(crate) async fn fill(&self, low: i32, high: i32) {
        self.run(&format!("select trial.fill({low}, {high})")).await;
    }

    /// With enough that waits and is leased for some rounds, no event that waits to be taken, and fresh statistics.
    pub(crate) async fn in_swing() -> Self {
        let stock = Self::empty().await;
        stock.fill(1, 20_000).await;
        stock.run("delete from posthaste.intake").await;
        stock.analyze().await;
        stock
    }

    /// Nothing is owed any more, and vacuum has been here.
    pub(crate) async fn clear(&self) {
        self.run("delete from posthaste.intake; delete from posthaste.queue; delete from posthaste.lease; delete from posthaste.follower; delete from posthaste.ordering; update posthaste.lane set wake_at = 'infinity'")
            .await;
        for table in ["intake", "queue", "lease", "lane", "follower", "ordering"] {
            self.run(&format!("vacuum posthaste.{table}")).await;
        }
    }

    /// Everything was taken: the next look may start at the oldest transaction that still runs, as take.sql tells.
    pub(crate) async fn note_watermark(&self) {
        self.run("update trial.watermark set xid = pg_snapshot_xmax(pg_current_snapshot())::text, open = array(select x::text from pg_snapshot_xip(pg_current_snapshot()) x)")
            .await;
    }

    /// Somebody reads for long: until the session is dropped, vacuum removes nothing and no scan forgets what is dead.
    pub(crate) async fn read_for_long(&self) -> Client {
        self.hold_vacuum_with("1").await
    }

    /// As [`read_for_long`](Self::read_for_long), by somebody who has written too: no snapshot begins after them either.
    pub(crate) async fn write_for_long(&self) -> Client {
        self.hold_vacuum_with("pg_current_xact_id()").await
    }

    async fn hold_vacuum_with(&self, what: &str) -> Client {
        let long = connect_once(&self.database.url).await.unwrap();
        let begin = format!("begin isolation level repeatable read; select {what}");
        long.batch_execute(&begin).await.unwrap();
        long
    }

    /// Makes the statistics fresh, and leaves nothing behind of what was undone.
    pub(crate) async fn analyze(&self) {
        self.run("vacuum (analyze, index_cleanup on)").await;
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.db.batch_execute(sql).await.unwrap();
    }

    /// One more session with the settings of a worker's, which has prepared every statement and planned none.
    pub(crate) async fn session(&self) -> Session {
        let client = connect_once(&self.database.url).await.unwrap();
        let settings = "select set_config(name, setting, false) from trial.setting";
        client.batch_execute(settings).await.unwrap();
        // Whoever takes seconds has failed; no need to wait for half a minute.
        let patience = "set statement_timeout = '10s'";
        client.batch_execute(patience).await.unwrap();
        Session::prepared(client).await
    }

    /// A session that has planned every statement, now.
    pub(crate) async fn planned_session(&self) -> Session {
        let session = self.session().await;
        session.plan().await;
        session
    }

    /// Has a worker's own session tell how it is set.
    async fn note_settings(&self) {
        let mut config = Config::default();
        config.set("database_url", &self.database.url).unwrap();
        let store = Store::open(&config).unwrap();
        let door = "insert into posthaste.worker (name, version, lease, started_at) values ('asked', 'trial', '1 minute', now())";
        self.run(door).await;
        store.end_workers(&[1], Some(1)).await.unwrap();
        let reset =
            "delete from posthaste.worker; alter sequence posthaste.worker_worker_id_seq restart";
        self.run(reset).await;
        let row = self
            .db
            .query_one(
                "select count(*) from trial.setting where name like 'enable%'",
                &[],
            )
            .await;
        assert!(
            row.unwrap().get::<_, i64>(0) > 0,
            "a worker's session told nothing of its planner"
        );
    }
}
