//! A night on which something is wrong: a worker, a partner that answers 500, and everybody who may be woken up.

use std::collections::HashMap;

use posthaste::trial::partner::Reply;
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use super::desk::{Desk, libpq};
use super::page::{Block, Entry, placeholders, statements};
use crate::harness::{Login, Partner, WorkerProcess, WorkerThread, World};

pub(super) struct Scene {
    /// A program of its own where an entry asks for it, else a thread of ours.
    pub(super) worker: Option<WorkerProcess>,
    thread: Option<WorkerThread>,
    pub(super) partner: Partner,
    pub(super) world: World,
    pub(super) ada: Login,
    grace: Login,
    audrey: Login,
    owner: Login,
    pub(super) desk: Desk,
    /// One that waits for its second attempt; beside it another, the head of the ordering key 42.
    pub(super) event: Uuid,
    listen: String,
    /// A session of somebody else's, which may be ended.
    victim: Client,
    victim_pid: i32,
    /// What was filled in, where it cannot be asked for anew.
    values: HashMap<String, String>,
}

impl Scene {
    pub(super) async fn of(entry: &Entry) -> Self {
        let world = World::new().await;
        world.run("select posthaste.create_partitions(7)").await;
        let [ada, grace] = world.two_administrators().await;
        let audrey = world.login("posthaste_auditor").await;
        let owner = world.login("posthaste_owner").await;
        let partner = Partner::replying(Reply::Status(500)).await;
        world
            .subscribe_to("harbour", &partner, &["ship.arrived"], None, "1h")
            .await;
        world
            .run("update posthaste.event_type set example = '{\"ship\": 1}'")
            .await;
        let desk = Desk::new(None);
        desk.write("posthaste.keys", &format!("{}\n", world.keys()));
        desk.write("token.txt", "open sesame\n");
        let asked = |name: &str| entry.blocks.iter().any(|block| block.text.contains(name));
        let (mut worker, mut thread, mut listen) = (None, None, String::new());
        if asked("<listen>") || asked("<worker_pid>") {
            let process = world.worker_process(&[("listen", "127.0.0.1:0")]).await;
            listen = process.telemetry_address().await.to_string();
            worker = Some(process);
        } else {
            thread = Some(world.worker(&[]).await);
        }
        let ordered = "insert into posthaste.outbox (event_type, payload, ordering_key) values ('ship.arrived', '{}', '42')";
        world.run(ordered).await;
        let event = world.publish("ship.arrived", "{}").await;
        for mistaken in ["ship.sunk", "shpi.arrived"] {
            world.publish(mistaken, "{}").await;
        }
        world
            .until("(select count(*) = 2 from posthaste.queue where attempts = 1) and (select failing_since is not null from posthaste.lane) and (select count(*) from posthaste.unknown_event_type) = 2")
            .await;
        let victim = world.session().await;
        victim.batch_execute("begin; select now()").await.unwrap();
        let pid = "select pg_backend_pid()";
        let victim_pid = victim.query_one(pid, &[]).await.unwrap().get(0);
        Self {
            worker,
            thread,
            partner,
            world,
            ada,
            grace,
            audrey,
            owner,
            desk,
            event,
            listen,
            victim,
            victim_pid,
            values: HashMap::new(),
        }
    }

    /// Pastes each block of an entry, one after the other, but for those that are for other machines than ours.
    pub(super) async fn work_through(&self, entry: &Entry) {
        for block in &entry.blocks {
            if block.whose != "machine" {
                self.paste(block).await;
            }
        }
    }

