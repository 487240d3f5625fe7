//! The guide for receivers says what is so: its commands run as written, one after the other, and its SQL does what it says.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use posthaste::envelope::SHIPPED;
use posthaste::signature::{Profile, header_names};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use uuid::Uuid;

use crate::harness::{PATIENCE, World};

#[tokio::test]
async fn its_commands_run_as_written() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    ada.run(CATALOGUE).await;
    let partner = world.partner().await;
    world
        .subscribe_to("university", &partner, &["certificate.issued"], None, "1h")
        .await;
    let _worker = world.worker(&[]).await;
    let desk = Desk::new(&ada.url);
    let guide = guide();
    let [
        page,
        fixtures,
        suite,
        verify,
        profiles,
        server,
        send,
        too_old,
        receive,
        test,
    ] = blocks(&guide, "```sh guide");

    desk.run(page).await;
    assert!(
        desk.read("events.md")
            .contains("\n## certificate.issued\n\nA certificate\n")
    );
    assert_eq!(desk.run(fixtures).await, "valid\ninvalid: too_old\n");
    let names = desk.run(suite).await;
    assert!(
        names.lines().count() > 30 && names.contains("unicode is as it should be"),
        "{names}"
    );
    assert!(
        desk.run(verify)
            .await
            .ends_with("recorded deliveries are in fixtures\nvalid\n")
    );

    assert_eq!(desk.run(profiles).await, "valid\nvalid\ninvalid: too_old\n");

    let mut server = desk.start(server, "127.0.0.1:8000").await;
    for _ in 0..2 {
        assert_eq!(desk.run(&server.at_its_address(send)).await, "204\n");
    }
    assert_eq!(desk.run(&server.at_its_address(too_old)).await, "401\n");
    let kept = r#"python3 -c 'import sqlite3; print(*sqlite3.connect("inbox.db").execute("select webhook_id from inbox"))'"#;
    assert_eq!(desk.run(kept).await, "('msg_1',)\n");
    server.stop().await;

    let mut receive = desk.start(receive, "127.0.0.1:18443").await;
    assert_eq!(desk.run(&receive.at_its_address(send)).await, "200\n");
    let said = receive.next_line().await;
    assert!(
        said.ends_with("id msg_1 attempt 1, signature valid, answer 200"),
        "{said}"
    );
    receive.stop().await;

    let answer = desk.run(test).await;
    assert!(
        answer.contains("accepted") && answer.contains("200"),
        "{answer}"
    );
    assert_eq!(partner.wait_for(1).await[0].headers["webhook-test"], "true");
}

#[tokio::test]
async fn its_inbox_takes_each_event_once() {
    let world = World::new().await;
    let guide = guide();
    let [inbox] = blocks(&guide, "```sql guide:inbox");
    let [receive] = blocks(&guide, "```sql guide:receive");
    let [work] = blocks(&guide, "```sql guide:work");
    world.run(inbox).await;
    for (id, inserted) in [("a", 1), ("b", 1), ("a", 0)] {
        let body: &[u8] = b"{}";
        assert_eq!(
            world
                .db
                .execute(receive.trim().trim_end_matches(';'), &[&id, &body])
                .await
                .unwrap(),
            inserted
        );
    }
    let statements: Vec<&str> = work
        .split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect();
    let [begin, take, done, commit] = statements[..] else {
        panic!("{statements:?}");
    };
    for expected in ["a", "b"] {
        world.run(begin).await;
        let taken: String = world.db.query_one(take, &[]).await.unwrap().get(0);
        assert_eq!(taken, expected);
        // Whoever works beside it gets another.
        let other = world.session().await.query_opt(take, &[]).await.unwrap();
        assert_ne!(
            other.map(|row| row.get::<_, String>(0)).as_deref(),
            Some(expected)
        );
        assert_eq!(world.db.execute(done, &[&taken]).await.unwrap(), 1);
        world.run(commit).await;
    }
    assert!(world.db.query_opt(take, &[]).await.unwrap().is_none());
}

/// What is said of defaults is what the program's settings and the README's table of terms say; a test of the README holds that to the schema.
#[test]
fn its_numbers_are_the_defaults() {
    let guide = guide();
    let readme = std::fs::read_to_string(root("README.md")).unwrap();
    for (name, default, words) in [
        (
            "connect_timeout",
            "`5s`",
            "We wait 5 s for the connection with TLS",
        ),
        ("request_timeout", "`20s`", "and 20 s for everything"),
        ("max_body", "`1MiB`", "at most little above 1 MiB"),
        (
            "retry_intervals",
            "`\"standard_webhooks\"`",
            "5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h later: ten attempts",
        ),
        ("retry_jitter", "`\"0.1\"`", "a tenth shorter or longer"),
        (
            "client_errors",
            "`\"retry\"`",
            "tried again; or over at once, where that was agreed",
        ),
        (
            "pause_after",
            "`\"5 days\"`",
            "After five days of nothing but failures",
        ),
    ] {
        assert!(
            readme.contains(&format!("\n| `{name}` | {default} |")),
            "{name} is not {default}"
        );
        assert!(guide.contains(words), "{name}: {words}");
    }
    let breaker = r#"| `breaker` | `{"failures": 20, "ratio": 0.8, "requests": 100, "window": "00:01:00", "open_for": "00:00:15", "open_for_at_most": "00:05:00"}`"#;
    assert!(readme.contains(breaker));
    assert!(guide.contains("After 20 failures in a row, or where 80 % of at least 100 requests in a minute fail, nothing is sent for 15 s."));
    let schedule = "`standard_webhooks` (5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h)";
    assert!(readme.contains(schedule));
}

