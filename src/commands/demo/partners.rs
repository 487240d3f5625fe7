//! Three partners, each a real HTTPS receiver under an authority made on the spot, or the lack of one.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use posthaste::secret::{Keyring, SigningSecret};
use posthaste::store::Store;
use posthaste::trial::authority::Authority;
use posthaste::trial::partner::{Partner, PartnerConfig, Received, Replies, Reply};
use posthaste::{Error, Result};
use tokio::net::TcpSocket;
use tokio_postgres::Client;
use uuid::Uuid;

use super::evidence::{Account, Receipt};

/// What a partner is like, and so what we promise about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Character {
    /// Takes every event at once.
    Healthy,
    /// Fails twice for each event, then takes it.
    Flaky,
    /// Nobody listens at its address.
    Down,
}

impl Character {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Healthy, Self::Flaky, Self::Down];

    /// Its name, and its subscription's.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Flaky => "flaky",
            Self::Down => "down",
        }
    }

    /// What it does, in a few words.
    pub(super) fn manner(self) -> &'static str {
        match self {
            Self::Healthy => "wants every event, and takes it",
            Self::Flaky => "wants approvals and certificates, and fails twice on each",
            Self::Down => "wants certificates, and nobody listens there",
        }
    }

    /// The event types that it subscribes to.
    pub(super) fn event_types(self) -> &'static [&'static str] {
        match self {
            Self::Healthy => &["*"],
            Self::Flaky => &["INTERNSHIP_APPROVED", "certificate.issued"],
            Self::Down => &["certificate.issued"],
        }
    }

    /// Whether an event of this type is owed to it.
    pub(super) fn wants(self, event_type: &str) -> bool {
        self.event_types()
            .iter()
            .any(|wanted| *wanted == "*" || *wanted == event_type)
    }

    /// What it answers to each event, attempt by attempt.
    pub(super) fn answers(self) -> &'static [u16] {
        match self {
            Self::Healthy => &[200],
            Self::Flaky => &[503, 503, 200],
            Self::Down => &[],
        }
    }

    /// What each of its deliveries meets, attempt by attempt.
    pub(super) fn outcomes(self) -> &'static [&'static str] {
        match self {
            Self::Healthy => &["accepted"],
            Self::Flaky => &["rejected", "rejected", "accepted"],
            Self::Down => &["unreachable", "unreachable", "unreachable", "unreachable"],
        }
    }

    /// How each of its deliveries ends.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Healthy | Self::Flaky => "SUCCESS",
            Self::Down => "RETRY_EXHAUSTED",
        }
    }

    /// The waits between attempts.
    fn retry_intervals(self) -> &'static [&'static str] {
        match self {
            Self::Healthy | Self::Flaky => &["0.3 s", "0.6 s", "1 s"],
            Self::Down => &["0.2 s", "0.4 s", "0.8 s"],
        }
    }
}

/// The three of them. Dropping it closes their doors.
pub(super) struct Cast {
    parts: Vec<Part>,
}

struct Part {
    character: Character,
    url: String,
    secret: SigningSecret,
    receipts: Receipts,
    door: Door,
}

/// What is behind a partner's address.
enum Door {
    Open(Partner),
    /// A port that is held, so that nobody else can come to listen there, and where nobody listens.
    Shut(#[expect(dead_code, reason = "held for its port")] TcpSocket),
}

impl Cast {
    /// Opens the doors of those who have one.
    pub(super) async fn assemble(authority: &Authority) -> Result<Self> {
        let mut parts = Vec::new();
        for character in Character::ALL {
            parts.push(Part::cast(character, authority).await?);
        }
        Ok(Self { parts })
    }

    /// Gives each its subscription, and stores the secret that it will verify with.
    pub(super) async fn subscribe(
        &self,
        client: &Client,
        store: &Store,
        keyring: &Keyring,
    ) -> Result<()> {
        for part in &self.parts {
            let subscription_id = part.subscribe(client).await?;
            let secret_id = Uuid::now_v7();
            let sealed = keyring.seal(subscription_id, secret_id, &part.secret)?;
            store
                .add_secret(
                    subscription_id,
                    secret_id,
                    &part.secret,
                    &sealed,
                    "the partner's own",
                )
                .await?;
        }
        Ok(())
    }

