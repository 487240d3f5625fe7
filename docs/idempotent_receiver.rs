//! A receiver that does nothing twice, whatever comes twice: `cargo run --example idempotent_receiver`.
//!
//! It checks the signature, and writes down the event's id in the same transaction as what the event made it do. A repetition
//! finds the id there; a failure on the way leaves neither id nor work behind, and the event comes again. `DATABASE_URL` is its
//! own Postgres, `WEBHOOK_SECRET` the secret or the public key (two with a space between them while one replaces the other).
//! It speaks plain HTTP on 127.0.0.1:8080: in front of it stands what speaks TLS.

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::{Manager, Pool};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use posthaste::verifier::Verifier;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_postgres::{NoTls, Transaction};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let secrets = std::env::var("WEBHOOK_SECRET")?;
    let receiver = Receiver {
        verifier: Verifier::new(secrets.split_whitespace())?,
        database: database(&std::env::var("DATABASE_URL")?)?,
    };
    receiver.database.get().await?.batch_execute(TABLES).await?;
    serve(TcpListener::bind("127.0.0.1:8080").await?, receiver).await
}

/// What answers requests.
pub struct Receiver {
    /// Tells whom to believe.
    pub verifier: Verifier,
    /// Holds the [`TABLES`].
    pub database: Pool,
}

/// A few connections to Postgres.
pub fn database(url: &str) -> Result<Pool, Failure> {
    let manager = Manager::new(url.parse()?, NoTls);
    Ok(Pool::builder(manager).max_size(8).build()?)
}

/// Answers until it is dropped.
pub async fn serve(listener: TcpListener, receiver: Receiver) -> Result<(), Failure> {
    let (receiver, room) = (Arc::new(receiver), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let seat = Arc::clone(&room).acquire_owned().await?;
        let (stream, _) = listener.accept().await?;
        let receiver = Arc::clone(&receiver);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(&receiver, request));
            let mut connection = http1::Builder::new();
            connection
                .timer(TokioTimer::new())
                .header_read_timeout(IN_TIME);
            // A connection that breaks is no concern of ours: the event comes again.
            let _ = connection
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            drop(seat);
        });
    }
}

/// The sender waits for 20 s. Whoever has not finished well before says so, and rolls back.
async fn answer(
    receiver: &Receiver,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match tokio::time::timeout(IN_TIME, take_in(receiver, request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            eprintln!("an event could not be taken in: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, String::new())
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    Ok(response)
}

async fn take_in(
    receiver: &Receiver,
    request: Request<Incoming>,
) -> Result<(StatusCode, String), Failure> {
    let (head, body) = request.into_parts();
    // The bytes as they came: what a JSON parser read and wrote again would be signed otherwise.
    let body = Limited::new(body, BODY_LIMIT).collect().await?.to_bytes();
    let verified = match receiver.verifier.verify(&head.headers, &body) {
        Ok(verified) => verified,
        Err(why) => return Ok((StatusCode::UNAUTHORIZED, why.to_string())),
    };
    let event: Value = serde_json::from_slice(&body)?;
    if event["test"] == true {
        return Ok((StatusCode::OK, "a test".to_owned()));
    }
    let mut connection = receiver.database.get().await?;
    let transaction = connection.transaction().await?;
    // Of two that come at once, the second waits here for what becomes of the first.
    let is_new = transaction.execute(REMEMBER, &[&verified.id]).await? == 1;
    if is_new {
        work(&transaction, &event).await?;
    }
    transaction.commit().await?;
    let said = if is_new { "done" } else { "done before" };
    Ok((StatusCode::OK, said.to_owned()))
}

/// What this receiver is there for. Nothing that a rollback does not undo belongs here: an e-mail is written down, to be sent later.
async fn work(transaction: &Transaction<'_>, event: &Value) -> Result<(), Failure> {
    if event["type"] == "certificate.issued" {
        let student = event["data"]["student"]
            .as_str()
            .ok_or("data has no student")?;
        transaction.execute(ISSUE, &[&student]).await?;
    }
    Ok(())
}

/// Ids are kept: an event may be sent again months later, when somebody asked for it.
pub const TABLES: &str = "
    create table if not exists seen_event (id text primary key, seen_at timestamptz not null default now());
    create table if not exists certificate_count (student text primary key, count int not null)";
const REMEMBER: &str = "insert into seen_event (id) values ($1) on conflict do nothing";
const ISSUE: &str = "insert into certificate_count values ($1, 1)
    on conflict (student) do update set count = certificate_count.count + 1";
const BODY_LIMIT: usize = 2 << 20;
const CONNECTIONS: usize = 256;
const IN_TIME: Duration = Duration::from_secs(10);
