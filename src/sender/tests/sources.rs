//! The address that connections leave from.

use std::net::{IpAddr, SocketAddr};

use super::harness::{CA, PATIENT, Peer, answers, config, post, sender};
use crate::delivery::Outcome::{Accepted, Unreachable};
use crate::proxy::ProxyUrl;
use crate::sender::{Sender, SenderConfig};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

fn from(addresses: &[&str]) -> SenderConfig {
    SenderConfig {
        source_addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..config()
    }
}

#[tokio::test]
async fn connections_leave_from_the_source_address() {
    for tls in [None, Some(CA.partner(&[]))] {
        let peer = Peer::answering(tls, OK).await;
        let anywhere = sender(config());
        let bound = sender(from(&["127.0.0.2"]));
        for (sender, seen) in [(anywhere, "127.0.0.1"), (bound, "127.0.0.2")] {
            let report = post(&peer.endpoint(&sender), PATIENT).await;
            assert_eq!(report.outcome, Accepted, "{report:?}");
            assert_eq!(peer.last_from(), seen.parse::<IpAddr>().unwrap());
        }
    }
}

#[tokio::test]
async fn a_proxy_is_connected_to_from_the_source_address() {
    let proxy = Peer::plain(|mut talk| async move {
        talk.say("HTTP/1.1 502 No\r\n\r\n").await;
        talk.hang().await;
    })
    .await;
    let url = format!("http://127.0.0.1:{}", proxy.port);
    let bound = SenderConfig {
        proxy: Some(ProxyUrl::parse(&url).unwrap()),
        ..from(&["127.0.0.3"])
    };
    let sender = sender(bound);
    let url = sender.parse("https://partner.example/").unwrap();
    let report = post(&sender.endpoint(url), PATIENT).await;
    assert_eq!(report.error.as_deref(), Some("proxy: it answered 502"));
    assert_eq!(proxy.last_from(), IpAddr::from([127, 0, 0, 3]));
}

#[tokio::test]
async fn nothing_leaves_by_a_family_that_has_no_source_address() {
    let peer = Peer::answering(Some(CA.partner(&[])), OK).await;
    let both = |port| {
        vec![
            SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)),
            SocketAddr::from(([127, 0, 0, 1], port)),
        ]
    };
    let open = SenderConfig {
        egress: crate::egress::EgressPolicy::allowing(vec![
            "127.0.0.0/8".parse().unwrap(),
            "::1/128".parse().unwrap(),
        ])
        .unwrap(),
        ..from(&["127.0.0.2"])
    };
    let sender = Sender::with_lookup(open.clone(), answers(both)).unwrap();
    let report = post(&peer.endpoint(&sender), PATIENT).await;
    assert_eq!(
        (report.outcome, report.remote),
        (Accepted, Some([127, 0, 0, 1].into()))
    );
    let only_six = answers(move |port| both(port)[..1].to_vec());
    let sender = Sender::with_lookup(open, only_six).unwrap();
    let report = post(&peer.endpoint(&sender), PATIENT).await;
    assert_eq!(report.outcome, Unreachable);
    assert_eq!(
        report.error.as_deref(),
        Some("connect: no source address for this kind of IP address")
    );
    assert_eq!(peer.accepts(), 1);
}

#[test]
fn an_address_that_is_not_this_machines_is_refused_at_the_start() {
    let refusal = |addresses: &[&str]| Sender::new(from(addresses)).unwrap_err().to_string();
    let said = refusal(&["203.0.113.9"]);
    let rule = "configuration: source_addresses: 203.0.113.9 is no address of this machine that can be used: ";
    assert!(said.starts_with(rule), "{said}");
    let said = refusal(&["127.0.0.1", "127.0.0.2"]);
    assert!(
        said.contains("127.0.0.2 is the second of its family"),
        "{said}"
    );
}
