//! What commands print on standard output. Unlike `println!`, a reader that is gone is an error and no panic.

use std::io::{self, Write as _};

use posthaste::logging::escaped;
use posthaste::{Error, Result};

/// Prints one line.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    written.map_err(|error| Error::Io("standard output".to_owned(), error))
}

/// A name as it is typed in a shell: what we tell people to run next must be what we mean.
pub(crate) fn typed(name: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if name.chars().all(is_plain) && !name.starts_with('-') {
        name.to_owned()
    } else {
        escaped(&format!("'{}'", name.replace('\'', r"'\''")))
    }
}

/// Tells whoever watches what is beside the point for whoever reads the output.
pub(crate) fn remark(line: &str) {
    eprintln!("{}", escaped(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_word_to_a_shell() {
        assert_eq!(typed("university-2.test"), "university-2.test");
        assert_eq!(typed("a; rm -r 'b'\u{1b}"), r"'a; rm -r '\''b'\''\u001b'");
    }
}
