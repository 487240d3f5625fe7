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
