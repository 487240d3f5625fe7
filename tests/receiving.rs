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
use http::{HeaderMap, HeaderName, HeaderValue};
use posthaste::envelope::SHIPPED;
use posthaste::secret::{SecretKind, SigningSecret};
use posthaste::signature::{Invalid, Profile, verify, verify_as};
use posthaste::verifier::Verifier;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::harness::{PATIENCE, posthaste};

/// What a partner who writes Rust copies.
#[path = "../docs/receivers/verify.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
mod copied;

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
fn our_verifications_come_to_the_recorded_verdict() {
    for delivery in index()["deliveries"].as_array().unwrap() {
        let verdict = Received::of(delivery).verdict();
        assert_eq!(
            verdict.err().map(word),
            delivery["problem"].as_str(),
            "{}",
            delivery["folder"]
        );
    }
}

/// What a receiver in Rust uses. It says of a header beyond ASCII that it is not there; else it gives the same reasons.
#[test]
fn the_verifier_believes_what_is_genuine_and_nothing_else() {
    for delivery in index()["deliveries"].as_array().unwrap() {
        let received = Received::of(delivery);
        if let Profile::StandardV1 | Profile::StandardV1a | Profile::SvixLegacy = received.profile {
            let verdict = received.believed();
            assert_eq!(verdict.is_ok(), delivery["valid"], "{}", delivery["folder"]);
        }
    }
}

/// Each profile has deliveries that its receivers take and some that they do not, and each envelope has one.
#[test]
fn no_profile_and_no_envelope_is_left_out() {
    let index = index();
    assert_eq!(index["tolerance_seconds"], TOLERANCE.as_secs());
    let deliveries = index["deliveries"].as_array().unwrap();
    for profile in Profile::ALL {
        let of_it = deliveries
            .iter()
            .filter(|delivery| delivery["profile"] == profile.as_str());
        let (valid, invalid): (Vec<_>, Vec<_>) =
            of_it.partition(|delivery| delivery["valid"] == true);
        assert!(valid.len() >= 3 && invalid.len() >= 3, "{profile}");
    }
    for shipped in SHIPPED {
        let called = format!("{}@{}", shipped.name, shipped.version);
        assert!(
            deliveries.iter().any(|it| it["envelope"] == called),
            "{called}"
        );
    }
}

#[test]
fn the_verification_in_rust_comes_to_the_recorded_verdict() {
    for folder in standard() {
        let verdict = copied::check(&folder).unwrap();
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
    let folders = [standard(), vec![without_line_end()]].concat();
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
        let output = ended(command.args(&folders)).await;
        agrees(file, &output, &folders, expected);
    }
}

#[tokio::test]
async fn the_programs_for_other_profiles_come_to_the_recorded_verdict() {
    for profile in OTHERS {
        let folders = folders(profile);
        let mut node = Command::new("node");
        node.arg(root("docs/receivers/other_profiles.mjs"));
        let output = ended(node.args(&folders)).await;
        let program = format!("{profile} in JavaScript");
        agrees(&program, &output, &folders, expected);

        let mut python = Command::new("python3");
        python.arg(root("docs/receivers/other_profiles.py"));
        python.env("PYTHONDONTWRITEBYTECODE", "1");
        if profile == "standard_v1a" {
            let Some(place) = installed().await else {
                continue;
            };
            python.env("PYTHONPATH", place.join("python"));
        }
        let output = ended(python.args(&folders)).await;
        agrees(&format!("{profile} in Python"), &output, &folders, expected);
    }
}

/// Under a key that is empty anybody can sign; a secret of another kind, or none, must not become one.
#[tokio::test]
async fn a_secret_that_is_none_makes_the_programs_fail_and_believe_nothing() {
    let [svix, github] = ["svix_legacy", "github"].map(|profile| {
        let folder = tempfolder(&format!("no_secret_of_{profile}"))
            .join(profile)
            .join("forged");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    });
    // HMAC-SHA256 of `msg_1.1700000000.{}` and of `{}` under the empty key.
    write(&svix, "headers", SVIX_UNDER_NO_KEY);
    write(&svix, "secrets", "whsec-mistyped\n");
    write(&github, "headers", GITHUB_UNDER_NO_KEY);
    write(&github, "secrets", "\n");
    for folder in [&svix, &github] {
        write(folder, "body", "{}");
        write(folder, "now", "1700000000\n");
        let mut python = Command::new("python3");
        python
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(root("docs/receivers/other_profiles.py"));
        refuses(&ended(python.arg(folder)).await);
    }
    let mut node = Command::new("node");
    node.arg(root("docs/receivers/other_profiles.mjs"));
    refuses(&ended(node.arg(&svix)).await);
    let github = "o.github([''], {'x-hub-signature-256': process.argv[1]}, Buffer.from('{}'))";
    let (_, signature) = GITHUB_UNDER_NO_KEY.split_once(' ').unwrap();
    refuses(&imported("other_profiles.mjs", github, signature.trim_end()).await);
}

