//! The runbook as text: chapters, entries, and blocks that are for somebody.

use std::path::{Path, PathBuf};

/// One heading of the second level, and what stands under it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Such as `When something is wrong`.
    pub(super) chapter: String,
    /// Such as `deliveries_late`.
    pub(super) title: String,
    pub(super) text: String,
    pub(super) blocks: Vec<Block>,
}

/// What people paste.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// `sql` or `sh`.
    pub(super) language: String,
    /// Whose it is, such as `auditor`.
    pub(super) whose: String,
    /// Where, if it is not the database or the machine of every day: `restored`, `standby`.
    pub(super) place: String,
    pub(super) text: String,
}

pub(super) fn runbook() -> String {
    read("docs/runbook.md")
}

pub(super) fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap()
}

pub(super) fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All entries, in their order. What stands before the first one is an entry without a title.
pub(super) fn entries() -> Vec<Entry> {
    let mut entries = vec![Entry {
        chapter: String::new(),
        title: String::new(),
        text: String::new(),
        blocks: Vec::new(),
    }];
    let (mut chapter, mut block) = (String::new(), None::<Block>);
    for line in runbook().lines() {
        let entry = entries.last_mut().unwrap();
        match (&mut block, line) {
            (Some(_), "```") => entry.blocks.extend(block.take()),
            (Some(open), _) => {
                open.text.push_str(line);
                open.text.push('\n');
            }
            (None, _) if line.starts_with("```") => {
                let mut words = line.trim_start_matches('`').split(' ');
                let mut next = || words.next().unwrap_or_default().to_owned();
                let (language, whose, place) = (next(), next(), next());
                block = Some(Block {
                    language,
                    whose,
                    place,
                    text: String::new(),
                });
            }
            (None, _) if line.starts_with("# ") => line[2..].clone_into(&mut chapter),
            (None, _) if line.starts_with("## ") => entries.push(Entry {
                chapter: chapter.clone(),
                title: line[3..].to_owned(),
                text: String::new(),
                blocks: Vec::new(),
            }),
            (None, _) => {
                entry.text.push_str(line);
                entry.text.push('\n');
            }
        }
    }
    assert!(block.is_none(), "a block is not closed");
    entries
}

/// The entry of that title.
pub(super) fn entry(title: &str) -> Entry {
    let found = entries().into_iter().find(|entry| entry.title == title);
    found.unwrap_or_else(|| panic!("no entry {title}"))
}

/// What is to be filled in, in the order of its first appearance.
pub(super) fn placeholders(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for rest in text.split('<').skip(1) {
        let name = rest.split('>').next().unwrap_or_default();
        let is_name = !name.is_empty()
            && name.len() < rest.len()
            && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        if is_name && names.iter().all(|known| known != name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The statements of a block of SQL.
pub(super) fn statements(block: &str) -> Vec<String> {
    if block.starts_with("do $$") {
        return vec![block.to_owned()];
    }
    let statements = block.split(";\n").map(str::trim);
    statements
        .filter(|statement| !statement.is_empty())
        .map(str::to_owned)
        .collect()
}

/// As GitHub makes anchors of headings.
pub(super) fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().replace(' ', "-")
}