    /// Pastes a block where it belongs; what a shell printed.
    pub(super) async fn paste(&self, block: &Block) -> String {
        let text = self.filled_in(&block.text).await;
        if block.language == "sh" {
            let environment = self.environment(&block.whose);
            if text == "posthaste status\n" {
                // Its exit code is the answer: something is wrong.
                let ended = self.desk.ends(&text, &environment).await;
                assert!(
                    ended.stderr.is_empty() && [0, 3, 4].contains(&ended.code),
                    "{ended:?}"
                );
                return ended.stdout;
            }
            return self.desk.run(&text, &environment).await;
        }
        if text.contains("posthaste.health")
            && !self
                .world
                .holds("to_regclass('posthaste.health') is not null")
                .await
        {
            return String::new();
        }
        let db = self.session(&block.whose);
        for statement in statements(&text) {
            if let Err(error) = db.batch_execute(&statement).await {
                panic!("{} {}: {statement}\n{error:?}", block.language, block.whose);
            }
            if statement.contains("posthaste.deactivate(") {
                let is_seen = "(select not active from posthaste.lane)";
                self.world.until(is_seen).await;
            }
        }
        String::new()
    }

    /// What stands for a placeholder from now on.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// Ends the worker, where it is a thread of ours.
    pub(super) fn stop_thread(&mut self) {
        self.thread = None;
    }

    fn session(&self, whose: &str) -> &Client {
        match whose {
            "auditor" => &self.audrey.db,
            "admin" => &self.ada.db,
            "second" => &self.grace.db,
            "owner" => &self.owner.db,
            "superuser" => &self.world.db,
            other => panic!("who is {other}?"),
        }
    }

    fn environment(&self, whose: &str) -> Vec<(String, String)> {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let as_login = |login: &Login| vec![variable("DATABASE_URL", &login.url)];
        match whose {
            "auditor" => as_login(&self.audrey),
            "admin" | "second" => {
                let mut all = as_login(if whose == "admin" {
                    &self.ada
                } else {
                    &self.grace
                });
                all.push(variable("POSTHASTE_KEY_FILE", "posthaste.keys"));
                all
            }
            "owner" => as_login(&self.owner),
            "worker" => self.world.environment(&[]),
            "dba" => libpq(self.world.url()),
            other => panic!("whose shell is {other}?"),
        }
    }

    pub(super) async fn filled_in(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for name in placeholders(text) {
            let value = self.value_of(&name).await;
            filled = filled.replace(&format!("<{name}>"), &value);
        }
        filled
    }

    async fn value_of(&self, name: &str) -> String {
        if let Some(value) = self.values.get(name) {
            return value.clone();
        }
        match name {
            "subscription" => "harbour".to_owned(),
            "event_type" => "ship.arrived".to_owned(),
            "unknown_type" => "ship.sunk".to_owned(),
            "mistyped" => "shpi.arrived".to_owned(),
            "event" => self.event.to_string(),
            "ordering_key" => "42".to_owned(),
            "since" => "yesterday".to_owned(),
            "header" => "Authorization".to_owned(),
            "listen" => self.listen.clone(),
            "pid" => self.victim_pid.to_string(),
            "worker_pid" => self.worker.as_ref().unwrap().pid().to_string(),
            "change" => {
                let newest =
                    "select max(change_id)::text from posthaste.change where state = 'open'";
                self.world.text(newest).await
            }
            "slot" => {
                let slot = format!("s_{}", Uuid::now_v7().simple());
                let make = format!("select pg_create_physical_replication_slot('{slot}')");
                self.world.run(&make).await;
                slot
            }
            "gid" => {
                let gid = format!("g_{}", Uuid::now_v7().simple());
                let prepare = format!(
                    "begin; create table public.left_behind (); prepare transaction '{gid}'"
                );
                self.world.run(&prepare).await;
                gid
            }
            "partition" => {
                let today = "select to_char(now() at time zone 'UTC', '\"outbox_\"YYYYMMDD')";
                self.world.text(today).await
            }
            "day" => self.world.text("select (current_date + 20)::text").await,
            other => panic!("what is <{other}>?"),
        }
    }

