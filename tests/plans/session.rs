//! A worker's session, in which every hot statement is prepared, and what each costs there.

use std::collections::BTreeMap;

use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::calls::{CALLS, Call};
use super::cost::{Cost, Touched};

pub(crate) struct Session {
    client: Client,
}

impl Session {
    /// Prepares every statement, as a worker does once per session.
    pub(crate) async fn prepared(client: Client) -> Self {
        for call in CALLS {
            let prepare = format!("prepare {} as {}", call.name, call.text);
            client.batch_execute(&prepare).await.unwrap();
        }
        Self { client }
    }

    /// Has every statement planned for what the database holds now. A session keeps its plans until statistics change.
    pub(crate) async fn plan(&self) {
        for call in CALLS {
            let execute = self.execute(call).await;
            self.client
                .batch_execute(&format!("explain {execute}"))
                .await
                .unwrap();
        }
    }

    /// What a call costs now; what it does is undone. Says why where Postgres ends it before its time.
    pub(crate) async fn cost(&self, call: &Call) -> Result<Cost, String> {
        self.client.batch_execute("begin").await.unwrap();
        let cost = self.cost_within(call).await;
        self.client.batch_execute("rollback").await.unwrap();
        cost
    }

    /// What a call costs now; what it does stays done.
    pub(crate) async fn cost_for_good(&self, call: &Call) -> Cost {
        self.client.batch_execute("begin").await.unwrap();
        let cost = self.cost_within(call).await.unwrap();
        self.client.batch_execute("commit").await.unwrap();
        cost
    }

    async fn cost_within(&self, call: &Call) -> Result<Cost, String> {
        let execute = self.execute(call).await;
        let before = self.touched().await;
        let explain = format!("explain (analyze, buffers, format json) {execute}");
        let plan = self
            .answer(&explain)
            .await
            .map_err(|error| posthaste::Error::from(error).to_string())?;
        let plan: Value = serde_json::from_str(&plan).unwrap();
        Ok(Cost::new(
            call,
            &plan[0]["Plan"],
            &before,
            &self.touched().await,
        ))
    }

    async fn execute(&self, call: &Call) -> String {
        let list = format!(
            "select string_agg(quote_nullable(argument), ', ' order by place)
             from unnest(({})) with ordinality a (argument, place)",
            call.arguments
        );
        format!("execute {}({})", call.name, self.text(&list).await)
    }

    async fn touched(&self) -> BTreeMap<String, Touched> {
        let rows = self
            .client
            .query(include_str!("touched.sql"), &[])
            .await
            .unwrap();
        let touched = |row: &tokio_postgres::Row| Touched {
            buffers: row.get(1),
            rows: row.get(2),
        };
        rows.iter().map(|row| (row.get(0), touched(row))).collect()
    }

    async fn text(&self, sql: &str) -> String {
        self.answer(sql).await.unwrap()
    }

    /// The one text that a statement returns; empty where it is null.
    async fn answer(&self, sql: &str) -> Result<String, tokio_postgres::Error> {
        let messages = self.client.simple_query(sql).await?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok(row.unwrap_or_default().to_owned())
    }
}
