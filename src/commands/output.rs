//! What commands print on standard output. Unlike `println!`, a reader that is gone is an error and no panic.

use std::io::{self, Write as _};

use posthaste::{Error, Result};

/// Prints one line.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    written.map_err(|error| Error::Io("standard output".to_owned(), error))
}
