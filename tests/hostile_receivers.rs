//! A bad partner can waste the time that an attempt gives it, and nothing else: whatever it answers becomes an attempt row with
//! the right outcome, and a healthy partner beside it gets all its events meanwhile.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use posthaste::secret::{Keyring, SigningSecret};
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::{PartnerConfig, Replies, Reply};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use uuid::Uuid;

use self::Protocol::{Http1, Http2};
use crate::harness::{Partner, WorkerThread, World, authority, http};

// What a partner answers.

#[tokio::test]
async fn a_redirect_is_rejected_and_its_target_never_hears_of_it() {
    let scene = Scene::begin(&[]).await;
    let target = plain(Reply::Status(200)).await;
    for protocol in [Http1, Http2] {
        let met = scene
            .meet(Reply::Redirect(target.url("/elsewhere")), protocol)
            .await;
        met.was(
            "rejected",
            Some(307),
            "retry",
            "http: status 307, and redirects are never followed",
        );
    }
    assert_eq!(target.counts().connections, 0);
}

#[tokio::test]
async fn an_error_status_is_rejected_and_only_gone_is_for_good() {
    let scene = Scene::begin(&[]).await;
    for protocol in [Http1, Http2] {
        let met = scene.meet(Reply::Status(500), protocol).await;
        met.was("rejected", Some(500), "retry", "http: status 500");
        let met = scene.meet(Reply::Status(410), protocol).await;
        met.was("rejected", Some(410), "rejected", "http: status 410");
    }
}

#[tokio::test]
async fn a_giant_body_is_accepted_and_cut_off_with_its_connection() {
    let scene = Scene::begin(&[("max_snippet", "100")]).await;
    let partner = https(Reply::GiantBody, Http1).await;
    let subscription = scene.subscribe(&partner.url("/")).await;
    for connections in 1..=3 {
        let event = scene.publish("{}").await;
        let met = scene.attempt(subscription, event).await;
        met.was("accepted", Some(200), "done", "");
        assert_eq!(met.response.as_deref(), Some("x".repeat(100).as_str()));
        assert!(met.duration < SOON, "{met:?}");
        assert_eq!(partner.counts().connections, connections);
    }
}

#[tokio::test]
async fn a_giant_body_over_http2_ends_its_stream_and_not_the_connection() {
    let scene = Scene::begin(&[]).await;
    let partner = https(Reply::GiantBody, Http2).await;
    let subscription = scene.subscribe(&partner.url("/")).await;
    for _ in 0..50 {
        let event = scene.publish("{}").await;
        scene
            .attempt(subscription, event)
            .await
            .was("accepted", Some(200), "done", "");
    }
    assert_eq!(partner.counts().connections, 1);
}

#[tokio::test]
async fn a_body_that_drips_or_ends_too_soon_changes_nothing_about_its_head() {
    let scene = Scene::begin(&[IMPATIENT]).await;
    for protocol in [Http1, Http2] {
        let met = scene.meet(Reply::DripBody, protocol).await;
        met.was("accepted", Some(200), "done", "");
        assert!(met.duration < SOON, "{met:?}");
    }
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nthe beginning";
    let met = scene.meet(raw(short), Http1).await;
    met.was("accepted", Some(200), "done", "");
    assert_eq!(met.response.as_deref(), Some("the beginning"));
}

#[tokio::test]
async fn an_endless_head_is_cut_off_at_its_cap() {
    let scene = Scene::begin(&[]).await;
    // Endless in lines: the cap on their number comes first.
    let met = scene.meet(Reply::EndlessHead, Http1).await;
    met.was("unreachable", None, "retry", "http: ");
    let long_line = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let met = scene.meet(raw(&long_line), Http1).await;
    met.was(
        "unreachable",
        None,
        "retry",
        "http: response head over 65536 bytes",
    );
}

#[tokio::test]
async fn interim_answers_cost_as_much_as_a_head_and_no_more() {
    let scene = Scene::begin(&[]).await;
    let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let met = scene
        .meet(raw(&format!("{}{last}", interim.repeat(10))), Http1)
        .await;
    met.was("accepted", Some(200), "done", "");
    let met = scene
        .meet(raw(&format!("{}{last}", interim.repeat(100_000))), Http1)
        .await;
    met.was(
        "unreachable",
        None,
        "retry",
        "http: response head over 65536 bytes",
    );
}

