//! Three accounts of the same events, kept by parties that do not know each other: what the platform committed, what each
//! partner received, what the worker recorded.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use bytes::Bytes;
use posthaste::Result;
use tokio_postgres::Client;
use uuid::Uuid;

use super::partners::{Cast, Character};

/// All three.
pub(super) struct Evidence {
    pub(super) ledger: Ledger,
    pub(super) outbox: HashMap<Uuid, Recorded>,
    /// Changes that the platform's own tables show.
    pub(super) platform_rows: usize,
    pub(super) partners: Vec<Account>,
}

/// What the platform knows of its own transactions, whatever any table says.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) committed: HashMap<Uuid, Committed>,
    pub(super) rolled_back: HashSet<Uuid>,
}

/// An event whose transaction was committed.
pub(super) struct Committed {
    pub(super) event_type: &'static str,
    /// Right after COMMIT returned.
    pub(super) at: SystemTime,
}

/// An event as the outbox holds it.
pub(super) struct Recorded {
    pub(super) event_type: String,
    pub(super) payload: String,
}

/// What happened between us and one partner: its own receipts, and our records.
pub(super) struct Account {
    pub(super) character: Character,
    /// In the order of their arrival.
    pub(super) receipts: Vec<Receipt>,
    /// The status of each delivery.
    pub(super) deliveries: Vec<(Uuid, String)>,
    /// The attempts of each event, in their order.
    pub(super) attempts: HashMap<Uuid, Vec<Attempt>>,
}

/// One request, as the partner wrote it down.
#[derive(Clone)]
pub(super) struct Receipt {
    /// Nil where it was no UUID.
    pub(super) event_id: Uuid,
    pub(super) at: SystemTime,
    pub(super) body: Bytes,
    pub(super) is_signed: bool,
    pub(super) answered: u16,
}

/// One attempt, as the worker wrote it down.
pub(super) struct Attempt {
    pub(super) outcome: String,
    pub(super) http_status: Option<i16>,
}

impl Evidence {
    /// Asks the partners and the database.
    pub(super) async fn collect(client: &Client, ledger: Ledger, cast: &Cast) -> Result<Self> {
        let rows = client
            .query_one(include_str!("../../../sql/demo/platform_rows.sql"), &[])
            .await?;
        let rows: i64 = rows.try_get("rows")?;
        let mut partners: Vec<Account> = cast.accounts().collect();
        for (name, event_id, status) in deliveries(client).await? {
            if let Some(partner) = named(&mut partners, &name) {
                partner.deliveries.push((event_id, status));
            }
        }
        for (name, event_id, attempt) in attempts(client).await? {
            if let Some(partner) = named(&mut partners, &name) {
                partner.attempts.entry(event_id).or_default().push(attempt);
            }
        }
        Ok(Self {
            ledger,
            outbox: outbox(client).await?,
            platform_rows: usize::try_from(rows).unwrap_or_default(),
            partners,
        })
    }
}

fn named<'a>(partners: &'a mut [Account], name: &str) -> Option<&'a mut Account> {
    partners
        .iter_mut()
        .find(|partner| partner.character.name() == name)
}

async fn outbox(client: &Client) -> Result<HashMap<Uuid, Recorded>> {
    let rows = client
        .query(include_str!("../../../sql/demo/recorded_events.sql"), &[])
        .await?;
    rows.iter()
        .map(|row| {
            let recorded = Recorded {
                event_type: row.try_get("event_type")?,
                payload: row.try_get("payload")?,
            };
            Ok((row.try_get("event_id")?, recorded))
        })
        .collect()
}

async fn deliveries(client: &Client) -> Result<Vec<(String, Uuid, String)>> {
    let rows = client
        .query(
            include_str!("../../../sql/demo/recorded_deliveries.sql"),
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok((
                row.try_get("subscription")?,
                row.try_get("event_id")?,
                row.try_get("status")?,
            ))
        })
        .collect()
}

async fn attempts(client: &Client) -> Result<Vec<(String, Uuid, Attempt)>> {
    let rows = client
        .query(include_str!("../../../sql/demo/recorded_attempts.sql"), &[])
        .await?;
    rows.iter()
        .map(|row| {
            let attempt = Attempt {
                outcome: row.try_get("outcome")?,
                http_status: row.try_get("http_status")?,
            };
            Ok((
                row.try_get("subscription")?,
                row.try_get("event_id")?,
                attempt,
            ))
        })
        .collect()
}
