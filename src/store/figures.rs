//! How things stand: figures for one worker at a time to show, findings for people, and what each worker notes of itself.

use std::time::{Instant, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::{
    FIGURES, FINDINGS, NOTE_WORKER, PATIENCE, RECENT_RATES, SUBSCRIPTION_FIGURES, Statement, Store,
    TABLE_FIGURES, abandon, failed, int, long, unanswered,
};
use crate::{Error, Result};

/// One number about how things stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is; its metric is called `posthaste_` and this.
    pub figure: String,
    /// The value of its one label, where the metric has one.
    pub label: Option<String>,
    /// The number.
    pub value: f64,
}

/// Something that an operator should see to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `critical`, `warning` or `info`.
    pub severity: String,
    /// Its code, such as `deliveries_late`: the chapter in the runbook.
    pub finding: String,
    /// The subscription that it is about, if it is about one.
    pub subscription: Option<String>,
    /// Since when, where that is known.
    pub since: Option<SystemTime>,
    /// What is wrong, in a sentence with figures.
    pub detail: String,
    /// A command line or a statement that helps.
    pub command: String,
    /// Where more about it is written.
    pub runbook: String,
}

impl Store {
    /// The figures that cost little. Counts stop at `counts_stop_at`. Whoever looks must not become a load where vacuum is held back:
    /// after two seconds it makes do with what it knows of the oldest delivery by then, and after five the next two are given up.
    pub async fn figures(&self, counts_stop_at: usize) -> Result<Vec<Figure>> {
        self.observe(FIGURES, IMPATIENT, &[&long(counts_stop_at)])
            .await
    }

    /// Sizes, dead rows and partitions: once a minute is enough.
    pub async fn table_figures(&self) -> Result<Vec<Figure>> {
        self.observe(TABLE_FIGURES, PATIENT, &[]).await
    }

    /// The `most` subscriptions that something has been owed to for longest, the `most` that have failed for longest, and those `named`.
    /// Reads all that waits.
    pub async fn subscription_figures(&self, most: usize, named: &[String]) -> Result<Vec<Figure>> {
        self.observe(SUBSCRIPTION_FIGURES, PATIENT, &[&int(most), &named])
            .await
    }

    /// Events inserted and attempts ended a second, over the last so many seconds. Reads the ends of today's history alone.
    pub async fn recent_rates(&self, over_seconds: f64) -> Result<Vec<Figure>> {
        self.observe(RECENT_RATES, PATIENT, &[&over_seconds]).await
    }

    /// What an operator should see to, worst first.
    pub async fn findings(&self) -> Result<Vec<Finding>> {
        self.query(FINDINGS, &[])
            .await?
            .iter()
            .map(finding)
            .collect()
    }

    /// Notes what only the worker itself knows: its clock minus the database's in seconds, and when the first of its client
    /// certificates ends.
    pub async fn note_worker(
        &self,
        worker_id: i32,
        clock_difference: f64,
        certificate_ends: Option<SystemTime>,
    ) -> Result<()> {
        self.query(
            NOTE_WORKER,
            &[&worker_id, &clock_difference, &certificate_ends],
        )
        .await
        .map(drop)
    }

    /// Reads figures in a transaction of their own, which writes nothing and soon gives up.
    async fn observe(
        &self,
        statement: Statement,
        limits: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Figure>> {
        let (name, sql) = statement;
        let mut session = self.session().await?;
        let begun = Instant::now();
        let answer = async {
            let prepared = session.prepare_cached(sql).await.map_err(failed(name))?;
            let transaction = session.build_transaction().read_only(true);
            let transaction = transaction.start().await.map_err(failed("begin"))?;
            let limited = transaction.batch_execute(limits).await;
            limited.map_err(failed(name))?;
            let rows = transaction.query(&prepared, parameters).await;
            let rows = rows.map_err(failed(name))?;
            transaction.commit().await.map_err(failed("commit"))?;
            Ok::<_, Error>(rows)
        };
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        crate::telemetry::statement(name, begun.elapsed());
        let Ok(rows) = answer else {
            abandon(session);
            return Err(unanswered(name, PATIENCE));
        };
        rows?.iter().map(figure).collect()
    }
}

fn figure(row: &Row) -> Result<Figure> {
    Ok(Figure {
        figure: row.try_get("figure")?,
        label: row.try_get("label")?,
        value: row.try_get("value")?,
    })
}

fn finding(row: &Row) -> Result<Finding> {
    Ok(Finding {
        severity: row.try_get("severity")?,
        finding: row.try_get("finding")?,
        subscription: row.try_get("subscription")?,
        since: row.try_get("since")?,
        detail: row.try_get("detail")?,
        command: row.try_get("command")?,
        runbook: row.try_get("runbook")?,
    })
}

/// Posthaste.figures catches the first of these.
const IMPATIENT: &str = "set local statement_timeout = '2s'; set local lock_timeout = '1s'";
const PATIENT: &str = "set local statement_timeout = '5s'; set local lock_timeout = '1s'";
