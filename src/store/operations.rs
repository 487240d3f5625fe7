//! What a worker tells operators of, and what it forgets.

use std::time::SystemTime;

use super::{FORGET_KEYS, Store, TELL_OVERDUE_ROTATIONS, int};
use crate::Result;

/// A signing secret that is older than agreed.
#[derive(Debug)]
pub struct OverdueRotation {
    /// Of which subscription.
    pub subscription_id: i32,
    /// Its name.
    pub subscription: String,
    /// The secret's number.
    pub number: i16,
}

impl Store {
    /// Tells of rotations that have become overdue, at most `limit`, and returns those that nobody had told of before.
    pub async fn tell_overdue_rotations(&self, limit: usize) -> Result<Vec<OverdueRotation>> {
        let mut overdue = Vec::new();
        for row in &self.query(TELL_OVERDUE_ROTATIONS, &[&int(limit)]).await? {
            overdue.push(OverdueRotation {
                subscription_id: row.try_get("subscription_id")?,
                subscription: row.try_get("name")?,
                number: row.try_get("number")?,
            });
        }
        Ok(overdue)
    }

    /// Deletes dedup keys that have expired `since` then, at most `limit`. Says how many, and when the last of them expired.
    pub async fn forget_keys(
        &self,
        since: Option<SystemTime>,
        limit: usize,
    ) -> Result<(usize, Option<SystemTime>)> {
        let rows = self.query(FORGET_KEYS, &[&since, &int(limit)]).await?;
        let Some(row) = rows.first() else {
            return Ok((0, None));
        };
        let forgotten: i64 = row.try_get("forgotten")?;
        Ok((
            usize::try_from(forgotten).unwrap_or(0),
            row.try_get("up_to")?,
        ))
    }
}
