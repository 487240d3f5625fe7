//! The start of what a partner answered, made fit for a log line, a Postgres `text` and a terminal.

/// The first characters of `body`, at most `max` bytes of output; `None` where there is nothing to show.
///
/// What is not UTF-8 becomes U+FFFD. Control characters, and those that turn the direction of text or end a line without
/// being control characters, are written as `\u{..}`: Postgres takes no NUL, and a terminal obeys an escape sequence.
pub(super) fn snippet(body: &[u8], max: usize) -> Option<String> {
    let mut text = String::with_capacity(body.len().min(max));
    for chunk in body.utf8_chunks() {
        let replacement = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        for c in chunk.valid().chars().chain(replacement) {
            if !push(&mut text, c, max) {
                return Some(text);
            }
        }
    }
    (!text.is_empty()).then_some(text)
}

fn push(text: &mut String, c: char, max: usize) -> bool {
    let length = if is_unfit(c) {
        c.escape_default().count()
    } else {
        c.len_utf8()
    };
    if text.len() + length > max {
        return false;
    }
    if is_unfit(c) {
        text.extend(c.escape_default());
    } else {
        text.push(c);
    }
    true
}

fn is_unfit(c: char) -> bool {
    let turns_or_breaks =
        matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns_or_breaks || c == '\u{61c}' || c == '\u{feff}'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(body: &[u8]) -> String {
        snippet(body, 100).unwrap_or_default()
    }

    #[test]
    fn plain_text_is_shown_as_it_is() {
        assert_eq!(
            shown("{\"ok\": \"gr\u{fc}\u{df}e\"}".as_bytes()),
            "{\"ok\": \"gr\u{fc}\u{df}e\"}"
        );
        assert_eq!(snippet(b"", 100), None);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            shown(b"a\0b\x1b[2J\r\n\x7f"),
            "a\\u{0}b\\u{1b}[2J\\r\\n\\u{7f}"
        );
        assert_eq!(
            shown("\u{9b}\u{202e}\u{2028}\u{feff}".as_bytes()),
            "\\u{9b}\\u{202e}\\u{2028}\\u{feff}"
        );
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(shown(b"a\xff\xfeb\xe2\x82"), "a\u{fffd}\u{fffd}b\u{fffd}");
    }

    #[test]
    fn the_bound_holds_for_the_escaped_form() {
        assert_eq!(snippet(&[0; 50], 12).as_deref(), Some("\\u{0}\\u{0}"));
        assert_eq!(
            snippet("\u{20ac}\u{20ac}".as_bytes(), 5).as_deref(),
            Some("\u{20ac}")
        );
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_bound_or_a_line(body: Vec<u8>, max in 0_usize..80) {
            let text = snippet(&body, max).unwrap_or_default();
            prop_assert!(text.len() <= max && !text.chars().any(is_unfit));
        }
    }
}
