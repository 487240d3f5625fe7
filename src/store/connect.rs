//! How we connect: what a URL may say, TLS, and the settings of our sessions.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Pool, PoolError, QueueMode, RecyclingMethod, Runtime, TimeoutType,
};
use futures_util::future::poll_fn;
use tokio::sync::Notify;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::{Error, Result, tls};

/// The pool that the hot statements run on.
pub(super) fn pool(config: &Config) -> Result<Pool> {
    let target = Target::parse(config.required_database_url()?)?;
    let postgres = target.session("posthaste", HOT_SETTINGS);
    // Fast: no round trip to check a session that is about to be used; a dead one fails its statement,
    // and every caller copes with that.
    let options = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = match &target.tls {
        Some(tls) => Manager::from_config(postgres, tls.clone(), options),
        None => Manager::from_config(postgres, NoTls, options),
    };
    Pool::builder(manager)
        .max_size(config.database_connections)
        // The session used last: its plans and its server's caches are warm, and a few sessions do as long as they can.
        .queue_mode(QueueMode::Lifo)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(Duration::from_secs(30)))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .build()
        .map_err(|error| Error::Database(error.to_string()))
}

/// One session of its own, for what is done once: migrations, checks, demonstrations. It ends with
/// the client.
pub async fn connect_once(database_url: &str) -> Result<Client> {
    let target = Target::parse(database_url)?;
    let postgres = target.session("posthaste", "");
    if let Some(tls) = target.tls.clone() {
        let (client, connection) = connected(&postgres, tls).await?;
        tokio::spawn(connection);
        Ok(client)
    } else {
        let (client, connection) = connected(&postgres, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Connects, or gives up: a server that takes the connection and says nothing is no server.
async fn connected<T>(
    postgres: &tokio_postgres::Config,
    tls: T,
) -> Result<(Client, tokio_postgres::Connection<Socket, T::Stream>)>
where
    T: MakeTlsConnect<Socket>,
{
    let answer = tokio::time::timeout(CONNECT_TIMEOUT, postgres.connect(tls)).await;
    if !matches!(answer, Ok(Ok(_))) {
        crate::telemetry::database_answers(false);
    }
    match answer {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::Database(format!(
            "no answer within {CONNECT_TIMEOUT:?}"
        ))),
    }
}

/// A session that hears notifications. No transaction is ever open on it: one that idles would keep
/// the notification queue from being emptied.
#[derive(Debug)]
pub struct Listener {
    /// For session locks and LISTEN; quick statements only, since they hold up notifications.
    pub client: Arc<Client>,
    /// Rings at every notification; rings that nobody waits for become one.
    pub bell: Arc<Notify>,
    /// Cancelled when the connection is lost.
    pub lost: CancellationToken,
}

/// Connects a [`Listener`].
pub async fn listen(database_url: &str) -> Result<Listener> {
    let target = Target::parse(database_url)?;
    let postgres = target.session("posthaste listener", "-c statement_timeout=10s");
    if let Some(tls) = target.tls.clone() {
        let (client, connection) = connected(&postgres, tls).await?;
        Ok(heed(client, connection))
    } else {
        let (client, connection) = connected(&postgres, NoTls).await?;
        Ok(heed(client, connection))
    }
}

fn heed<S, T>(client: Client, mut connection: tokio_postgres::Connection<S, T>) -> Listener
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (bell, lost) = (Arc::new(Notify::new()), CancellationToken::new());
    let (ring, end) = (Arc::clone(&bell), lost.clone().drop_guard());
    tokio::spawn(async move {
        let _end = end;
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                ring.notify_one();
            }
        }
    });
    Listener {
        client: Arc::new(client),
        bell,
        lost,
    }
}

/// One line about what Postgres said. Its DETAIL is left out: it can hold a whole row.
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    let mut text = explained(error);
    if let Some((end, _)) = text.char_indices().nth(MAX_EXPLANATION) {
        text.truncate(end);
    }
    text
}

fn explained(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{} [{}]{hint}", db.message(), db.code().code())
    } else {
        use std::error::Error as _;
        let cause = error
            .source()
            .map_or(String::new(), |cause| format!(": {cause}"));
        format!("{error}{cause}")
    }
}

/// In characters. Postgres quotes values in some messages, however long they are.
const MAX_EXPLANATION: usize = 1000;

/// Whether Postgres refused the data itself, so that the same statement would fail for ever.
pub(super) fn is_about_data(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| code.code().starts_with("22") || code.code().starts_with("23"))
}

/// Whether Postgres said it, and will say something else another time: not so where it is about to stop, or to start.
pub(super) fn is_an_answer(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| !code.code().starts_with("57P"))
}

/// Whether all sessions were busy, rather than none to be had.
pub(super) fn is_about_room(error: &PoolError) -> bool {
    matches!(error, PoolError::Timeout(TimeoutType::Wait))
}

pub(super) fn explain_pool(error: &PoolError) -> String {
    match error {
        PoolError::Backend(error) => explain(error),
        PoolError::Timeout(kind) => format!("no session within the time allowed ({kind:?})"),
        other => other.to_string(),
    }
}

/// A database URL, understood.
struct Target {
    postgres: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
}

