//! The program as people meet it: what it prints, how it ends, what operators can ask it.

use std::net::SocketAddr;

use posthaste::secret::{SecretKind, SigningSecret};
use posthaste::signature;
use posthaste::verifier::Verifier;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;
use tokio_postgres::config::Host;

use crate::harness::{Database, PATIENCE, WorkerProcess, World, http, posthaste, program};

// Help and mistakes.

#[tokio::test]
async fn every_command_has_help_with_examples() {
    let help = posthaste(&["--help"], &[], "").await;
    let (_, commands) = help.stdout.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        commands.contains(&"run") && commands.contains(&"verify"),
        "{commands:?}"
    );
    for command in commands {
        let said = posthaste(&[command, "--help"], &[], "").await;
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{command}");
        assert!(said.stdout.contains("Examples:\n  "), "{}", said.stdout);
    }
    let said = posthaste(&["subscription", "propose", "--help"], &[], "").await;
    assert!(said.stdout.contains("Examples:\n  "), "{}", said.stdout);
}

#[tokio::test]
async fn a_wrong_word_is_refused_in_one_line_and_a_hint() {
    for (arguments, what, hint) in [
        (
            &["run", "--batchs", "1"][..],
            "unexpected argument '--batchs' found",
            "'--batch'",
        ),
        (&["rum"], "unrecognized subcommand 'rum'", "'run'"),
        (
            &["verify", "--tolerance", "soon"],
            "invalid value 'soon'",
            "--help",
        ),
        (
            &["receive", "--status", "99"],
            "99 is not in 200..=599",
            "--help",
        ),
        (
            &["run", "stray\u{1b}[2J\nword"],
            "unexpected argument 'stray",
            "usage: ",
        ),
    ] {
        let said = posthaste(arguments, &[], "").await;
        said.refused_with(what);
        let lines: Vec<&str> = said.stderr.lines().collect();
        assert!(
            lines.len() == 2 && lines[1].starts_with("hint: ") && lines[1].contains(hint),
            "{}",
            said.stderr
        );
        assert!(!said.stderr.contains('\u{1b}'), "{}", said.stderr);
    }
}

#[tokio::test]
async fn a_bad_value_is_refused_with_its_name_the_value_what_is_allowed_and_its_place() {
    let file = TextFile::new("batch = 0\n");
    let rule = "batch = \"0\": must be a whole number from 1 to 10000";
    for (arguments, environment, place) in [
        (&["run", "--batch", "0"][..], &[][..], "(--batch)"),
        (&["run"], &[("POSTHASTE_BATCH", "0")], "(POSTHASTE_BATCH)"),
        (&["run", "--config", file.path()], &[], file.path()),
    ] {
        let said = posthaste(arguments, environment, "").await;
        said.refused_with(rule);
        assert!(said.stderr.contains(place), "{}", said.stderr);
    }
}

#[tokio::test]
async fn an_unknown_key_of_the_file_is_refused_and_told_its_nearest_neighbour() {
    let file = TextFile::new("max_in_fligt = 5\n");
    posthaste(&["run", "--config", file.path()], &[], "")
        .await
        .refused_with("did you mean `max_in_flight`?");
    let missing = posthaste(&["run", "--config", "/nowhere/posthaste.toml"], &[], "").await;
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.contains("/nowhere/posthaste.toml"),
        "{}",
        missing.stderr
    );
}

