//! The way out is one that partners can be told of: what `posthaste egress` says is what they see.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use posthaste::delivery::Outcome;
use posthaste::egress::EgressPolicy;
use posthaste::sender::{ClientIdentity, EndpointOptions, PartnerAuthority, Sender, SenderConfig};
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::PartnerConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{PATIENCE, Partner, World, posthaste};

#[tokio::test]
async fn partners_are_told_the_announced_addresses_before_all_others() {
    let proxy = ("POSTHASTE_PROXY", "http://ada:CANARY@squid:3128");
    let source = ("POSTHASTE_SOURCE_ADDRESSES", "10.0.0.5");
    let announced = (
        "POSTHASTE_ANNOUNCED_ADDRESSES",
        "203.0.113.7,198.51.100.0/28",
    );
    for (environment, addresses, set_by, remark) in [
        (
            &[proxy, source, announced][..],
            "203.0.113.7 198.51.100.0/28",
            "announced_addresses",
            None,
        ),
        (
            &[proxy, source],
            "",
            "proxy",
            Some("partners see the proxy's addresses"),
        ),
        (
            &[source],
            "10.0.0.5",
            "source_addresses",
            Some("10.0.0.5 is in 10.0.0.0/8 (private use), so partners see another"),
        ),
        (
            &[("POSTHASTE_SOURCE_ADDRESSES", "8.8.8.8")],
            "8.8.8.8",
            "source_addresses",
            None,
        ),
        (&[], "", "nothing", Some("set source_addresses to fix it")),
    ] {
        let said = posthaste(&["egress", "--json"], environment, "").await;
        let json: Value = serde_json::from_str(said.done()).unwrap();
        let told: Vec<&str> = texts(&json["addresses"]);
        assert_eq!(
            (told.join(" ").as_str(), json["set_by"].as_str()),
            (addresses, Some(set_by))
        );
        assert_eq!(json["fixed"], !addresses.is_empty(), "{json}");
        let remarks = texts(&json["remarks"]);
        assert_eq!(remarks.len(), usize::from(remark.is_some()), "{json}");
        assert!(
            remarks.iter().all(|said| said.contains(remark.unwrap())),
            "{json}"
        );
        let text = posthaste(&["egress"], environment, "").await;
        assert!(
            remarks.iter().all(|remark| text.done().contains(remark)),
            "{text:?}"
        );
        assert!(
            told.iter().all(|address| text.stdout.contains(address)),
            "{text:?}"
        );
        assert!(!format!("{said:?}{text:?}").contains("CANARY"), "{text:?}");
    }
}

#[tokio::test]
async fn what_it_says_of_protocols_is_what_a_partner_meets() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world.publish("thing.happened", "{}").await;
    let _worker = world.worker(&[("source_addresses", "127.0.0.2")]).await;
    let received = partner.wait_for(1).await;
    let said = posthaste(
        &["egress", "--json", "--source-addresses", "127.0.0.2"],
        &[],
        "",
    )
    .await;
    let json: Value = serde_json::from_str(said.done()).unwrap();
    assert_eq!(
        received[0].headers["user-agent"],
        json["user_agent"].as_str().unwrap()
    );
    assert_eq!(texts(&json["addresses"]), ["127.0.0.2"]);
    assert_eq!(texts(&json["tls_versions"]), ["1.2", "1.3"]);
    assert_eq!(texts(&json["alpn"]), ["h2", "http/1.1"]);
}

#[tokio::test]
async fn a_worker_sends_through_its_proxy_from_its_source_address() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let proxy = Proxy::start().await;
    let url = format!("http://ada:CANARY@{}", proxy.address);
    let settings = [("proxy", url.as_str()), ("source_addresses", "127.0.0.2")];
    let _worker = world.worker(&settings).await;
    let event_id = world.publish("thing.happened", "{}").await;
    world.until_all_is_done().await;
    assert!(world.story(event_id).await.contains("accepted"));
    let asked = proxy.asked.lock().unwrap().clone();
    let target = partner.url("/").replace("https://", "").replace('/', "");
    assert_eq!(
        asked,
        [(
            IpAddr::from([127, 0, 0, 2]),
            format!("CONNECT {target} HTTP/1.1")
        )]
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_is_an_attempt_that_is_tried_again() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let proxy = Proxy::refusing().await;
    let url = format!("http://ada:CANARY@{}", proxy.address);
    let _worker = world.worker(&[("proxy", &url)]).await;
    world.publish("thing.happened", "{}").await;
    world.until("exists (select from posthaste.attempt)").await;
    let attempt = "select concat_ws(' ', outcome, verdict, error) from posthaste.attempt_log";
    assert_eq!(
        world.text(attempt).await,
        "blocked retry proxy: it answered 407: it wants another login"
    );
    assert!(partner.ids().is_empty());
}

