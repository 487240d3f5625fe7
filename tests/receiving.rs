//! What receivers are given is right: the recorded deliveries are those that this program writes, and our verification, the programs in
//! `docs/receivers` and the libraries that people already use come to the recorded verdict on each.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use posthaste::secret::SigningSecret;
use posthaste::signature::{self, Invalid};
use serde_json::Value;
use tokio::process::Command;

use crate::harness::{PATIENCE, posthaste};

/// What a partner who writes Rust copies.
#[path = "../docs/receivers/verify.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
mod verify;

#[tokio::test]
async fn the_recorded_deliveries_are_those_that_the_program_writes() {
    let fresh = tempfolder("fixtures");
    let said = posthaste(&["fixtures", fresh.to_str().unwrap()], &[], "").await;
    let (recorded, fresh) = (files(&root("docs/fixtures")), files(&fresh));
    let count = recorded
        .keys()
        .filter(|name| name.ends_with("/now"))
        .count();
    assert!(
        said.done()
            .starts_with(&format!("{count} recorded deliveries")),
        "{said:?}"
    );
    assert!(count > 30);
    let names = |all: &BTreeMap<String, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&recorded), names(&fresh));
    for (name, bytes) in &fresh {
        assert!(
            recorded[name] == *bytes,
            "docs/fixtures/{name} is old: posthaste fixtures docs/fixtures"
        );
    }
}

