//! The `posthaste` program: reads its arguments, runs one command, and ends with the exit code that tells how it went.

mod commands;

use std::process::ExitCode;

use posthaste::{Error, Result};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let matches = match commands::cli().try_get_matches() {
        Ok(matches) => matches,
        Err(unusable) => return commands::failure::of_arguments(&unusable),
    };
    let result = runtime().and_then(|runtime| {
        let result = runtime.block_on(commands::dispatch(&matches));
        // What still blocks, such as a name that does not resolve, is not worth waiting for.
        runtime.shutdown_background();
        result
    });
    result.unwrap_or_else(|error| commands::failure::of_command(&error))
}

fn runtime() -> Result<Runtime> {
    Runtime::new().map_err(|error| Error::Io("the async runtime".to_owned(), error))
}
