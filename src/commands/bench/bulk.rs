//! Large backlogs, made quickly.

use posthaste::Result;
use tokio_postgres::Client;

use super::payload::payload;

/// Commits so many events of this type, from this place of the run on, a good many in each transaction.
pub(super) async fn commit(
    client: &Client,
    event_type: &str,
    first: usize,
    count: usize,
) -> Result<()> {
    let statement = client.prepare(FILL_BULK).await?;
    let form = payload(FORM);
    for start in (first..first + count).step_by(BATCH) {
        let end = (start + BATCH).min(first + count);
        let [start, last] = [start, end - 1].map(|place| place as u64 + FIRST);
        let bounds = [start, last].map(u64::cast_signed);
        client
            .execute(&statement, &[&event_type, &form, &bounds[0], &bounds[1]])
            .await?;
    }
    Ok(())
}

/// Rows of one transaction.
const BATCH: usize = 10_000;
/// Places have nine digits, so that one can be put in another's stead.
const FIRST: u64 = 100_000_000;
const FORM: u64 = 999_999_999;
const FILL_BULK: &str = include_str!("../../../sql/bench/fill_bulk.sql");
