//! One test's world.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use posthaste::config::Config;
use posthaste::secret::{CredentialKind, Keyring, SigningSecret};
use posthaste::store::{Listener, connect_once, listen};
use posthaste::trial::partner::Reply;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::backstage::{BACKSTAGE, Database};
use super::{Login, PATIENCE, Partner, Wire, WorkerProcess, WorkerThread};

/// A migrated database of its own, and all that is needed to deliver from it. Declare it first, so that it goes last.
pub(crate) struct World {
    /// For whatever SQL the test wants. Its application name is `trial`, a worker's begins with `posthaste`.
    pub(crate) db: Client,
    changes: Listener,
    /// What workers log in as: it is in `posthaste_worker`, and nothing else.
    worker: Login,
    keys: String,
    ca_file: PathBuf,
    pub(super) database: Database,
}

impl World {
    pub(crate) async fn new() -> Self {
        let database = Database::migrated().await;
        let db = connect(&database.url).await;
        let changes = listen(&database.url).await.unwrap();
        changes
            .client
            .batch_execute("set application_name = 'trial'; listen trial")
            .await
            .unwrap();
        let ca_file = std::env::temp_dir().join(format!("posthaste-test-{}.pem", Uuid::now_v7()));
        BACKSTAGE.authority.write_pem(&ca_file).unwrap();
        let keys = Keyring::generate_line("k1").unwrap().to_string();
        let worker = Login::new(&database, &db, "posthaste_worker").await;
        Self {
            db,
            changes,
            worker,
            keys,
            ca_file,
            database,
        }
    }

    /// The database's connection string.
    pub(crate) fn url(&self) -> &str {
        &self.database.url
    }

    /// What seals this world's secrets, as `POSTHASTE_KEYS` has it.
    pub(crate) fn keys(&self) -> &str {
        &self.keys
    }

    /// The login of every worker of this world.
    pub(crate) fn worker_login(&self) -> &str {
        &self.worker.name
    }

    /// One more session.
    pub(crate) async fn session(&self) -> Client {
        connect(self.url()).await
    }

    /// A partner that answers 200 to everything.
    pub(crate) async fn partner(&self) -> Partner {
        Partner::replying(Reply::Status(200)).await
    }

    /// Subscribes a partner to all events at the path `/<name>`. `retry` is a list of intervals such as `5s,1h`.
    pub(crate) async fn subscribe(&self, name: &str, partner: &Partner, retry: &str) -> i32 {
        self.subscribe_to(name, partner, &["*"], None, retry).await
    }

    /// As [`subscribe`](Self::subscribe), by way of a wire.
    pub(crate) async fn subscribe_through(
        &self,
        wire: &Wire,
        partner: &Partner,
        retry: &str,
    ) -> i32 {
        let id = self
            .subscribe_url("wired", &wire.url("/wired"), &["*"], None, retry)
            .await;
        self.share_secret(id, partner).await;
        id
    }

    /// Subscribes a partner to these event types, which are added to the catalogue, and to one tenant where it is named.
    pub(crate) async fn subscribe_to(
        &self,
        name: &str,
        partner: &Partner,
        event_types: &[&str],
        tenant: Option<&str>,
        retry: &str,
    ) -> i32 {
        let id = self
            .subscribe_url(
                name,
                &partner.url(&format!("/{name}")),
                event_types,
                tenant,
                retry,
            )
            .await;
        self.share_secret(id, partner).await;
        id
    }

    /// Subscribes a URL. It gets a secret that nobody knows at its first delivery. However often it fails, it is tried on: those
    /// whose claim is a circuit breaker agree on one.
    pub(crate) async fn subscribe_url(
        &self,
        name: &str,
        url: &str,
        event_types: &[&str],
        tenant: Option<&str>,
        retry: &str,
    ) -> i32 {
        let catalogue = "insert into posthaste.event_type (event_type, description)
            select t, 'for a test' from unnest($1::text[]) t where t <> '*' on conflict do nothing";
        self.db.execute(catalogue, &[&event_types]).await.unwrap();
        let terms = format!(
            "{}, {}, {}, {}, unknown_types => {}, retry_intervals => {}, breaker => null",
            quoted(name),
            quoted(url),
            quoted(&format!("{{{}}}", event_types.join(","))),
            tenant.map_or("null".to_owned(), quoted),
            event_types == ["*"],
            quoted(&format!("{{{retry}}}"))
        );
        self.agree(&format!("propose_subscription({terms})")).await
    }

    /// Has changes of a subscription's terms proposed and approved, as JSON.
    pub(crate) async fn change(&self, name: &str, changes: &str) {
        let (name, changes) = (quoted(name), quoted(changes));
        self.agree(&format!("propose_change({name}, {changes})"))
            .await;
    }

    /// Has a proposal approved at once, as where there is one administrator. Returns the subscription's id.
    pub(crate) async fn agree(&self, proposal: &str) -> i32 {
        self.run("update posthaste.setting set four_eyes = false")
            .await;
        let agreed = format!("select posthaste.approve(posthaste.{proposal})");
        let id = self
            .db
            .query_one(&agreed, &[])
            .await
            .expect(proposal)
            .get(0);
        self.run("update posthaste.setting set four_eyes = true")
            .await;
        id
    }

