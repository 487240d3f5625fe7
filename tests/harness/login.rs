//! Logins: whom people and programs connect as. Roles belong to the whole server, so each has a name of its own and is dropped with
//! the test's database.

use tokio_postgres::error::DbError;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use super::World;
use super::backstage::Database;
use super::world::connect;

/// A login, and a session of it.
pub(crate) struct Login {
    pub(crate) name: String,
    /// Connects to the test's database as this login.
    pub(crate) url: String,
    pub(crate) db: Client,
    password: String,
}

impl World {
    /// Two administrators who need each other.
    pub(crate) async fn two_administrators(&self) -> [Login; 2] {
        let four_eyes = "select posthaste.set_four_eyes(true, 'as agreed') from posthaste.setting where not four_eyes";
        self.run(four_eyes).await;
        [
            self.login("posthaste_admin").await,
            self.login("posthaste_admin").await,
        ]
    }

    /// A new login in one of our roles, such as `posthaste_admin`; in none where that is empty.
    pub(crate) async fn login(&self, group: &str) -> Login {
        Login::new(&self.database, &self.db, group).await
    }
}

impl Login {
    pub(super) async fn new(database: &Database, db: &Client, group: &str) -> Self {
        let (name, password) = (format!("trial_{}", simple()), simple());
        // Before it is made: whatever happens then, it is dropped.
        database.own(&name);
        let group = if group.is_empty() {
            String::new()
        } else {
            format!("in role {group}")
        };
        let create = format!("create role {name} login password '{password}' {group}");
        // Roles are the whole server's, and tests that run beside this one make theirs.
        while let Err(error) = db.batch_execute(&create).await {
            let message = error
                .as_db_error()
                .map_or(String::new(), |e| e.message().into());
            assert!(message.contains("concurrently"), "{error:?}");
        }
        let url = with_user(&database.url, &name, &password);
        let db = connect(&url).await;
        Self {
            name,
            url,
            db,
            password,
        }
    }

    /// Connects to another database as this login.
    pub(crate) fn url_of(&self, database: &Database) -> String {
        with_user(&database.url, &self.name, &self.password)
    }

    /// One more session.
    pub(crate) async fn session(&self) -> Client {
        connect(&self.url).await
    }

    /// The one value that a query returns.
    pub(crate) async fn one<T: FromSqlOwned>(&self, query: &str) -> T {
        one(&self.db, query).await
    }

    /// Runs statements.
    pub(crate) async fn run(&self, statements: &str) {
        if let Err(error) = self.db.batch_execute(statements).await {
            panic!("{statements}: {error:?}");
        }
    }

    /// Proposes a subscription to everything at `https://<name>.example/hooks`, with these terms besides: `, tenant => 'north'`.
    pub(crate) async fn propose(&self, name: &str, terms: &str) -> i64 {
        let propose = "select posthaste.propose_subscription";
        self.one(&format!(
            "{propose}('{name}', 'https://{name}.example/hooks', '{{*}}'{terms})"
        ))
        .await
    }

    /// What statements are refused with.
    pub(crate) async fn refused(&self, statements: &str) -> DbError {
        refusal(&self.db, statements).await
    }
}

/// What one administrator proposed as in [`Login::propose`] and another approved.
pub(crate) async fn agree([one, other]: &[Login; 2], name: &str, terms: &str) -> i32 {
    let change = one.propose(name, terms).await;
    other
        .one(&format!("select posthaste.approve({change}, 'agreed')"))
        .await
}

/// The one value that a query returns.
pub(crate) async fn one<T: FromSqlOwned>(db: &Client, query: &str) -> T {
    match db.query_one(query, &[]).await {
        Ok(row) => row.get(0),
        Err(error) => panic!("{query}: {error:?}"),
    }
}

/// What statements are refused with.
pub(crate) async fn refusal(db: &Client, statements: &str) -> DbError {
    match db.batch_execute(statements).await {
        Ok(()) => panic!("not refused: {statements}"),
        Err(error) => said(&error),
    }
}

/// What the database said.
pub(crate) fn said(error: &Error) -> DbError {
    match error.as_db_error() {
        Some(said) => said.clone(),
        None => panic!("not from the database: {error:?}"),
    }
}

/// What each statement met, as its SQLSTATE and message; `PH000` where it was done. What was done is rolled back, unless `keeps`.
pub(crate) async fn tried(db: &Client, statements: &[String], keeps: bool) -> Met {
    db.batch_execute(TRIES).await.unwrap();
    try_each(db, statements, keeps).await
}

/// The same as a superuser who has become this role. All of it is rolled back.
pub(crate) async fn tried_as(db: &Client, role: &str, statements: &[String]) -> Met {
    db.batch_execute(TRIES).await.unwrap();
    db.batch_execute(&format!("begin; set local role {role}"))
        .await
        .unwrap();
    let met = try_each(db, statements, false).await;
    db.batch_execute("rollback").await.unwrap();
    met
}

async fn try_each(db: &Client, statements: &[String], keeps: bool) -> Met {
    let tries = "select code, said from pg_temp.tried($1, $2)";
    let rows = db.query(tries, &[&statements, &keeps]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

type Met = Vec<(String, String)>;

/// The connection string with another user and password.
fn with_user(url: &str, user: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Of two words with the same key the last one counts.
        return format!("{url} user='{user}' password='{password}'");
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let host = rest[..end].rfind('@').map_or(0, |at| at + 1);
    format!("{scheme}://{user}:{password}@{}", &rest[host..])
}

fn simple() -> String {
    Uuid::now_v7().simple().to_string()
}

const TRIES: &str = "
    create or replace function pg_temp.tried(statements text[], keeps boolean) returns table (code text, said text) language plpgsql as $$
    declare
        statement text;
    begin
        foreach statement in array statements loop
            begin
                execute statement;
                code := 'PH000';
                said := 'done';
                if not keeps then
                    raise exception using errcode = code, message = said;
                end if;
            exception when others then
                get stacked diagnostics code = returned_sqlstate, said = message_text;
            end;
            return next;
        end loop;
    end
    $$";