impl Target {
    /// Reads a URL or `key=value` words. `sslmode` means what it means to libpq, but where it asks
    /// for TLS at all the certificate is verified, and without a word over the network it asks.
    fn parse(database_url: &str) -> Result<Self> {
        let (url, words) = set_apart(database_url)?;
        let mut postgres: tokio_postgres::Config =
            url.parse().map_err(|error: tokio_postgres::Error| {
                Error::Config(format!("database_url cannot be read: {}", explain(&error)))
            })?;
        let wants_tls = match words.mode.as_deref() {
            Some("disable") => false,
            None | Some("allow" | "prefer") => !is_local(&postgres),
            Some("require" | "verify-ca" | "verify-full") => true,
            Some(other) => {
                let allowed = "disable, prefer, require, verify-ca or verify-full";
                return Err(Error::Config(format!(
                    "database_url: sslmode={other:?} is not one of {allowed}"
                )));
            }
        };
        postgres.ssl_mode(if wants_tls {
            SslMode::Require
        } else {
            SslMode::Disable
        });
        let tls = wants_tls
            .then(|| verified(words.root_cert.as_deref()))
            .transpose()?;
        Ok(Self { postgres, tls })
    }

    fn session(&self, name: &str, settings: &str) -> tokio_postgres::Config {
        let mut postgres = self.postgres.clone();
        let asked = postgres.get_options().unwrap_or_default().to_owned();
        postgres
            .application_name(name)
            .options(format!("{settings} {asked}").trim())
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10))
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        postgres
    }
}

/// What `sslmode` and `sslrootcert` said; the driver knows too few values of the one, and not the other.
#[derive(Default)]
struct TlsWords {
    mode: Option<String>,
    root_cert: Option<String>,
}

impl TlsWords {
    fn take(&mut self, key: &str, value: &str) -> Result<bool> {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root_cert = Some(value.to_owned()),
            "gssencmode" | "pgbouncer" => {}
            "sslcert" | "sslkey" | "sslpassword" => {
                let why = "client certificates for the database are not supported";
                return Err(Error::Config(format!(
                    "database_url: {key}: {why}; use a password"
                )));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// The URL without the words about TLS, and those words.
fn set_apart(database_url: &str) -> Result<(String, TlsWords)> {
    let mut words = TlsWords::default();
    if !database_url.starts_with("postgres://") && !database_url.starts_with("postgresql://") {
        let mut kept = Vec::new();
        for word in database_url.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if !words.take(key, value.trim_matches('\''))? {
                kept.push(word);
            }
        }
        return Ok((kept.join(" "), words));
    }
    let Some((base, query)) = database_url.split_once('?') else {
        return Ok((database_url.to_owned(), words));
    };
    let mut kept = Vec::new();
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !words.take(key, &value.replace("%2F", "/").replace("%2f", "/"))? {
            kept.push(pair);
        }
    }
    Ok((
        if kept.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", kept.join("&"))
        },
        words,
    ))
}

fn is_local(postgres: &tokio_postgres::Config) -> bool {
    let local_address = |address: &std::net::IpAddr| address.is_loopback();
    postgres.get_hostaddrs().iter().all(local_address)
        && postgres.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse().is_ok_and(|address| local_address(&address))
            }
            #[cfg(unix)]
            Host::Unix(_) => true,
        })
}

fn verified(root_cert: Option<&str>) -> Result<MakeRustlsConnect> {
    let own = match root_cert {
        Some(path) if path != "system" => tls::certificates_in(path.as_ref())?,
        _ => Vec::new(),
    };
    Ok(MakeRustlsConnect::new(tls::client_config(&own)?))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Every hot statement looks rows up by key, whatever the statistics of the moment say: a plan that
/// was made when the queue was empty must still be right when it holds ten million rows.
const HOT_SETTINGS: &str = "-c enable_seqscan=off -c enable_mergejoin=off -c enable_bitmapscan=off \
    -c plan_cache_mode=force_generic_plan -c jit=off -c lock_timeout=10s -c statement_timeout=30s \
    -c idle_in_transaction_session_timeout=10s";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_tls_are_set_apart_from_the_url() -> Result<()> {
        let (url, words) = set_apart(
            "postgres://u@h/d?sslmode=verify-full&application_name=x&sslrootcert=%2Fca.pem",
        )?;
        assert_eq!(url, "postgres://u@h/d?application_name=x");
        assert_eq!(words.mode.as_deref(), Some("verify-full"));
        assert_eq!(words.root_cert.as_deref(), Some("/ca.pem"));
        let (url, words) = set_apart("host=h sslmode=disable dbname=d")?;
        assert_eq!(
            (url.as_str(), words.mode.as_deref()),
            ("host=h dbname=d", Some("disable"))
        );
        Ok(())
    }

    #[test]
    fn tls_is_asked_for_unless_the_server_is_on_this_machine_or_the_url_says_not() {
        let wants = |url: &str| Target::parse(url).map(|target| target.tls.is_some());
        assert!(wants("postgres://u@db.example/d").is_ok_and(|tls| tls));
        assert!(wants("postgres://u@db.example/d?sslmode=disable").is_ok_and(|tls| !tls));
        assert!(wants("postgres://u@127.0.0.1/d").is_ok_and(|tls| !tls));
        assert!(wants("postgres://u@127.0.0.1/d?sslmode=require").is_ok_and(|tls| tls));
        assert!(wants("host=/run/postgresql dbname=d").is_ok_and(|tls| !tls));
    }

    #[test]
    fn an_unknown_sslmode_is_refused_by_name() {
        let refused = Target::parse("postgres://u@h/d?sslmode=strict")
            .err()
            .map(|error| error.to_string());
        assert!(refused.is_some_and(|text| text.contains("sslmode=\"strict\"")));
    }
}
