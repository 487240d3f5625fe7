//! For those who stay: how to look inside.

use crate::commands::output::say;
use posthaste::Result;

/// Prints the command and the queries.
pub(super) fn inside(psql: &str) -> Result<()> {
    say("\nEverything stays up until Ctrl-C. To look inside:\n")?;
    say(&format!("  {psql}\n"))?;
    say("Three queries worth running there:\n")?;
    for query in QUERIES {
        say(query)?;
    }
    Ok(())
}

/// What people ask first.
pub(super) const QUERIES: [&str; 3] = [
    include_str!("../../../sql/demo/look_deliveries_by_status.sql"),
    include_str!("../../../sql/demo/look_story_of_a_dead_letter.sql"),
    include_str!("../../../sql/demo/look_latency_by_partner.sql"),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use posthaste::store::Store;

    use super::super::crew;
    use super::super::database::{self, Database};
    use super::*;

    #[tokio::test]
    async fn the_queries_run_on_the_schema_of_today() {
        let database = Database::create(database::server(false).await.unwrap())
            .await
            .unwrap();
        let config = crew::config(database.url()).unwrap();
        database
            .prepare(&Store::open(&config).unwrap(), 1)
            .await
            .unwrap();
        let client = database.connect().await.unwrap();
        for query in QUERIES {
            assert!(
                client.query(query, &[]).await.unwrap().is_empty(),
                "{query}"
            );
        }
        database.remove().await.unwrap();
    }
}