    async fn share_secret(&self, subscription_id: i32, partner: &Partner) {
        let secret = SigningSecret::generate().unwrap();
        partner.learn(secret.clone());
        self.add_secret(subscription_id, &secret).await;
    }

    /// Stores one more signing secret for a subscription.
    pub(crate) async fn add_secret(&self, subscription_id: i32, secret: &SigningSecret) {
        let keyring = self.config(&[]).keyring().unwrap();
        self.add_secret_under(&keyring, subscription_id, secret)
            .await;
    }

    /// The same, sealed under other keys than this world's.
    pub(crate) async fn add_secret_under(
        &self,
        keyring: &Keyring,
        subscription_id: i32,
        secret: &SigningSecret,
    ) {
        let secret_id = Uuid::now_v7();
        let sealed = keyring.seal(subscription_id, secret_id, secret).unwrap();
        let add = include_str!("../../sql/queries/add_secret.sql");
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &subscription_id,
            &secret_id,
            &sealed.key_id,
            &sealed.ciphertext,
            &"a trial",
            &secret.kind().as_str(),
            &secret.public_key().map(|key| key.bytes().to_vec()),
        ];
        self.db.query(add, parameters).await.unwrap();
    }

    /// Stores the value of a secret header, or what `:authentication` or `:client_key` names.
    pub(crate) async fn set_credential(&self, name: &str, id: i32, header: &str, value: &str) {
        let secret_id = Uuid::now_v7();
        let keyring = self.config(&[]).keyring().unwrap();
        let kind = match header {
            ":authentication" => CredentialKind::Authentication,
            ":client_key" => CredentialKind::ClientKey,
            _ => CredentialKind::Header,
        };
        let sealed = keyring.seal_credential(kind, id, secret_id, value).unwrap();
        let set = "select posthaste.set_credential($1, $2, $3, $4, $5, 'a trial')";
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &name,
            &header,
            &secret_id,
            &sealed.key_id,
            &sealed.ciphertext,
        ];
        self.db.execute(set, parameters).await.unwrap();
    }

    /// Commits one event, by a plain INSERT.
    pub(crate) async fn publish(&self, event_type: &str, payload: &str) -> Uuid {
        let insert = "insert into posthaste.outbox (event_type, payload) values ($1, $2::text::json) returning event_id";
        self.db
            .query_one(insert, &[&event_type, &payload])
            .await
            .unwrap()
            .get(0)
    }

    /// Commits this many events of one type in one statement, with their numbers from 1 as payloads.
    pub(crate) async fn publish_many(&self, event_type: &str, count: i32) {
        let insert = "insert into posthaste.outbox (event_type, payload)
            select $1, to_json(n) from generate_series(1, $2::integer) n";
        self.db
            .execute(insert, &[&event_type, &count])
            .await
            .unwrap();
    }

    /// So many events that were inserted two hours ago.
    pub(crate) async fn publish_old(&self, event_type: &str, count: i32) {
        self.run(&format!(
            "insert into posthaste.outbox (event_id, event_type, payload)
             select overlay(posthaste.first_event_id(now() - interval '2 hours' + n * interval '1 ms')::text placing '7' from 15 for 1)::uuid, '{event_type}', '0' from generate_series(1, {count}) n"
        ))
        .await;
    }

    /// What a worker of this world is configured with, and `settings` on top.
    pub(crate) fn config(&self, settings: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        for (key, value) in self.settings(settings) {
            config.set(&key, &value).unwrap();
        }
        config
    }

    /// What a worker's shell of this world has in its environment, and `settings` on top.
    pub(crate) fn environment(&self, settings: &[(&str, &str)]) -> Vec<(String, String)> {
        let variables = self.settings(settings).into_iter();
        variables
            .map(|(key, value)| (format!("POSTHASTE_{}", key.to_uppercase()), value))
            .collect()
    }

    /// A worker in this process that is registered and looks for work. Settings are written as in a configuration file.
    pub(crate) async fn worker(&self, settings: &[(&str, &str)]) -> WorkerThread {
        WorkerThread::start(self.config(settings)).ready().await
    }

    /// The real program, registered and looking for work.
    pub(crate) async fn worker_process(&self, settings: &[(&str, &str)]) -> WorkerProcess {
        self.process(WorkerProcess::start, settings).await
    }

    /// The same, with a standard output that nobody ever reads.
    pub(crate) async fn unread_worker_process(&self, settings: &[(&str, &str)]) -> WorkerProcess {
        self.process(WorkerProcess::start_unread, settings).await
    }

    async fn process(
        &self,
        start: impl FnOnce(Vec<(String, String)>) -> WorkerProcess,
        settings: &[(&str, &str)],
    ) -> WorkerProcess {
        let before = self.count("select count(*) from posthaste.worker").await;
        let process = start(self.environment(settings));
        self.until(&format!(
            "(select count(*) from posthaste.worker) > {before}"
        ))
        .await;
        process
    }

    /// Waits until an SQL condition is true: looks again after every change in the queue, the intake,
    /// the attempts and the workers, and now and then for what changes without a row. Fails when
    /// nothing has changed for as long as a test waits, or when it takes several times as long.
    pub(crate) async fn until(&self, condition: &str) {
        let begun = Instant::now();
        let mut changed = begun;
        while !self.holds(condition).await {
            let is_lost = changed.elapsed() > PATIENCE || begun.elapsed() > 5 * PATIENCE;
            assert!(!is_lost, "never true: {condition}\n{}", self.state().await);
            let change = tokio::time::timeout(LOOK_AGAIN, self.changes.bell.notified()).await;
            changed = if change.is_ok() {
                Instant::now()
            } else {
                changed
            };
        }
    }

    /// Waits until nothing is owed.
    pub(crate) async fn until_all_is_done(&self) {
        self.until(
            "not exists (select from posthaste.intake) and not exists (select from posthaste.queue)
             and not exists (select from posthaste.lease) and not exists (select from posthaste.follower)
             and not exists (select from posthaste.quarantine where decision = 'released' and not is_requeued)",
        )
        .await;
    }

    /// Whether an SQL condition is true now.
    pub(crate) async fn holds(&self, condition: &str) -> bool {
        let row = self
            .changes
            .client
            .query_one(&format!("select coalesce(({condition}), false)"), &[])
            .await;
        row.unwrap().get(0)
    }

    /// The one number that a query returns.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        self.db.query_one(query, &[]).await.unwrap().get(0)
    }

    /// The one text that a query returns; empty for null.
    pub(crate) async fn text(&self, query: &str) -> String {
        self.db
            .query_one(query, &[])
            .await
            .unwrap()
            .get::<_, Option<String>>(0)
            .unwrap_or_default()
    }

    /// Runs statements.
    pub(crate) async fn run(&self, statements: &str) {
        self.db.batch_execute(statements).await.unwrap();
    }

    /// The attempts of an event in order, such as `1 rejected retry, 2 accepted done`.
    pub(crate) async fn story(&self, event_id: Uuid) -> String {
        self.text(&format!(
            "select string_agg(format('%s %s %s', number, outcome, verdict), ', '
                order by subscription_id, replay, number, outcome <> 'abandoned')
             from posthaste.attempt where event_id = '{event_id}'"
        ))
        .await
    }

    /// Makes every waiting delivery due now.
    pub(crate) async fn make_due(&self) {
        self.run(
            "begin;
             -- Lanes first, as every worker does.
             select from posthaste.lane order by subscription_id for update;
             update posthaste.queue set due_at = least(due_at, now());
             update posthaste.lane set wake_at = '-infinity'
             where subscription_id in (select subscription_id from posthaste.queue);
             commit",
        )
        .await;
    }

    /// Lets every lease end now.
    pub(crate) async fn end_leases(&self) {
        self.run("update posthaste.lease set ends_at = now() - interval '1 ms'")
            .await;
    }

    fn settings(&self, settings: &[(&str, &str)]) -> Vec<(String, String)> {
        let ca_file = self.ca_file.to_str().unwrap();
        let base = [
            ("database_url", self.worker.url.as_str()),
            ("keys", self.keys.as_str()),
            ("ca_file", ca_file),
            ("allow_networks", "127.0.0.0/8,::1/128"),
            ("listen", "off"),
        ];
        let all = base
            .iter()
            .filter(|(key, _)| settings.iter().all(|(own, _)| own != key))
            .chain(settings);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// Where things stand, for whoever reads why a test failed.
    async fn state(&self) -> String {
        let mut state = String::new();
        for (title, query) in [
            ("intake", "select * from posthaste.intake"),
            ("queue", "select * from posthaste.queue order by event_id"),
            ("lease", "select * from posthaste.lease order by event_id"),
            (
                "follower",
                "select * from posthaste.follower order by event_id",
            ),
            ("ordering", "select * from posthaste.ordering"),
            ("lane", "select * from posthaste.lane"),
            ("worker", "select * from posthaste.worker order by worker_id"),
            (
                "attempt",
                "select started_at, event_id, subscription_id, number, worker_id, outcome, verdict, error
                 from posthaste.attempt order by started_at desc",
            ),
        ] {
            let query = format!(
                "select coalesce(string_agg(r::text, E'\\n') filter (where n <= 20), ''), count(*)
                 from (select r, row_number() over () n from ({query}) r) r"
            );
            let row = self.db.query_one(&query, &[]).await.unwrap();
            let (rows, count): (String, i64) = (row.get(0), row.get(1));
            let _ = writeln!(state, "-- {title}: {count} rows\n{rows}");
        }
        state
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.ca_file);
    }
}

/// As a literal of SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(super) async fn connect(url: &str) -> Client {
    let client = connect_once(url).await.unwrap();
    client
        .batch_execute("set application_name = 'trial'")
        .await
        .unwrap();
    client
}

/// For conditions on what no trigger tells of, such as locks and sessions.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
