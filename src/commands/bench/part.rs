//! The parts that child processes play: each reads one JSON object from standard input that tells which, then orders, a word or
//! two a line, and answers in JSON, one object a line. It ends with its standard input, so nothing outlives the benchmark.

use std::io::{self, BufRead as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use posthaste::egress::EgressPolicy;
use posthaste::endpoint::PlainHttp;
use posthaste::sender::{Endpoint, Sender, SenderConfig};
use posthaste::{Error, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{endpoints, hand_loop, poster, producer, receiver, worker};
use crate::commands::output::say;

/// Plays the part that standard input tells.
pub(super) async fn play() -> Result<ExitCode> {
    let mut orders = Orders::open()?;
    let part = orders.next().await;
    let part = serde_json::from_str(&part).map_err(|_| unreadable("the part"))?;
    match text(&part, "part")? {
        "receiver" => receiver::play(&part, orders).await?,
        "endpoints" => endpoints::play(&part, orders).await?,
        "worker" => return worker::play(&part).await,
        "loop" => hand_loop::play(&part, orders).await?,
        "poster" => poster::play(&part, orders).await?,
        "producer" => producer::play(&part, orders).await?,
        _ => return Err(unreadable("the part")),
    }
    Ok(ExitCode::SUCCESS)
}

/// What standard input says, line by line.
pub(super) struct Orders(mpsc::UnboundedReceiver<String>);

impl Orders {
    fn open() -> Result<Self> {
        let (lines, orders) = mpsc::unbounded_channel();
        let reading = thread::Builder::new()
            .name("orders".to_owned())
            .spawn(move || {
                for line in io::stdin().lock().lines().map_while(Result::ok) {
                    let _ = lines.send(line);
                }
                // Whoever gave the orders is gone, or has no more use for us.
                std::process::exit(0);
            });
        reading.map_err(|error| Error::Io("a thread".to_owned(), error))?;
        Ok(Self(orders))
    }

    /// The next line. There always is one, or this process ends.
    pub(super) async fn next(&mut self) -> String {
        self.0.recv().await.unwrap_or_default()
    }

    /// Does nothing more, so that what this process has used can still be read.
    pub(super) async fn until_the_end(&mut self) -> Result<()> {
        loop {
            self.next().await;
        }
    }
}

/// Answers an order.
pub(super) fn answer(value: &Value) -> Result<()> {
    say(&value.to_string())
}

/// The sender as the worker has it, and its endpoint for this URL.
pub(super) fn endpoint(part: &Value) -> Result<Endpoint> {
    let ca = part["ca"]
        .as_str()
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()));
    let ca = ca
        .transpose()
        .map_err(|error| Error::Tls(error.to_string()))?;
    let loopback = "127.0.0.0/8".parse().map_err(|_| unreadable("a network"))?;
    let sender = Sender::new(SenderConfig {
        egress: EgressPolicy::allowing(vec![loopback])?,
        plain_http: PlainHttp::LoopbackOnly,
        extra_roots: ca.into_iter().collect(),
        ..SenderConfig::default()
    })?;
    let url = sender.parse(text(part, "url")?);
    let url = url.map_err(|refusal| Error::Config(refusal.to_string()))?;
    Ok(sender.endpoint(url))
}

/// A text of a part or an answer.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> Result<&'v str> {
    value[key].as_str().ok_or_else(|| unreadable(key))
}

/// A number of a part or an answer.
pub(super) fn number(value: &Value, key: &str) -> Result<u64> {
    value[key].as_u64().ok_or_else(|| unreadable(key))
}

/// Microseconds since 1970: all processes run on one machine and read one clock.
pub(super) fn micros_now() -> i64 {
    micros(SystemTime::now())
}

/// Microseconds since 1970.
pub(super) fn micros(at: SystemTime) -> i64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn unreadable(what: &str) -> Error {
    Error::Io(
        "a part of the benchmark".to_owned(),
        io::Error::other(format!("cannot read {what}")),
    )
}

/// How long one request may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(20);