#[tokio::test]
async fn a_head_that_drips_or_never_comes_times_out() {
    let scene = Scene::begin(&[IMPATIENT]).await;
    for (reply, protocol) in [
        (Reply::DripHead, Http1),
        (Reply::Hang, Http1),
        (Reply::Hang, Http2),
    ] {
        let met = scene.meet(reply, protocol).await;
        met.was(
            "timed_out",
            None,
            "retry",
            "http: no whole response head within 300ms",
        );
        assert!(met.duration < SOON, "{met:?}");
    }
}

#[tokio::test]
async fn a_connection_that_ends_without_an_answer_is_unreachable() {
    let scene = Scene::begin(&[]).await;
    for protocol in [Http1, Http2] {
        for reply in [Reply::Reset, Reply::CloseWithoutReply] {
            let met = scene.meet(reply, protocol).await;
            met.was("unreachable", None, "retry", "http: ");
        }
    }
}

#[tokio::test]
async fn what_is_not_http_is_unreachable() {
    let scene = Scene::begin(&[]).await;
    for garbage in [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\0\u{1}\u{2}\u{1b}[2J\u{7f}",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 99999 OK\r\n\r\n",
        "HTTP/1.1 200 \0\u{1b}[2J\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ] {
        let met = scene.meet(raw(garbage), Http1).await;
        met.was("unreachable", None, "retry", "http: ");
        assert!(!met.error.chars().any(char::is_control), "{met:?}");
    }
}

#[tokio::test]
async fn nul_and_escapes_in_an_answer_are_recorded_and_escaped() {
    let scene = Scene::begin(&[]).await;
    let body = Bytes::from_static(b"a\0b\x1b[2J\r\n\xff\xe2\x80\xae");
    for (status, outcome, verdict) in [(200, "accepted", "done"), (500, "rejected", "retry")] {
        let reply = Reply::StatusWith {
            status,
            headers: Vec::new(),
            body: body.clone(),
        };
        let met = scene.meet(reply, Http1).await;
        met.was(outcome, Some(status), verdict, "");
        assert_eq!(
            met.response.as_deref(),
            Some("a\\u{0}b\\u{1b}[2J\\r\\n\u{fffd}\\u{202e}")
        );
    }
}

#[tokio::test]
async fn a_status_that_nobody_knows_is_recorded_as_it_is() {
    let scene = Scene::begin(&[]).await;
    for status in [101, 299, 304, 600, 999] {
        let met = scene
            .meet(raw(&format!("HTTP/1.1 {status} Whatever\r\n\r\n")), Http1)
            .await;
        match status {
            299 => met.was("accepted", Some(status), "done", ""),
            _ => met.was(
                "rejected",
                Some(status),
                "retry",
                &format!("http: status {status}"),
            ),
        }
    }
}

// Whom it claims to be.

#[tokio::test]
async fn a_certificate_that_does_not_prove_who_it_is_gets_no_request() {
    let scene = Scene::begin(&[]).await;
    let strangers = Authority::new().unwrap();
    for (certificate, why) in [
        (self_signed(), ""),
        (strangers.server_config(&["127.0.0.1"], true).unwrap(), ""),
        (
            authority()
                .server_config(&["partner.example"], true)
                .unwrap(),
            "not valid for this host",
        ),
        (authority().expired(&["127.0.0.1"]).unwrap(), "expired"),
    ] {
        let partner = under(Reply::Status(200), certificate).await;
        let met = scene.meet_at(&partner.url("/")).await;
        met.was(
            "unreachable",
            None,
            "retry",
            &format!("tls: certificate not trusted: {why}"),
        );
        assert_eq!((partner.count(), partner.counts().connections), (0, 1));
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_gets_no_request() {
    let scene = Scene::begin(&[]).await;
    let partner = plain(Reply::Status(200)).await;
    let met = scene.meet_at(&format!("https://{}/", partner.addr())).await;
    met.was(
        "unreachable",
        None,
        "retry",
        "tls: the peer does not speak TLS",
    );
    assert_eq!(partner.count(), 0);
}

#[tokio::test]
async fn where_nothing_listens_the_connection_is_what_failed() {
    let scene = Scene::begin(&[]).await;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let met = scene.meet_at(&format!("https://{free}/")).await;
    met.was("unreachable", None, "retry", "connect: connection refused");
    assert_eq!(met.remote.as_deref(), Some("127.0.0.1"));
}

// What we do not send.

#[tokio::test]
async fn an_address_that_nobody_allowed_is_never_connected_to() {
    let scene = Scene::alone(&[("allow_networks", "192.0.2.0/24")]).await;
    let partner = https(Reply::Status(200), Http2).await;
    let port = partner.addr().port();
    for (host, address, rule) in [
        ("127.0.0.1", "127.0.0.1", "127.0.0.0/8 (loopback)"),
        ("localhost", "", "(loopback)"),
        ("[::ffff:127.0.0.1]", "::ffff:127.0.0.1", "::ffff:0:0/96"),
        ("10.0.0.1", "10.0.0.1", "10.0.0.0/8"),
        ("169.254.169.254", "169.254.169.254", "metadata"),
    ] {
        let met = scene.meet_at(&format!("https://{host}:{port}/")).await;
        met.was("blocked", None, "retry", address);
        assert!(met.error.contains(rule), "{met:?}");
    }
    assert_eq!(partner.counts().connections, 0);
}

#[tokio::test]
async fn a_metadata_address_stays_closed_inside_an_allowed_network() {
    let scene = Scene::begin(&[("allow_networks", "127.0.0.0/8,169.254.0.0/16")]).await;
    let met = scene
        .meet_at("https://169.254.169.254/latest/meta-data/")
        .await;
    met.was("blocked", None, "retry", "169.254.169.254");
}

#[tokio::test]
async fn plain_http_is_blocked_unless_it_was_allowed() {
    let scene = Scene::begin(&[]).await;
    let partner = plain(Reply::Status(200)).await;
    let met = scene.meet_at(&partner.url("/")).await;
    met.was("blocked", None, "retry", "URL refused: ");
    assert_eq!(partner.counts().connections, 0);
}

#[tokio::test]
async fn a_payload_over_the_cap_is_rejected_for_good_and_one_below_it_is_sent() {
    let scene = Scene::alone(&[("max_body", "2KiB")]).await;
    let partner = https(Reply::Status(200), Http1).await;
    let subscription = scene.subscribe(&partner.url("/")).await;
    let event = scene.publish(&format!("\"{}\"", "x".repeat(3000))).await;
    let met = scene.attempt(subscription, event).await;
    met.was(
        "blocked",
        None,
        "rejected",
        "the payload of 3002 bytes is over max_body",
    );
    assert_eq!(partner.counts().connections, 0);
    let event = scene.publish(&format!("\"{}\"", "x".repeat(1500))).await;
    scene
        .attempt(subscription, event)
        .await
        .was("accepted", Some(200), "done", "");
}

#[tokio::test]
async fn nothing_is_sent_unsigned() {
    let scene = Scene::begin(&[]).await;
    let partner = https(Reply::Status(200), Http1).await;
    for id in ["k1", "k9"] {
        let strangers = Keyring::parse(&Keyring::generate_line(id).unwrap()).unwrap();
        let subscription = scene.subscribe(&partner.url("/")).await;
        let secret = SigningSecret::generate().unwrap();
        scene
            .world
            .add_secret_under(&strangers, subscription, &secret)
            .await;
        let event = scene.publish("{}").await;
        let met = scene.attempt(subscription, event).await;
        met.was(
            "blocked",
            None,
            "retry",
            "signing secret 1 cannot be used: keys: ",
        );
        assert_eq!(met.signed_with, None);
    }
    assert_eq!(partner.counts().connections, 0);
}

// What it costs the others.

#[tokio::test]
async fn partners_that_hold_on_to_every_request_cost_the_others_nothing() {
    let scene = Scene::begin(&[]).await;
    let mut bad = Vec::new();
    for reply in [Reply::Hang, Reply::DripHead, Reply::DripBody] {
        let partner = https(reply, Http1).await;
        bad.push((scene.subscribe(&partner.url("/")).await, partner));
    }
    scene.world.publish_many("thing.happened", 100).await;
    scene.healthy.as_ref().unwrap().wait_for(100).await;
    for (subscription, partner) in &bad {
        let query = format!(
            "select count(*) from posthaste.attempt where subscription_id = {subscription}"
        );
        assert_eq!(
            scene.world.count(&query).await,
            0,
            "it held on to no request"
        );
        assert!(partner.count() <= 16, "endpoint_concurrency does not hold");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_hundred_hungry_answers_fit_in_64_mib() {
    let world = World::new().await;
    let healthy = world.partner().await;
    world.subscribe("healthy", &healthy, "1h").await;
    let worker = world
        .worker_process(&[
            ("endpoint_concurrency", "200"),
            ("request_timeout", "2m"),
            ("lease", "1h"),
        ])
        .await;
    world.publish("thing.happened", "{}").await;
    healthy.wait_for(1).await;
    let before = peak_memory(worker.pid());
    let mut partners = Vec::new();
    for (name, reply) in [("giant", Reply::GiantBody), ("endless", Reply::EndlessHead)] {
        partners.push(https(reply, Http1).await);
        world
            .subscribe_url(
                name,
                &partners[partners.len() - 1].url("/"),
                &["*"],
                None,
                "1h",
            )
            .await;
    }
    world.publish_many("thing.happened", 100).await;
    world
        .until(
            "(select array_agg((name, outcome, n)::text order by name) from (
                 select name, outcome, count(*) n from posthaste.attempt join posthaste.subscription using (subscription_id)
                 group by 1, 2) counted)
             = array['(endless,unreachable,100)', '(giant,accepted,100)', '(healthy,accepted,101)']",
        )
        .await;
    let grown = peak_memory(worker.pid()) - before;
    assert!(grown < 64 << 10, "it grew by {grown} KiB");
}

/// The most memory that a process has had so far, in KiB.
#[cfg(target_os = "linux")]
fn peak_memory(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

// What stays secret.

#[tokio::test]
async fn no_secret_no_payload_and_no_signature_is_ever_written_down() {
    let world = World::new().await;
    let key = world.config(&[]).keys.unwrap().reveal().to_owned();
    let secret = SigningSecret::parse(&format!("whsec_{}", BASE64.encode(CANARY_SECRET))).unwrap();
    let stranger = Authority::new()
        .unwrap()
        .server_config(&["127.0.0.1"], true)
        .unwrap();
    let mut partners = Vec::new();
    for reply in every_reply() {
        partners.push(https(reply.clone(), Http1).await);
        partners.push(https(reply, Http2).await);
    }
    partners.push(under(Reply::Status(200), stranger).await);
    partners.push(plain(Reply::Status(200)).await);
    let mut urls: Vec<String> = partners
        .iter()
        .map(|partner| partner.url(CANARY_PATH))
        .collect();
    urls.push(format!("https://10.1.2.3{CANARY_PATH}"));
    urls.push(format!("https://127.0.0.1:1{CANARY_PATH}"));
    for (number, url) in urls.iter().enumerate() {
        let id = world
            .subscribe_url(&format!("partner {number}"), url, &["*"], None, "1h")
            .await;
        world.add_secret(id, &secret).await;
    }
    let settings = [
        ("log_level", "trace"),
        ("log_format", "json"),
        ("listen", "127.0.0.1:0"),
        IMPATIENT,
    ];
    let worker = world
        .worker_process(&[&settings[..], &[("max_body", "2KiB")]].concat())
        .await;

    let payload = format!("{{\"name\":\"{CANARY_PAYLOAD}\"}}");
    let event = world.publish("thing.happened", &payload).await;
    // By whoever has not said that it wants nothing more.
    let until_attempted = |event: Uuid| {
        format!(
            "not exists (select from posthaste.subscription s where s.active and not exists (
                 select from posthaste.attempt a where a.event_id = '{event}' and a.subscription_id = s.subscription_id))"
        )
    };
    world.until(&until_attempted(event)).await;
    let too_long = format!("[{payload},\"{}\"]", "x".repeat(3000));
    let event = world.publish("thing.happened", &too_long).await;
    world.until(&until_attempted(event)).await;
    // Every session ends while work is under way, so that the driver has something to say.
    world
        .run(
            "select pg_terminate_backend(pid) from pg_stat_activity
               where application_name like 'posthaste%' and datname = current_database()",
        )
        .await;
    let event = world.publish("thing.happened", &payload).await;
    world.until(&until_attempted(event)).await;

    let metrics = http::get(worker.telemetry_address().await, "/metrics")
        .await
        .body;
    worker.terminate();
    let (status, log) = worker.ended_saying().await;
    assert!(status.success(), "{log}");
    let rows = world
        .text("select string_agg(a::text, E'\n') from posthaste.attempt a")
        .await;
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{log}"
    );
    assert!(log.contains(&event.to_string()) && rows.contains(&event.to_string()));
    let received: Vec<_> = partners
        .iter()
        .flat_map(|partner| partner.received())
        .collect();
    assert!(
        received
            .iter()
            .any(|received| received.body.windows(6).any(|part| part == b"CANARY"))
    );
    let signatures = received
        .iter()
        .map(|received| received.headers["webhook-signature"].to_str().unwrap());
    let signatures = signatures.map(|signature| signature.trim_start_matches("v1,").to_owned());
    let secrets = [
        BASE64.encode(CANARY_SECRET),
        key.split_once(':').unwrap().1.to_owned(),
        "CANARY".to_owned(),
    ];
    for hidden in signatures.chain(secrets) {
        for (place, text) in [
            ("log", &log),
            ("attempt rows", &rows),
            ("metrics", &metrics),
        ] {
            let line = text.lines().find(|line| line.contains(&hidden));
            assert!(line.is_none(), "{hidden:?} is in the {place}: {line:?}");
        }
    }
}

fn every_reply() -> Vec<Reply> {
    let body = Bytes::from_static(b"a\0b\x1b[2J\r\n\xff");
    vec![
        Reply::Status(200),
        Reply::Status(500),
        Reply::Status(410),
        Reply::StatusWith {
            status: 400,
            headers: vec![("x-a".into(), "b".into())],
            body,
        },
        Reply::Redirect("https://127.0.0.1/".into()),
        Reply::Hang,
        Reply::Reset,
        Reply::CloseWithoutReply,
        Reply::GiantBody,
        Reply::DripBody,
        Reply::EndlessHead,
        Reply::DripHead,
        raw("SSH-2.0-OpenSSH_9.9\r\n"),
    ]
}

/// One worker, one healthy partner, and whoever else a test adds.
struct Scene {
    _worker: WorkerThread,
    healthy: Option<Partner>,
    subscriptions: AtomicU32,
    world: World,
}

impl Scene {
    async fn begin(settings: &[(&str, &str)]) -> Self {
        let mut scene = Self::alone(settings).await;
        let healthy = scene.world.partner().await;
        scene.world.subscribe("healthy", &healthy, "1h").await;
        scene.healthy = Some(healthy);
        scene
    }

    /// Without the healthy partner.
    async fn alone(settings: &[(&str, &str)]) -> Self {
        let world = World::new().await;
        let worker = world.worker(settings).await;
        Self {
            _worker: worker,
            healthy: None,
            subscriptions: AtomicU32::new(0),
            world,
        }
    }

    /// What an attempt meets at a partner that gives this reply to everything.
    async fn meet(&self, reply: Reply, protocol: Protocol) -> Met {
        let partner = https(reply, protocol).await;
        self.meet_at(&partner.url("/")).await
    }

    /// What an attempt meets at this URL. Meanwhile the healthy partner gets what it is owed.
    async fn meet_at(&self, url: &str) -> Met {
        let subscription = self.subscribe(url).await;
        let event = self.publish("{}").await;
        self.attempt(subscription, event).await
    }

    async fn subscribe(&self, url: &str) -> i32 {
        let name = format!("bad {}", self.subscriptions.fetch_add(1, Ordering::Relaxed));
        self.world
            .subscribe_url(&name, url, &["*"], None, "1h")
            .await
    }

    async fn publish(&self, payload: &str) -> Uuid {
        self.world.publish("thing.happened", payload).await
    }

    /// The first attempt, once it is recorded, and once the healthy partner has got the event too.
    async fn attempt(&self, subscription: i32, event: Uuid) -> Met {
        let which =
            format!("event_id = '{event}' and subscription_id = {subscription} and number = 1");
        self.world
            .until(&format!(
                "exists (select from posthaste.attempt where {which})"
            ))
            .await;
        if self.healthy.is_some() {
            self.world
                .until(&format!(
                    "exists (select from posthaste.attempt join posthaste.subscription using (subscription_id)
                     where name = 'healthy' and event_id = '{event}' and verdict = 'done')"
                ))
                .await;
        }
        let query = format!(
            "select outcome::text, verdict::text, http_status, error, response, host(remote_address), signed_with,
                 duration_us, (select status::text from posthaste.delivery d
                     where (d.event_id, d.subscription_id) = (a.event_id, a.subscription_id))
             from posthaste.attempt a where {which}"
        );
        let row = self.world.db.query_one(&query, &[]).await.unwrap();
        Met {
            outcome: row.get(0),
            verdict: row.get(1),
            http_status: row.get::<_, Option<i16>>(2).map(i16::unsigned_abs),
            error: row.get::<_, Option<String>>(3).unwrap_or_default(),
            response: row.get(4),
            remote: row.get(5),
            signed_with: row.get(6),
            duration: Duration::from_micros(row.get::<_, i32>(7).unsigned_abs().into()),
            status: row.get(8),
        }
    }
}