    /// One line about each.
    pub(super) fn introduction(&self) -> impl Iterator<Item = String> {
        let line = |part: &Part| {
            let (name, manner) = (part.character.name(), part.character.manner());
            format!("{name:<8} {}  {manner}", part.url)
        };
        self.parts.iter().map(line)
    }

    /// What each has to say of the requests that it got; what we recorded is still to be added.
    pub(super) fn accounts(&self) -> impl Iterator<Item = Account> {
        self.parts.iter().map(|part| Account {
            character: part.character,
            receipts: part.receipts.all(),
            deliveries: Vec::new(),
            attempts: HashMap::new(),
        })
    }

    /// Closes the doors and waits until they are closed.
    pub(super) async fn leave(self) {
        for part in &self.parts {
            if let Door::Open(partner) = &part.door {
                partner.stop().await;
            }
        }
    }
}

impl Part {
    async fn cast(character: Character, authority: &Authority) -> Result<Self> {
        let (secret, receipts) = (SigningSecret::generate()?, Receipts::default());
        let (door, url) = match character {
            Character::Down => shut()?,
            _ => open(character, authority, &secret, &receipts).await?,
        };
        Ok(Self {
            character,
            url,
            secret,
            receipts,
            door,
        })
    }

    async fn subscribe(&self, client: &Client) -> Result<i32> {
        let Self { character, url, .. } = self;
        let row = client
            .query_one(
                include_str!("../../../sql/demo/subscribe.sql"),
                &[
                    &character.name(),
                    url,
                    &character.event_types(),
                    &character.retry_intervals(),
                ],
            )
            .await?;
        Ok(row.try_get(0)?)
    }
}

async fn open(
    character: Character,
    authority: &Authority,
    secret: &SigningSecret,
    receipts: &Receipts,
) -> Result<(Door, String)> {
    let receipts = receipts.clone();
    let config = PartnerConfig {
        tls: Some(authority.server_config(&[&LOOPBACK.to_string()], true)?),
        secrets: vec![secret.clone()],
        replies: Replies::by(move |received| Reply::Status(receipts.note(character, received))),
        // It keeps its own receipts.
        keep: 0,
        ..PartnerConfig::default()
    };
    let partner = Partner::start(config).await?;
    let url = partner.url(PATH);
    Ok((Door::Open(partner), url))
}

fn shut() -> Result<(Door, String)> {
    let held = || {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((LOOPBACK, 0)))?;
        let address = socket.local_addr()?;
        Ok((Door::Shut(socket), format!("https://{address}{PATH}")))
    };
    held().map_err(|error| Error::Io("holding a port where nobody listens".to_owned(), error))
}

/// A partner's own book of what it received and answered.
#[derive(Clone, Default)]
struct Receipts(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    receipts: Vec<Receipt>,
    times: HashMap<Uuid, usize>,
}

impl Receipts {
    /// Writes a request down and decides on the answer.
    fn note(&self, character: Character, received: &Received) -> u16 {
        let event_id = Uuid::try_parse(&received.id).unwrap_or_default();
        let mut book = self.book();
        let time = book.times.entry(event_id).or_default();
        let answered = answer(character, *time);
        *time += 1;
        book.receipts.push(Receipt {
            event_id,
            at: received.at,
            body: received.body.clone(),
            is_signed: received.verified == Some(Ok(())),
            answered,
        });
        answered
    }

    fn all(&self) -> Vec<Receipt> {
        self.book().receipts.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it answers when it got the event `times` times before. What comes after the last answer is taken again.
fn answer(character: Character, times: usize) -> u16 {
    character.answers().get(times).copied().unwrap_or(200)
}

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
const PATH: &str = "/hooks";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaky_partner_fails_twice_and_then_takes_everything() {
        let answers: Vec<u16> = (0..4)
            .map(|times| answer(Character::Flaky, times))
            .collect();
        assert_eq!(answers, [503, 503, 200, 200]);
    }

    #[test]
    fn retries_reach_as_far_as_the_promise() {
        for character in Character::ALL {
            let attempts = character.retry_intervals().len() + 1;
            let promised = character.outcomes().len();
            match character.status() {
                "SUCCESS" => assert!(promised <= attempts, "{character:?}"),
                _ => assert_eq!(promised, attempts, "{character:?}"),
            }
        }
    }
}
