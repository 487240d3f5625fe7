//! The limit: the worker's own HTTP client against the same receiver, with no database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use posthaste::delivery::Outcome;
use posthaste::secret::SigningSecret;
use posthaste::sender::Endpoint;
use posthaste::{Error, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::part::{self, Orders, TIMEOUT, answer, micros, micros_now, number};
use super::payload::{payload, request};

/// Plays it: `count` requests, either with so many at once, or at a fixed `rate`.
pub(super) async fn play(part: &Value, mut orders: Orders) -> Result<()> {
    let endpoint = part::endpoint(part)?;
    let secrets = [SigningSecret::generate()?];
    let count = number(part, "count")?;
    if let Some(rate) = part["rate"].as_u64() {
        answer(&json!({ "ready": true }))?;
        orders.next().await;
        answer(&json!({ "sent": at_rate(&endpoint, &secrets, count, rate).await? }))?;
        return orders.until_the_end().await;
    }
    let signed =
        (0..SIGNED).map(|place| request(&format!("msg_{place}"), &payload(place), &secrets));
    let signed = signed.collect::<Result<Vec<_>>>()?.into();
    let many = Many {
        endpoint,
        signed,
        next: AtomicU64::new(0),
        count,
    };
    answer(&json!({ "ready": true }))?;
    orders.next().await;
    many.post(number(part, "concurrency")?).await?;
    answer(&json!({ "sent": count }))?;
    orders.until_the_end().await
}

/// As many requests as fit: the same few signed ones again and again.
struct Many {
    endpoint: Endpoint,
    signed: Arc<[(HeaderMap, Bytes)]>,
    next: AtomicU64,
    count: u64,
}

impl Many {
    async fn post(self, concurrency: u64) -> Result<()> {
        let many = Arc::new(self);
        let mut posting = JoinSet::new();
        for _ in 0..concurrency {
            posting.spawn(Arc::clone(&many).post_some());
        }
        while let Some(ended) = posting.join_next().await {
            ended.map_err(|_| Error::Config("a poster panicked".to_owned()))??;
        }
        Ok(())
    }

    async fn post_some(self: Arc<Self>) -> Result<()> {
        let own = usize::try_from(SIGNED).unwrap_or(1);
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            if place >= self.count {
                return Ok(());
            }
            let (headers, body) = &self.signed[usize::try_from(place).unwrap_or(0) % own];
            post(&self.endpoint, headers.clone(), body.clone()).await?;
        }
    }
}

/// Place, due time, begin and end of each request.
async fn at_rate(
    endpoint: &Endpoint,
    secrets: &[SigningSecret],
    count: u64,
    rate: u64,
) -> Result<Vec<(u64, i64, i64, i64)>> {
    let mut due = pace(count, rate)?;
    let mut posting = JoinSet::new();
    while let Some((place, due)) = due.recv().await {
        let (headers, body) = request(&format!("msg_{place}"), &payload(place), secrets)?;
        let endpoint = endpoint.clone();
        posting.spawn(async move {
            let begun = micros_now();
            post(&endpoint, headers, body)
                .await
                .map(|()| (place, due, begun, micros_now()))
        });
    }
    let mut sent = Vec::new();
    while let Some(ended) = posting.join_next().await {
        sent.push(ended.map_err(|_| Error::Config("a poster panicked".to_owned()))??);
    }
    Ok(sent)
}

async fn post(endpoint: &Endpoint, headers: HeaderMap, body: Bytes) -> Result<()> {
    let report = endpoint.post(headers, body, TIMEOUT).await;
    match report.outcome {
        Outcome::Accepted => Ok(()),
        other => Err(Error::Config(format!(
            "a request ended as {}: {}",
            other.as_str(),
            report.error.unwrap_or_default()
        ))),
    }
}

/// Places from 0 and the time when each is due, each at that time, whatever became of those before it. From a thread, because a
/// runtime's timers are exact to a millisecond only.
pub(super) fn pace(count: u64, rate: u64) -> Result<mpsc::UnboundedReceiver<(u64, i64)>> {
    let (places, due) = mpsc::unbounded_channel();
    let pacing = thread::Builder::new()
        .name("pace".to_owned())
        .spawn(move || {
            let (begin, begin_wall) = (Instant::now(), SystemTime::now());
            for place in 0..count {
                let after = Duration::from_nanos(place.saturating_mul(1_000_000_000) / rate);
                thread::sleep(after.saturating_sub(begin.elapsed()));
                if places.send((place, micros(begin_wall + after))).is_err() {
                    return;
                }
            }
        });
    pacing.map_err(|error| Error::Io("a thread".to_owned(), error))?;
    Ok(due)
}

/// How many different requests there are.
const SIGNED: u64 = 1024;