/// Frameworks that speak fetch, such as Next.js, have no plain object.
#[tokio::test]
async fn headers_may_be_those_of_fetch() {
    let index = index();
    let deliveries = index["deliveries"].as_array().unwrap();
    for (file, profile) in [
        ("verify.mjs", "standard_v1"),
        ("other_profiles.mjs", "stripe"),
    ] {
        let is_it = |it: &&Value| it["profile"] == profile && it["name"] == "valid";
        let delivery = deliveries.iter().find(is_it).unwrap().to_string();
        let call = "d = JSON.parse(process.argv[1]), \
            console.log((o[d.profile] ?? o.verify)(d.secrets, new Headers(d.headers), Buffer.from(d.body_base64, 'base64'), d.now) ?? 'valid')";
        let output = imported(file, call, &delivery).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "valid\n", "{file}");
    }
}

#[tokio::test]
async fn the_command_says_of_each_profile_what_its_receivers_see() {
    let index = index();
    let check = async |profile: &str, delivery: &Value| {
        let folder = root("docs/fixtures").join(delivery["folder"].as_str().unwrap());
        let [headers, body, secrets] =
            ["headers", "body", "secrets"].map(|name| folder.join(name).display().to_string());
        let now = delivery["now"].to_string();
        let request = ["--headers", &headers, "--body", &body, "--now", &now];
        let way = [
            "--secret-file",
            &secrets,
            "--profile",
            profile,
            "--prefix",
            "X-Platform",
        ];
        posthaste(&[&["verify"][..], &request, &way].concat(), &[], "").await
    };
    for delivery in index["deliveries"].as_array().unwrap() {
        let (profile, folder) = (delivery["profile"].as_str().unwrap(), &delivery["folder"]);
        let said = check(profile, delivery).await;
        assert_eq!(said.code == 0, delivery["valid"], "{folder}: {said:?}");
        if ["standard_v1", "svix_legacy"].contains(&profile) && delivery["name"] == "valid" {
            for other in ["standard_v1", "standard_v1a", "svix_legacy"] {
                let said = check(other, delivery).await;
                assert_eq!(
                    said.code == 0,
                    other == profile,
                    "{folder} as {other}: {said:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_libraries_that_receivers_use_come_to_the_recorded_verdict() {
    let Some(place) = installed().await else {
        return;
    };
    let [python, node] = [place.join("python"), place.join("node")];
    let first_word = |folder: &Path| {
        let expected = expected(folder);
        expected.split(':').next().unwrap_or_default().to_owned()
    };
    for (library, folders, languages) in [
        ("standardwebhooks", standard(), BOTH),
        ("svix", standard(), BOTH),
        ("svix", folders("svix_legacy"), BOTH),
        ("stripe", folders("stripe"), BOTH),
        ("octokit", folders("github"), &["JavaScript"]),
    ] {
        for language in languages {
            let mut command = if *language == "Python" {
                let mut python3 = Command::new("python3");
                python3
                    .arg(root("tests/receiving/libraries.py"))
                    .env("PYTHONPATH", &python);
                python3
            } else {
                let mut javascript = Command::new("node");
                javascript
                    .arg(root("tests/receiving/libraries.mjs"))
                    .current_dir(&node);
                javascript
            };
            let output = ended(command.arg(library).args(&folders)).await;
            let program = format!("{library} in {language}");
            agrees(&program, &output, &folders, first_word);
        }
    }
    let options = "node_modules/typescript/bin/tsc --noEmit --strict --allowJs --checkJs --target es2022 --module nodenext --types node";
    let mut check = Command::new("node");
    check
        .args(options.split(' '))
        .arg("--typeRoots")
        .arg(node.join("node_modules/@types"))
        .args(["verify.mjs", "other_profiles.mjs"].map(|file| root("docs/receivers").join(file)))
        .current_dir(&node);
    let checked = ended(&mut check).await;
    assert!(
        checked.status.success(),
        "the types in docs/receivers: {}",
        String::from_utf8_lossy(&checked.stdout)
    );
}

/// Whether a program failed without a verdict.
#[track_caller]
fn refuses(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.is_empty(), "{said}");
}

/// Runs JavaScript in which `o` is what a file of `docs/receivers` exports.
async fn imported(file: &str, call: &str, argument: &str) -> Output {
    let file = root("docs/receivers").join(file);
    let script = format!(
        "let d; import('file://{}').then((o) => ({call}))",
        file.display()
    );
    ended(Command::new("node").args(["-e", &script, argument])).await
}

/// A delivery whose secret somebody wrote down by hand.
fn without_line_end() -> PathBuf {
    let (from, folder) = (
        root("docs/fixtures/standard_v1/valid"),
        tempfolder("without_line_end"),
    );
    for (name, bytes) in files(&from) {
        let kept = if name == "secrets" {
            bytes.trim_ascii_end()
        } else {
            &bytes
        };
        std::fs::write(folder.join(name), kept).unwrap();
    }
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).unwrap();
}

/// Whether each line that a program printed is what was recorded with its folder.
#[track_caller]
fn agrees(program: &str, output: &Output, folders: &[PathBuf], expected: impl Fn(&Path) -> String) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Vec<&str> = text.lines().collect();
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

/// A recorded delivery as `index.json` has it.
struct Received {
    profile: Profile,
    secrets: Vec<String>,
    headers: HeaderMap,
    body: Vec<u8>,
    now: i64,
}

impl Received {
    fn of(delivery: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let headers = delivery["headers"].as_object().unwrap().iter();
        let headers = headers.map(|(name, value)| {
            let value = HeaderValue::from_bytes(text(value).as_bytes()).unwrap();
            (name.parse::<HeaderName>().unwrap(), value)
        });
        Self {
            profile: Profile::parse(&text(&delivery["profile"])).unwrap(),
            secrets: delivery["secrets"]
                .as_array()
                .unwrap()
                .iter()
                .map(text)
                .collect(),
            headers: headers.collect(),
            body: BASE64.decode(text(&delivery["body_base64"])).unwrap(),
            now: delivery["now"].as_i64().unwrap(),
        }
    }

    fn verdict(&self) -> Result<(), Invalid> {
        let secrets = || {
            self.secrets
                .iter()
                .map(|text| secret(text))
                .collect::<Vec<_>>()
        };
        match self.profile {
            Profile::StandardV1a => self.believed(),
            Profile::StandardV1 => {
                let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
                let [id, at, signature] = names.map(|name| {
                    let value = self
                        .headers
                        .get(name)
                        .map_or(&[][..], HeaderValue::as_bytes);
                    std::str::from_utf8(value).unwrap()
                });
                verify(
                    &secrets(),
                    id,
                    at,
                    signature,
                    &self.body,
                    self.now,
                    TOLERANCE,
                )
            }
            profile => verify_as(
                profile,
                Some("X-Platform"),
                &secrets(),
                &self.headers,
                &self.body,
                self.now,
                TOLERANCE,
            )
            .unwrap(),
        }
    }

    fn believed(&self) -> Result<(), Invalid> {
        let verifier = Verifier::new(self.secrets.iter().map(String::as_str)).unwrap();
        let verifier = verifier.tolerance(TOLERANCE);
        verifier
            .verify_at(&self.headers, &self.body, self.now)
            .map(drop)
    }
}

/// A text is used letter by letter, and need not look like any of ours.
fn secret(text: &str) -> SigningSecret {
    SigningSecret::parse(text)
        .or_else(|_| SigningSecret::parse_as(SecretKind::Text, text))
        .unwrap()
}

/// Where the libraries are, if they can be had. Installed once, whichever test comes first.
async fn installed() -> Option<&'static Path> {
    static PLACE: OnceCell<Option<PathBuf>> = OnceCell::const_new();
    let install = async || {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("receivers");
        let installed = ended(Command::new(root("tests/receiving/install")).arg(&place)).await;
        if installed.status.success() {
            return Some(place);
        }
        let why = String::from_utf8_lossy(&installed.stderr);
        let why = why.trim_end().lines().last().unwrap_or_default();
        not_run("the libraries in Python and JavaScript", why, false);
        None
    };
    PLACE.get_or_init(install).await.as_deref()
}

fn index() -> Value {
    let text = std::fs::read_to_string(root("docs/fixtures/index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The recorded deliveries that are signed in the usual way.
fn standard() -> Vec<PathBuf> {
    [folders("standard_v1"), folders("envelopes")].concat()
}

/// The recorded deliveries of one group.
fn folders(group: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root("docs/fixtures").join(group)).unwrap();
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
/// The profiles that the programs for the usual signatures cannot verify.
const OTHERS: [&str; 9] = [
    "standard_v1a",
    "svix_legacy",
    "stripe",
    "github",
    "shopify",
    "convoy",
    "convoy_simple",
    "hook0",
    "prefixed",
];
const SVIX_UNDER_NO_KEY: &str = "svix-id: msg_1\nsvix-timestamp: 1700000000\nsvix-signature: v1,LzeNxZHo3O8fwpFJpLh/0B99ugILNFJw+/9lTgx0APs=\n";
const GITHUB_UNDER_NO_KEY: &str = "x-hub-signature-256: sha256=22f8eea909400af98adf3681a9f31923ef6b7fcba4abb553d92823a3e9d5c25e\n";
const BOTH: &[&str] = &["Python", "JavaScript"];
const TOLERANCE: Duration = Duration::from_mins(5);