#[test]
fn it_tells_of_every_envelope_and_every_profile() {
    let guide = guide();
    for shipped in SHIPPED {
        let row = format!("\n| `{}` | ", shipped.name);
        assert!(guide.contains(&row), "{}", shipped.name);
    }
    for profile in Profile::ALL {
        let row = format!("\n| `{profile}` | ");
        let names = header_names(profile, Some("X-Platform")).unwrap();
        let signature = names.last().unwrap().as_str();
        let told = between(&guide.to_lowercase(), &row, "\n").to_owned();
        assert!(told.contains(&format!("`{signature}")), "{profile}: {told}");
    }
    let replayable = Profile::ALL.into_iter().filter(|it| it.is_replayable());
    let names: Vec<_> = replayable.map(|profile| format!("`{profile}`")).collect();
    let (last, others) = names.split_last().unwrap();
    let words = format!("{} and {last} are **replayable**", others.join(", "));
    assert!(guide.contains(&words), "{words}");
}

#[test]
fn what_it_links_to_is_there() {
    let guide = guide();
    let headings: Vec<String> = guide
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .collect();
    let mut count = 0;
    for link in guide.split("](").skip(1) {
        let target = link.split(')').next().unwrap_or_default();
        match target.strip_prefix('#') {
            Some(name) => assert!(headings.iter().any(|heading| heading == name), "#{name}"),
            None if target.contains("://") => {}
            None => assert!(root("docs").join(target).exists(), "{target}"),
        }
        count += 1;
    }
    assert!(count > 30, "{count} links");
}

/// A folder in which somebody tries the guide out: `docs`, the request that it shows, cut into its parts, and its secret.
struct Desk {
    folder: PathBuf,
    database_url: String,
}

impl Desk {
    fn new(database_url: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("posthaste-guide-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(root("docs"), folder.join("docs")).unwrap();
        let guide = guide();
        let request = between(&guide, "```http\n", "\n```");
        let (head, body) = request.split_once("\n\n").unwrap();
        let secret = between(&guide, "signed with\n`", "`");
        for (name, text) in [
            ("headers.txt", head),
            ("body.json", body),
            ("secret", secret),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
        Self {
            folder,
            database_url: database_url.to_owned(),
        }
    }

    /// Runs lines of the guide; what they printed.
    async fn run(&self, lines: &str) -> String {
        let ended = tokio::time::timeout(PATIENCE, self.shell(lines).output()).await;
        let Output {
            status,
            stdout,
            stderr,
        } = ended
            .unwrap_or_else(|_| panic!("does not end: {lines}"))
            .unwrap();
        assert!(
            status.success(),
            "{lines}\n{}",
            String::from_utf8_lossy(&stderr)
        );
        String::from_utf8(stdout).unwrap()
    }

    /// Starts what runs until it is stopped, on a free port in place of the one that the guide gives it.
    async fn start(&self, line: &str, address: &'static str) -> Running {
        let port = address.rsplit(':').next().unwrap();
        let line = line
            .replace(&format!(":{port}"), ":0")
            .replace(&format!(" {port}"), " 0");
        let mut child = self.shell(line.trim()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = next_line(&mut lines).await;
        let at = first
            .strip_prefix("listening on http://")
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        Running {
            child,
            lines,
            address,
            at,
        }
    }

    fn shell(&self, lines: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_posthaste")).parent().unwrap();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", lines])
            .current_dir(&self.folder);
        command
            .env("PATH", path)
            .env("DATABASE_URL", &self.database_url)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server that the guide has people start.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Where the guide says that it is, and where it is.
    address: &'static str,
    at: String,
}

impl Running {
    /// Lines of the guide, with its address in place of the guide's.
    fn at_its_address(&self, lines: &str) -> String {
        // What is sent to the one is sent to the other as well.
        lines
            .replace("127.0.0.1:8000", &self.at)
            .replace(self.address, &self.at)
    }

    /// What it prints next about a request.
    async fn next_line(&mut self) -> String {
        loop {
            let line = next_line(&mut self.lines).await;
            if line.starts_with('#') {
                return line;
            }
        }
    }

    async fn stop(&mut self) {
        self.child.kill().await.unwrap();
    }
}

async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
    line.expect("it prints nothing")
        .unwrap()
        .expect("it has ended")
}

/// The guide's blocks that begin so, of which there are as many.
fn blocks<'g, const N: usize>(guide: &'g str, fence: &str) -> [&'g str; N] {
    let blocks = guide.split(fence).skip(1).map(|rest| {
        let (_, block) = rest.split_once('\n').unwrap();
        block.split("```").next().unwrap_or_default()
    });
    let blocks: Vec<&str> = blocks.collect();
    let count = blocks.len();
    blocks
        .try_into()
        .unwrap_or_else(|_| panic!("{count} blocks {fence}"))
}

/// As GitHub makes anchors of headings.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().replace(' ', "-")
}

fn guide() -> String {
    std::fs::read_to_string(root("docs/receiving.md")).unwrap()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap();
    rest.split_once(after).unwrap().0
}

const CATALOGUE: &str = "select posthaste.create_event_type('certificate.issued', 'A certificate', example => '{\"certificate\": 42}')";
