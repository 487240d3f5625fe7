//! Texts as they are expected, in `tests/status`. `POSTHASTE_UPDATE_SNAPSHOTS=1` writes them anew, for whoever then reads the difference.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// Compares a text with `tests/status/<name>.txt`. Spaces before a line's end do not count.
#[track_caller]
pub(super) fn matches(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/status/{name}.txt"));
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let text = format!("{}\n", lines.join("\n"));
    if std::env::var_os("POSTHASTE_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        text == expected,
        "{} has\n{expected}\nand this is\n{text}",
        path.display()
    );
}