#[tokio::test]
async fn a_secret_in_a_broken_setting_is_never_repeated() {
    let file = TextFile::new("keys = \"CANARY\"\n");
    let torn = TextFile::new("keys = \"CANARY\n");
    for (arguments, environment) in [
        (&["run"][..], &[("POSTHASTE_KEYS", "CANARY")][..]),
        (
            &["run"],
            &[
                ("DATABASE_URL", "postgres://u:CANARY@db:port/x"),
                ("POSTHASTE_KEYS", KEY),
            ],
        ),
        (
            &["run"],
            &[
                ("DATABASE_URL", "postgres://u:CANARY@127.0.0.1:1/x"),
                ("POSTHASTE_KEYS", KEY),
            ],
        ),
        (&["run", "--config", file.path()], &[]),
        (&["run", "--config", torn.path()], &[]),
        (&["verify"], &[("POSTHASTE_SECRET", "whsec_CANARY")]),
        (
            &["check"],
            &[
                ("DATABASE_URL", "postgres://u:CANARY@127.0.0.1:1/x"),
                ("POSTHASTE_KEYS", KEY),
            ],
        ),
    ] {
        let said = posthaste(arguments, environment, "").await;
        assert_ne!(said.code, 0, "{said:?}");
        assert!(!format!("{said:?}").contains("CANARY"), "{said:?}");
    }
}

// Without what it needs.

#[tokio::test]
async fn without_a_database_or_keys_it_says_what_is_missing() {
    let url = [("DATABASE_URL", "postgres://127.0.0.1:1/x")];
    let keys = [("POSTHASTE_KEYS", KEY)];
    posthaste(&["run"], &keys, "")
        .await
        .refused_with("database_url is not set: set DATABASE_URL");
    posthaste(&["migrate"], &[], "")
        .await
        .refused_with("database_url is not set: set DATABASE_URL");
    posthaste(&["run"], &url, "")
        .await
        .refused_with("set POSTHASTE_KEYS, or key_file");
    let unreachable = posthaste(&["run", "--listen", "off"], &[url, keys].concat(), "").await;
    assert_eq!(unreachable.code, 1);
    assert!(
        unreachable.stderr.contains("onnection refused"),
        "{unreachable:?}"
    );
    assert!(
        unreachable.stderr.contains("hint: is Postgres up"),
        "{unreachable:?}"
    );
}

#[tokio::test]
async fn a_database_is_migrated_once_and_then_served_until_sigterm() {
    let database = Database::empty().await;
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("POSTHASTE_KEYS", KEY),
    ];
    let early = posthaste(&["run", "--listen", "off"], &environment, "").await;
    assert_eq!(early.code, 1);
    assert!(early.stderr.contains("posthaste migrate"), "{early:?}");

    let first = posthaste(&["migrate"], &environment, "").await;
    assert!(
        first.code == 0 && first.stdout.contains("applied 0001_"),
        "{first:?}"
    );
    let second = posthaste(&["migrate"], &environment, "").await;
    assert!(
        second.code == 0
            && second
                .stdout
                .contains("the schema is up to date; 0 partition(s)"),
        "{second:?}"
    );

    let worker = WorkerProcess::start(variables(
        &environment,
        &[("POSTHASTE_LISTEN", "127.0.0.1:0")],
    ));
    let address = worker.telemetry_address().await;
    until_ready(address, 200).await;
    worker.terminate();
    let (status, log) = worker.ended_saying().await;
    assert!(
        status.success() && log.contains("stopped"),
        "{status} {log}"
    );
}

// What operators ask it.

#[tokio::test]
async fn it_is_alive_before_the_database_answers_and_ready_only_while_it_does() {
    let world = World::new().await;
    let gate = Gate::before(world.url()).await;
    let config = world.config(&[]);
    let keys = config.keys.as_ref().unwrap().reveal();
    let environment = [
        ("DATABASE_URL", gate.url.as_str()),
        ("POSTHASTE_KEYS", keys),
    ];
    let worker = WorkerProcess::start(variables(
        &environment,
        &[("POSTHASTE_LISTEN", "127.0.0.1:0")],
    ));
    let address = worker.telemetry_address().await;
    assert_eq!(http::get(address, "/healthz").await.status, 200);
    assert_eq!(http::get(address, "/readyz").await.status, 503);
    for (open, status) in [(true, 200), (false, 503), (true, 200)] {
        gate.open.send_replace(open);
        until_ready(address, status).await;
        assert_eq!(http::get(address, "/healthz").await.status, 200);
    }
}