    /// What was wrong, before somebody is called.
    pub(super) async fn go_wrong(&mut self, code: &str) {
        let Self { world, ada, .. } = self;
        match code {
            "subscription_paused" => {
                ada.run("select posthaste.deactivate('harbour', 'they are gone')")
                    .await;
                world.until("(select not active from posthaste.lane)").await;
            }
            "quarantined" => {
                for name in ["event", "other_event"] {
                    let event = world.publish("ship.odd", "{}").await;
                    let hold = format!(
                        "insert into posthaste.quarantine (event_id, subscription_id, replay, attempts, reason) values ('{event}', 1, 0, 0, 'too odd')"
                    );
                    world.run(&hold).await;
                    self.values.insert(name.to_owned(), event.to_string());
                }
            }
            "secret_missing" => {
                let headers = json!({"headers": {"Authorization": {"secret": true}}});
                world.change("harbour", &headers.to_string()).await;
            }
            "four_eyes_off" => {
                world
                    .run("select posthaste.set_four_eyes(false, 'alone')")
                    .await;
            }
            "changes_open" => {
                ada.run(
                    "select posthaste.propose_change('harbour', '{\"concurrency\": 3}', 'more')",
                )
                .await;
            }
            "access_deviates" => {
                let today = self.value_of("partition").await;
                self.world
                    .run(&format!("alter table posthaste.{today} disable trigger no_change; grant select on posthaste.audit_log to public"))
                    .await;
            }
            "partitions_missing" => {
                let tomorrow = "select to_char(now() at time zone 'UTC' + interval '1 day', '\"posthaste.outbox_\"YYYYMMDD')";
                let tomorrow = world.text(tomorrow).await;
                let insert = "insert into posthaste.outbox (event_id, event_type, payload) values (overlay(posthaste.first_event_id(now() + interval '1 day')::text placing '7' from 15 for 1)::uuid, 'ship.late', '{}')";
                world.run(&format!("drop table {tomorrow}; {insert}")).await;
            }
            _ => {}
        }
    }

    /// What has to be so once the entry was worked through.
    pub(super) async fn is_put_right(&self, code: &str) {
        let world = &self.world;
        let is_so = match code {
            "events_not_fanned_out" | "notification_queue" => {
                assert!(self.victim.batch_execute("select 1").await.is_err());
                return;
            }
            "first_attempts_late" => "(select concurrency = 32 from posthaste.subscription)",
            "deliveries_late" => {
                "exists (select from posthaste.cancellation) and not exists (select from posthaste.skip)"
            }
            "subscription_failing" => "(select not active from posthaste.subscription)",
            "breaker_open" | "subscription_paused" => {
                "(select s.active and l.active and l.failures = 0 and l.breaker = 'closed' from posthaste.subscription s join posthaste.lane l using (subscription_id))"
            }
            "quarantined" => {
                "exists (select from posthaste.quarantine where decision = 'discarded') and (select count(distinct event_id) from posthaste.attempt) = 3"
            }
            "unknown_event_types" => {
                "not exists (select from posthaste.unrouted) and exists (select from posthaste.event_type where event_type = 'ship.sunk')"
            }
            "attempts_unrecordable" => "exists (select from posthaste.cancellation)",
            "partitions_missing" => {
                "not exists (select from posthaste.outbox_default)
                 and exists (select from pg_class where relname = to_char(now() at time zone 'UTC' + interval '1 day', '\"outbox_\"YYYYMMDD'))
                 and not exists (select from posthaste.guard_deviation())"
            }
            "vacuum_held_back" => "not exists (select from pg_prepared_xacts where database = current_database())",
            "rotation_overdue" => "(select count(*) = 2 from posthaste.signing_secret)",
            "secret_missing" => {
                "(select count(*) = 2 from posthaste.signing_secret) and (select cardinality(credentials_without_value) = 0 from posthaste.secret_overview)"
            }
            "four_eyes_off" => "(select four_eyes from posthaste.setting)",
            "changes_open" => "(select concurrency = 3 from posthaste.subscription)",
            "access_deviates" => "not exists (select from posthaste.access_deviation())",
            _ => return,
        };
        world.until(is_so).await;
    }
}
