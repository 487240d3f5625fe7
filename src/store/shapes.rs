//! What requests need besides terms: external ids; and what it took to be let in.

use std::sync::Arc;

use tokio_postgres::Row;

use super::{EXTERNAL_IDS, KEEP_HANDSHAKE, KEEP_PSEUDONYMS, PREPARED, Store};
use crate::Result;
use crate::delivery::Preparation;
use crate::mask::Id;

impl Store {
    /// What a partner calls these, of those that it has a name for.
    pub async fn external_ids(&self, partner: &str, wanted: &[&Id]) -> Result<Vec<(Id, String)>> {
        let kinds: Vec<&str> = wanted.iter().map(|id| &*id.kind).collect();
        let internals: Vec<&str> = wanted.iter().map(|id| id.internal.as_str()).collect();
        let rows = self
            .query(EXTERNAL_IDS, &[&partner, &kinds, &internals])
            .await?;
        rows.iter().map(external_id).collect()
    }

    /// Makes pseudonyms the external ids of what has none; returns the ids that stand then, which may be others.
    pub async fn keep_pseudonyms(
        &self,
        subscription_id: i32,
        made_up: &[(Id, String)],
    ) -> Result<Vec<(Id, String)>> {
        let kinds: Vec<&str> = made_up.iter().map(|(id, _)| &*id.kind).collect();
        let internals: Vec<&str> = made_up.iter().map(|(id, _)| id.internal.as_str()).collect();
        let pseudonyms: Vec<&str> = made_up
            .iter()
            .map(|(_, external)| external.as_str())
            .collect();
        let rows = self
            .query(
                KEEP_PSEUDONYMS,
                &[&subscription_id, &kinds, &internals, &pseudonyms],
            )
            .await?;
        rows.iter().map(external_id).collect()
    }

    /// Writes down requests that were made to be able to deliver, each with its subscription.
    pub async fn prepared(&self, worker_id: i32, made: &[(i32, &Preparation)]) -> Result<()> {
        let of = |(_, preparation): &(i32, &Preparation)| -> (String, String) {
            (
                preparation.kind.as_str().to_owned(),
                preparation.url.clone(),
            )
        };
        let subscriptions: Vec<i32> = made.iter().map(|(id, _)| *id).collect();
        let (kinds, urls): (Vec<String>, Vec<String>) = made.iter().map(of).unzip();
        let reports = || made.iter().map(|(_, preparation)| &preparation.report);
        let durations: Vec<i32> = reports()
            .map(|report| i32::try_from(report.duration.as_micros()).unwrap_or(i32::MAX))
            .collect();
        let outcomes: Vec<&str> = reports().map(|report| report.outcome.as_str()).collect();
        let statuses: Vec<Option<i16>> = reports()
            .map(|report| {
                report
                    .http_status
                    .and_then(|status| i16::try_from(status).ok())
            })
            .collect();
        let errors: Vec<Option<&str>> = reports().map(|report| report.error.as_deref()).collect();
        self.query(
            PREPARED,
            &[
                &subscriptions,
                &kinds,
                &urls,
                &durations,
                &outcomes,
                &statuses,
                &errors,
                &worker_id,
            ],
        )
        .await
        .map(drop)
    }

    /// Writes down what a receiver granted.
    pub async fn keep_handshake(
        &self,
        subscription_id: i32,
        url: &str,
        origin: &str,
        rate: Option<i32>,
    ) -> Result<()> {
        self.query(KEEP_HANDSHAKE, &[&subscription_id, &url, &origin, &rate])
            .await
            .map(drop)
    }
}

pub(super) fn external_id(row: &Row) -> Result<(Id, String)> {
    let kind: String = row.try_get("kind")?;
    let id = Id {
        kind: Arc::from(kind),
        internal: row.try_get("internal")?,
    };
    Ok((id, row.try_get("external")?))
}