#[tokio::test]
async fn sigterm_is_heeded_while_the_database_does_not_answer() {
    let world = World::new().await;
    let gate = Gate::before(world.url()).await;
    let environment = [("DATABASE_URL", gate.url.as_str()), ("POSTHASTE_KEYS", KEY)];
    let worker = WorkerProcess::start(variables(
        &environment,
        &[("POSTHASTE_LISTEN", "127.0.0.1:0")],
    ));
    worker.telemetry_address().await;
    gate.reached().await;
    worker.terminate();
    let (status, log) = worker.ended_saying().await;
    assert!(status.success(), "{status} {log}");
}

#[tokio::test]
async fn a_key_that_the_listener_publishes_verifies_a_delivery_and_is_gone_soon_after_it_has_ended()
{
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world
        .subscribe_url("St. Anna", &partner.url("/in"), &["*"], None, "1h")
        .await;
    world
        .subscribe_url(
            "another",
            &partner.url("/other"),
            &["none.such"],
            None,
            "1h",
        )
        .await;
    for name in ["St. Anna", "another"] {
        world
            .change(name, r#"{"signatures": ["standard_v1a"]}"#)
            .await;
    }
    let worker = world.worker_process(&[("listen", "127.0.0.1:0")]).await;
    let address = worker.telemetry_address().await;
    // The worker makes the keys that were asked for.
    let own = published(address, "/jwks/St.%20Anna.json", 1).await;
    let all = published(address, "/jwks.json", 2).await;
    assert!(all.contains(&own[0]), "{all:?} {own:?}");
    assert_eq!(http::get(address, "/jwks/nobody.json").await.status, 404);

    world.publish("thing.happened", r#"{"a": 1}"#).await;
    let received = partner.wait_for(1).await;
    let (key_id, public_key) = &own[0];
    let verifier = Verifier::new([public_key.as_str()]).unwrap();
    let checked = verifier.verify(&received[0].headers, &received[0].body);
    assert!(checked.is_ok(), "{checked:?}");
    let strangers = all.iter().find(|(id, _)| id != key_id).unwrap();
    let verifier = Verifier::new([strangers.1.as_str()]).unwrap();
    assert!(
        verifier
            .verify(&received[0].headers, &received[0].body)
            .is_err()
    );

    let ours = format!("subscription_id = {id} and public_key is not null");
    let number = world
        .count(&format!(
            "select number::bigint from posthaste.signing_secret where {ours}"
        ))
        .await;
    world
        .run(&format!(
            "select posthaste.end_secret('St. Anna', {number}::smallint, 'it leaked')"
        ))
        .await;
    assert_eq!(
        published(address, "/jwks.json", 1).await,
        std::slice::from_ref(strangers)
    );
    assert_eq!(
        http::get(address, "/jwks/St.%20Anna.json").await.status,
        404
    );
}

/// The keys under a path, each with its id and as a receiver writes it, once there are so many.
async fn published(address: SocketAddr, path: &str, count: usize) -> Vec<(String, String)> {
    let told = async {
        loop {
            let answer = http::get(address, path).await;
            let set: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let keys = set["keys"].as_array().cloned().unwrap_or_default();
            if answer.status == 200 && keys.len() == count {
                return keys;
            }
        }
    };
    let keys = tokio::time::timeout(PATIENCE, told)
        .await
        .expect("the keys are published");
    let known = |key: &serde_json::Value| {
        let [id, x] = ["kid", "x"].map(|field| key[field].as_str().unwrap().to_owned());
        assert_eq!(
            (&key["kty"], &key["crv"]),
            (&"OKP".into(), &"Ed25519".into())
        );
        let standard = x.replace('-', "+").replace('_', "/");
        (id, format!("whpk_{standard}="))
    };
    keys.iter().map(known).collect()
}

#[tokio::test]
async fn log_lines_in_json_all_parse() {
    let world = World::new().await;
    let worker = world
        .worker_process(&[("log_format", "json"), ("log_level", "trace")])
        .await;
    world.publish("thing.happened", "{}").await;
    world.until_all_is_done().await;
    worker.terminate();
    let (_, log) = worker.ended_saying().await;
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let says = |message: &str| {
        lines
            .iter()
            .any(|line| line["fields"]["message"] == message)
    };
    assert!(says("worker registered") && says("stopped"), "{log}");
    assert!(
        lines
            .iter()
            .all(|line| line["timestamp"].is_string() && line["level"].is_string()),
        "{log}"
    );
}

// What a partner's programmer asks it.

#[tokio::test]
async fn verify_tells_a_valid_request_from_one_that_is_changed_old_or_not_ours() {
    let ours = SigningSecret::generate().unwrap();
    let another = SigningSecret::generate().unwrap();
    let signature = signature::sign(std::slice::from_ref(&ours), "msg_1", 1_700_000_000, b"{}");
    let verify = async |secret: &SigningSecret, body: &'static str, now: &str| {
        let arguments = [
            "--id",
            "msg_1",
            "--timestamp",
            "1700000000",
            "--signature",
            &signature,
            "--now",
            now,
        ];
        let arguments = [&["verify"], &arguments[..]].concat();
        let said = posthaste(&arguments, &[("POSTHASTE_SECRET", &secret.reveal())], body).await;
        (said.code, said.stdout)
    };
    assert_eq!(
        verify(&ours, "{}", "1700000300").await,
        (0, "valid\n".to_owned())
    );
    let (code, why) = verify(&ours, "{} ", "1700000000").await;
    assert!(
        code == 1 && why.starts_with("invalid: no signature matches"),
        "{why}"
    );
    let (code, why) = verify(&another, "{}", "1700000000").await;
    assert!(
        code == 1 && why.starts_with("invalid: no signature matches"),
        "{why}"
    );
    let (code, why) = verify(&ours, "{}", "1700000301").await;
    assert!(
        code == 1 && why.starts_with("invalid: the timestamp is 301 s old"),
        "{why}"
    );
}

#[tokio::test]
async fn receive_shows_verifies_and_answers_as_it_is_told() {
    let secret = SigningSecret::generate().unwrap();
    let mut receiver = Receiver::start(
        &["--plain-http", "--json", "--fail-first", "1"],
        &secret.reveal(),
    )
    .await;
    let now = jiff::Timestamp::now().as_second();
    let signature = signature::sign(&[secret], "msg_1", now, b"{}");
    let signed = format!(
        "webhook-id: msg_1\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n"
    );
    for (body, status, verdict) in [("{}", 503, "valid"), ("{} ", 200, "INVALID")] {
        assert_eq!(
            http::post(receiver.address, "/hook", &signed, body)
                .await
                .status,
            status
        );
        let shown: serde_json::Value = serde_json::from_str(&receiver.line().await).unwrap();
        assert_eq!(
            (&shown["path"], &shown["id"], &shown["body"]),
            (&"/hook".into(), &"msg_1".into(), &body.into())
        );
        assert_eq!(shown["answer"], status.to_string());
        assert!(
            shown["signature"].as_str().unwrap().starts_with(verdict),
            "{shown}"
        );
    }
    let receiver = Receiver::start(&["--plain-http", "--json", "--status", "410"], "").await;
    assert_eq!(http::post(receiver.address, "/", "", "").await.status, 410);
}

/// And as a receiver should, it takes no header twice: another program would read the other one.
#[tokio::test]
async fn receive_verifies_by_a_public_key() {
    let pair = SigningSecret::generate_as(SecretKind::Ed25519).unwrap();
    let public = pair.public_key().unwrap().to_string();
    let mut receiver = Receiver::start(&["--plain-http", "--json"], &public).await;
    let now = jiff::Timestamp::now().as_second();
    let signature = signature::sign(&[pair], "msg_1", now, b"{}");
    let signed = format!(
        "webhook-id: msg_1\r\nwebhook-timestamp: {now}\r\nwebhook-signature: {signature}\r\n"
    );
    let twice = format!("{signed}webhook-id: msg_2\r\n");
    for (headers, verdict) in [
        (&signed, "valid"),
        (&twice, "INVALID (webhook-id came more"),
    ] {
        http::post(receiver.address, "/", headers, "{}").await;
        let shown: serde_json::Value = serde_json::from_str(&receiver.line().await).unwrap();
        assert!(
            shown["signature"].as_str().unwrap().starts_with(verdict),
            "{shown}"
        );
    }
}

fn variables(some: &[(&str, &str)], more: &[(&str, &str)]) -> Vec<(String, String)> {
    some.iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

async fn until_ready(address: SocketAddr, status: u16) {
    let answers = async {
        while http::get(address, "/readyz").await.status != status {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, answers).await;
    in_time.unwrap_or_else(|_| panic!("/readyz never says {status}"));
}

/// `posthaste receive`, listening.
struct Receiver {
    address: SocketAddr,
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Receiver {
    async fn start(arguments: &[&str], secret: &str) -> Self {
        let arguments = [&["receive"], arguments].concat();
        let mut child = program(&arguments, &[("POSTHASTE_SECRET", secret)])
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let greeting = lines.next_line().await.unwrap().expect("it ended");
        let greeting: serde_json::Value = serde_json::from_str(&greeting).unwrap();
        let url = greeting["listening"].as_str().unwrap();
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .unwrap();
        Self {
            address,
            lines,
            _child: child,
        }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("it shows nothing").unwrap().expect("it ended")
    }
}

/// A door in front of Postgres. Closed, it lets nobody through who is not in already, and nobody stay.
struct Gate {
    url: String,
    open: watch::Sender<bool>,
    callers: watch::Receiver<u32>,
}

impl Gate {
    async fn before(url: &str) -> Self {
        let postgres: tokio_postgres::Config = url.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let user = postgres.get_user().unwrap();
        let password = postgres
            .get_password()
            .map(|word| format!(":{}", String::from_utf8_lossy(word)));
        let (address, database) = (
            listener.local_addr().unwrap(),
            postgres.get_dbname().unwrap(),
        );
        let url = format!(
            "postgres://{user}{}@{address}/{database}?sslmode=disable",
            password.unwrap_or_default()
        );
        let (open, opens) = watch::channel(false);
        let (call, callers) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                call.send_modify(|callers| *callers += 1);
                tokio::spawn(let_through(caller, postgres.clone(), opens.clone()));
            }
        });
        Self { url, open, callers }
    }

    /// Returns once somebody has knocked.
    async fn reached(&self) {
        self.callers
            .clone()
            .wait_for(|callers| *callers > 0)
            .await
            .unwrap();
    }
}

async fn let_through(
    mut caller: TcpStream,
    postgres: tokio_postgres::Config,
    mut open: watch::Receiver<bool>,
) {
    if open.wait_for(|open| *open).await.is_err() {
        return;
    }
    let port = postgres.get_ports().first().copied().unwrap_or(5432);
    let through = async {
        match &postgres.get_hosts()[0] {
            Host::Tcp(name) => {
                let mut server = TcpStream::connect((name.as_str(), port)).await?;
                tokio::io::copy_bidirectional(&mut caller, &mut server).await
            }
            Host::Unix(folder) => {
                let mut server =
                    UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await?;
                tokio::io::copy_bidirectional(&mut caller, &mut server).await
            }
        }
    };
    let closes = open.clone();
    tokio::select! {
        _ = through => {}
        () = closed(closes) => {}
    }
}

async fn closed(mut open: watch::Receiver<bool>) {
    let _ = open.wait_for(|open| !*open).await;
}

/// A file that lives as long as the value.
struct TextFile(std::path::PathBuf);

impl TextFile {
    fn new(text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("posthaste-test-{}.toml", uuid::Uuid::now_v7()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TextFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// 32 bytes of nothing, as a line of a keyring.
const KEY: &str = "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
