//! What every call costs at each size and under each kind of statistics, read once and shared by the tests.

use super::calls::CALLS;
use super::cost::Cost;
use super::session::Session;
use super::stock::Stock;
use tokio::sync::OnceCell;

/// What all calls cost in one session.
pub(crate) struct Reading {
    /// How many rows there were; see stock.sql.
    pub(crate) rows: i32,
    /// What the plans were made from.
    pub(crate) plans: &'static str,
    /// One for each of [`CALLS`], or why it was ended.
    pub(crate) costs: Vec<Result<Cost, String>>,
}

/// What plans are made from.
pub(crate) const EARLY: &str = "planned while nothing was there";
pub(crate) const STALE: &str = "statistics of an empty database";
pub(crate) const FRESH: &str = "fresh statistics";
pub(crate) const LATE: &str = "statistics of a full database, emptied since";

pub(crate) const FEW_ROWS: i32 = 10_000;
pub(crate) const MANY_ROWS: i32 = 1_000_000;

/// All readings. Whoever comes first takes them.
pub(crate) async fn readings() -> &'static [Reading] {
    static READINGS: OnceCell<Vec<Reading>> = OnceCell::const_new();
    READINGS.get_or_init(take_readings).await
}

/// One of them.
pub(crate) async fn reading(rows: i32, plans: &str) -> &'static Reading {
    let mut readings = readings().await.iter();
    readings
        .find(|reading| reading.rows == rows && reading.plans == plans)
        .unwrap()
}

async fn take_readings() -> Vec<Reading> {
    let mut readings = Vec::new();
    for rows in [0, FEW_ROWS, MANY_ROWS] {
        let stock = Stock::empty().await;
        let early = stock.planned_session().await;
        if rows > 0 {
            stock.fill(1, rows).await;
        }
        readings.push(read(&early, rows, EARLY).await);
        readings.push(read(&stock.planned_session().await, rows, STALE).await);
        stock.analyze().await;
        readings.push(read(&stock.planned_session().await, rows, FRESH).await);
        if rows == MANY_ROWS {
            stock.clear().await;
            stock.fill(MANY_ROWS + 1, MANY_ROWS + FEW_ROWS).await;
            readings.push(read(&stock.planned_session().await, FEW_ROWS, LATE).await);
        }
    }
    readings
}

async fn read(session: &Session, rows: i32, plans: &'static str) -> Reading {
    let mut costs = Vec::new();
    for call in CALLS {
        let cost = session.cost(call).await;
        costs.push(cost.map_err(|error| format!("{}: {error}", call.name)));
    }
    Reading { rows, plans, costs }
}