/// What an attempt row says, and how its delivery stands.
#[derive(Debug)]
struct Met {
    outcome: String,
    verdict: String,
    http_status: Option<u16>,
    error: String,
    response: Option<String>,
    remote: Option<String>,
    signed_with: Option<String>,
    duration: Duration,
    status: String,
}

impl Met {
    #[track_caller]
    fn was(&self, outcome: &str, http_status: Option<u16>, verdict: &str, error: &str) {
        let said = (
            self.outcome.as_str(),
            self.http_status,
            self.verdict.as_str(),
        );
        assert_eq!(said, (outcome, http_status, verdict), "{self:?}");
        assert!(
            self.error.starts_with(error),
            "{self:?} does not say {error:?}"
        );
        assert_eq!(self.error.is_empty(), outcome == "accepted", "{self:?}");
        let status = match verdict {
            "done" => "SUCCESS",
            "retry" => "FAILED",
            "exhausted" => "RETRY_EXHAUSTED",
            _ => "REJECTED",
        };
        assert_eq!(self.status, status, "{self:?}");
    }
}

/// What a partner speaks over TLS.
#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

async fn https(reply: Reply, protocol: Protocol) -> Partner {
    match protocol {
        Http1 => Partner::replying_over_http1(reply).await,
        Http2 => Partner::replying(reply).await,
    }
}

/// Plain HTTP.
async fn plain(reply: Reply) -> Partner {
    Partner::start(PartnerConfig {
        tls: None,
        replies: reply.into(),
        ..Partner::config()
    })
    .await
}

async fn under(reply: Reply, certificate: Arc<ServerConfig>) -> Partner {
    let replies = Replies::from(reply);
    Partner::start(PartnerConfig {
        tls: Some(certificate),
        replies,
        ..Partner::config()
    })
    .await
}

fn self_signed() -> Arc<ServerConfig> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key.into());
    Arc::new(config.unwrap())
}

fn raw(text: &str) -> Reply {
    Reply::Raw(text.to_owned().into())
}

const IMPATIENT: (&str, &str) = ("request_timeout", "300ms");
/// Far more than a request with [`IMPATIENT`] may take, far less than it would take without a deadline.
const SOON: Duration = Duration::from_secs(15);

/// All that must stay hidden has this word in it, but for what is random.
const CANARY_PAYLOAD: &str = "CANARY in the payload";
const CANARY_SECRET: &[u8; 32] = b"CANARY that signs, 32 bytes long";
const CANARY_PATH: &str = "/hook/CANARY?token=CANARY";