#[tokio::test]
async fn a_worker_does_not_start_with_a_source_address_or_a_proxy_that_is_none() {
    let keys = (
        "POSTHASTE_KEYS",
        "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    );
    let url = ("DATABASE_URL", "postgres://127.0.0.1:1/x");
    let stranger = [keys, url, ("POSTHASTE_SOURCE_ADDRESSES", "203.0.113.9")];
    posthaste(&["run", "--listen", "off"], &stranger, "")
        .await
        .refused_with("source_addresses: 203.0.113.9 is no address of this machine");
    let broken = [keys, url, ("POSTHASTE_PROXY", "http://ada:CANARY@squid")];
    let said = posthaste(&["run", "--listen", "off"], &broken, "").await;
    said.refused_with("proxy: must be http://, https:// or socks5://");
    assert!(!said.stderr.contains("CANARY"), "{}", said.stderr);
}

#[tokio::test]
async fn a_partner_of_its_own_authority_that_asks_who_we_are_is_answered() {
    let (own, clients) = (Authority::new().unwrap(), Authority::new().unwrap());
    let tls = own.server_config_for(&["127.0.0.1"], &clients).unwrap();
    let partner = Partner::start(PartnerConfig {
        tls: Some(tls),
        ..Partner::config()
    })
    .await;
    let sender = Sender::new(SenderConfig {
        egress: EgressPolicy::allowing(vec!["127.0.0.0/8".parse().unwrap()]).unwrap(),
        ..SenderConfig::default()
    })
    .unwrap();
    let (chain, key) = clients.client_pem("posthaste").unwrap();
    let identity = ClientIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    let authority = PartnerAuthority::from_pem(own.pem().as_bytes()).unwrap();
    for (identity, outcome) in [
        (None, Outcome::Unreachable),
        (Some(identity), Outcome::Accepted),
    ] {
        let options = EndpointOptions {
            identity,
            authority: Some(authority.clone()),
            ..EndpointOptions::default()
        };
        let url = sender.parse(&partner.url("/hook")).unwrap();
        let endpoint = sender.endpoint_with(url, options).unwrap();
        let report = endpoint
            .post(HeaderMap::new(), Bytes::from_static(b"{}"), PATIENCE)
            .await;
        assert_eq!(report.outcome, outcome, "{report:?}");
    }
    assert_eq!(partner.ids().len(), 1);
}

/// An HTTP proxy that remembers who asked for what.
struct Proxy {
    address: std::net::SocketAddr,
    asked: Arc<Mutex<Vec<(IpAddr, String)>>>,
}

impl Proxy {
    async fn start() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\n\r\n").await
    }

    async fn refusing() -> Self {
        Self::answering("HTTP/1.1 407 Who\r\n\r\n").await
    }

    async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::default();
        let remembered = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((near, from)) = listener.accept().await {
                tokio::spawn(carry(near, from.ip(), answer, Arc::clone(&remembered)));
            }
        });
        Self { address, asked }
    }
}

async fn carry(
    mut near: TcpStream,
    from: IpAddr,
    answer: &str,
    asked: Arc<Mutex<Vec<(IpAddr, String)>>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap().to_owned();
    let target = line.split(' ').nth(1).unwrap().to_owned();
    asked.lock().unwrap().push((from, line));
    near.write_all(answer.as_bytes()).await.unwrap();
    if answer.contains(" 200 ") {
        let mut far = TcpStream::connect(target).await.unwrap();
        let _ = copy_bidirectional(&mut near, &mut far).await;
    }
}

fn texts(value: &Value) -> Vec<&str> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_str().unwrap()).collect()
}
