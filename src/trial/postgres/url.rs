//! Connection strings: the same server, another database.

use std::fmt::Write;

/// The connection string with `database` in place of the database it names, if any. Understands what `tokio-postgres` understands:
/// URLs and `key=value` words.
pub(super) fn with_database(url: &str, database: &str) -> String {
    match SCHEMES
        .iter()
        .find_map(|scheme| Some((scheme, url.strip_prefix(scheme)?)))
    {
        Some((scheme, rest)) => format!("{scheme}{}", with_path(rest, database)),
        // Of two words with the same key the last one counts.
        None => format!(
            "{url} dbname='{}'",
            database.replace('\\', r"\\").replace('\'', r"\'")
        ),
    }
}

fn with_path(rest: &str, database: &str) -> String {
    // A password may hold '/' and '?': only what follows the '@' is host, path and parameters.
    let after_credentials = rest.find('@').map_or(0, |at| at + 1);
    let host_end = rest[after_credentials..]
        .find(['/', '?'])
        .map(|end| after_credentials + end);
    let (authority, tail) = rest.split_at(host_end.unwrap_or(rest.len()));
    let mut url = format!("{authority}/{}", percent_encoded(database));
    let parameters = tail
        .split_once('?')
        .map_or("", |(_, parameters)| parameters);
    let kept = parameters
        .split('&')
        .filter(|word| !word.is_empty() && !word.starts_with("dbname="));
    for (index, word) in kept.enumerate() {
        url.push(if index == 0 { '?' } else { '&' });
        url.push_str(word);
    }
    url
}

/// The text with every byte encoded that means something in a URL.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio_postgres::Config;

    #[test]
    fn only_the_database_changes_in_any_form_of_connection_string() {
        let forms = [
            "postgres://h",
            "postgresql://u@h/old",
            "postgres://u:p%2Fw@h:6543/old?application_name=a&connect_timeout=3",
            "postgres://u:p/w?x=1@h:6543/old?application_name=a",
            "postgres://u@h?dbname=old&application_name=a",
            "postgres://u@[::1]:6543,h2/old",
            "postgres://u@%2Fvar%2Frun:5433/old",
            "postgres:///old?host=/var/run&user=u",
            "host=h user=u",
            "host=h dbname=old user=u password='it\\'s dbname=old'",
            "dbname = old host=h",
        ];
        for form in forms {
            let mut expected: Config = form.parse().unwrap();
            for database in ["new", "it's \\ \"a\" name?/@&=%41 ü"] {
                let swapped: Config = with_database(form, database).parse().unwrap();
                expected.dbname(database);
                assert_eq!(swapped, expected, "{form}");
            }
        }
    }

    #[test]
    fn a_swap_reads_as_one_would_write_it() {
        assert_eq!(
            with_database("postgres://u@h/a?x=1", "b"),
            "postgres://u@h/b?x=1"
        );
        assert_eq!(
            with_database("host=h dbname=a", "b"),
            "host=h dbname=a dbname='b'"
        );
    }
}