#[test]
fn our_verification_comes_to_the_recorded_verdict() {
    let text = std::fs::read_to_string(root("docs/fixtures/index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    let tolerance = Duration::from_secs(index["tolerance_seconds"].as_u64().unwrap());
    for delivery in index["deliveries"].as_array().unwrap() {
        let headers = delivery["headers"].as_object().unwrap();
        let header = |name: &str| {
            let found = headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str().unwrap())
        };
        let secrets = delivery["secrets"].as_array().unwrap().iter();
        let secrets: Vec<_> = secrets
            .map(|text| SigningSecret::parse(text.as_str().unwrap()).unwrap())
            .collect();
        let verdict = signature::verify(
            &secrets,
            header("webhook-id"),
            header("webhook-timestamp"),
            header("webhook-signature"),
            &BASE64
                .decode(delivery["body_base64"].as_str().unwrap())
                .unwrap(),
            delivery["now"].as_i64().unwrap(),
            tolerance,
        );
        assert_eq!(
            verdict.err().map(word),
            delivery["problem"].as_str(),
            "{}",
            delivery["name"]
        );
    }
}

#[test]
fn the_verification_in_rust_comes_to_the_recorded_verdict() {
    for folder in folders() {
        let verdict = verify::check(&folder).unwrap();
        let said = verdict.map_or_else(
            |problem| format!("invalid: {problem}"),
            |()| "valid".to_owned(),
        );
        assert_eq!(said, expected(&folder), "{}", folder.display());
    }
}

#[tokio::test]
async fn the_programs_that_receivers_are_given_come_to_the_recorded_verdict() {
    let programs = [
        ("python3", &[][..], "verify.py"),
        ("node", &[], "verify.mjs"),
        ("bash", &[], "verify.sh"),
        ("java", &[], "Verify.java"),
        ("go", &["run"], "verify.go"),
        ("php", &[], "verify.php"),
        ("ruby", &[], "verify.rb"),
    ];
    for (runtime, arguments, file) in programs {
        if !is_here(runtime).await {
            not_run(
                file,
                &format!("there is no {runtime}"),
                ALWAYS.contains(&runtime),
            );
            continue;
        }
        let mut command = Command::new(runtime);
        command
            .args(arguments)
            .arg(root("docs/receivers").join(file));
        let output = ended(command.args(folders())).await;
        agrees(file, &output, expected);
    }
}

#[tokio::test]
async fn the_libraries_that_receivers_use_come_to_the_recorded_verdict() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("receivers");
    let installed = ended(Command::new(root("tests/receiving/install")).arg(&place)).await;
    if !installed.status.success() {
        let why = String::from_utf8_lossy(&installed.stderr);
        let why = why.trim_end().lines().last().unwrap_or_default();
        return not_run("the libraries in Python and JavaScript", why, false);
    }
    let [python, node] = [place.join("python"), place.join("node")];
    let first_word = |folder: &Path| {
        expected(folder)
            .split(':')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    for library in ["standardwebhooks", "svix"] {
        let mut command = Command::new("python3");
        command
            .arg(root("tests/receiving/libraries.py"))
            .arg(library)
            .env("PYTHONPATH", &python);
        agrees(
            &format!("{library} in Python"),
            &ended(command.args(folders())).await,
            first_word,
        );

        let mut command = Command::new("node");
        command
            .arg(root("tests/receiving/libraries.mjs"))
            .arg(library)
            .current_dir(&node);
        agrees(
            &format!("{library} in JavaScript"),
            &ended(command.args(folders())).await,
            first_word,
        );
    }
    let options = "node_modules/typescript/bin/tsc --noEmit --strict --allowJs --checkJs --target es2022 --module nodenext --types node";
    let mut check = Command::new("node");
    check
        .args(options.split(' '))
        .arg("--typeRoots")
        .arg(node.join("node_modules/@types"));
    let checked = ended(
        check
            .arg(root("docs/receivers/verify.mjs"))
            .current_dir(&node),
    )
    .await;
    assert!(
        checked.status.success(),
        "the types in verify.mjs: {}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

/// Whether each line that a program printed is what was recorded with its folder.
#[track_caller]
fn agrees(program: &str, output: &Output, expected: impl Fn(&Path) -> String) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Vec<&str> = text.lines().collect();
    let folders = folders();
    assert_eq!(said.len(), folders.len(), "{program}: {text}{errors}");
    for (folder, said) in folders.iter().zip(said) {
        assert_eq!(said, expected(folder), "{program} on {}", folder.display());
    }
}

/// Says so where people see it, also where the test passes; fails where it must run.
fn not_run(what: &str, why: &str, is_needed: bool) {
    let all = std::env::var_os("POSTHASTE_RECEIVERS").is_some_and(|which| which == "all");
    assert!(!is_needed && !all, "{what} must run, but {why}");
    // Unlike what `eprintln!` writes, this is not kept back.
    let _ = writeln!(std::io::stderr(), "not run: {what}: {}", why.trim_end());
}

async fn is_here(runtime: &str) -> bool {
    let version = if runtime == "go" {
        "version"
    } else {
        "--version"
    };
    let output = Command::new(runtime).arg(version).output().await;
    output.is_ok_and(|output| output.status.success())
}

async fn ended(command: &mut Command) -> Output {
    // What compiles before it runs shall not look for anything elsewhere.
    command
        .env("GO111MODULE", "off")
        .env("GOTOOLCHAIN", "local")
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let name = command.as_std().get_program().to_owned();
    output
        .unwrap_or_else(|_| panic!("{} does not end", name.display()))
        .unwrap()
}

fn word(problem: Invalid) -> &'static str {
    match problem {
        Invalid::MissingId => "missing_id",
        Invalid::MissingTimestamp => "missing_timestamp",
        Invalid::MalformedTimestamp => "malformed_timestamp",
        Invalid::TooOld { .. } => "too_old",
        Invalid::TooNew { .. } => "too_new",
        Invalid::NoSignature => "no_signature",
        Invalid::NoMatch => "no_match",
        Invalid::Repeated { .. } => "repeated_header",
    }
}

/// The recorded deliveries that are signed as Standard Webhooks.
fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root("docs/fixtures/standard_v1")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn expected(folder: &Path) -> String {
    let text = std::fs::read_to_string(folder.join("expected")).unwrap();
    text.trim_end().to_owned()
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap().to_owned();
        if path.is_dir() {
            let below = self::files(&path).into_iter();
            files.extend(below.map(|(rest, bytes)| (format!("{name}/{rest}"), bytes)));
        } else {
            files.insert(name, std::fs::read(&path).unwrap());
        }
    }
    files
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// An empty folder.
fn tempfolder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What runs everywhere: the guide's own examples need them, too.
const ALWAYS: [&str; 3] = ["python3", "node", "bash"];
