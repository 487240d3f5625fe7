//! A platform with tables of its own. All that it knows of webhooks is one INSERT in each of its transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use posthaste::store::connect_once;
use posthaste::{Error, Result};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::evidence::{Committed, Ledger};

/// The business to be done, shared by the producers who do it.
pub(super) struct Platform {
    transactions: u32,
    begun: AtomicU32,
    ended: AtomicU32,
    is_done: AtomicBool,
}

impl Platform {
    pub(super) fn new(transactions: u32) -> Self {
        Self {
            transactions,
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            is_done: AtomicBool::new(false),
        }
    }

    /// Runs all transactions, several at once, and returns what was committed and what was not.
    pub(super) async fn work(self: Arc<Self>, database_url: &str) -> Result<Ledger> {
        let mut producers = JoinSet::new();
        for _ in 0..PRODUCERS.min(self.transactions) {
            let producer = Producer::hire(database_url).await?;
            producers.spawn(producer.work(Arc::clone(&self)));
        }
        let mut all = Ledger::default();
        while let Some(done) = producers.join_next().await {
            let ledger =
                done.map_err(|error| Error::Io("a producer".to_owned(), error.into()))??;
            all.committed.extend(ledger.committed);
            all.rolled_back.extend(ledger.rolled_back);
        }
        self.is_done.store(true, Ordering::Release);
        Ok(all)
    }

    /// Transactions to run.
    pub(super) fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Transactions that have ended.
    pub(super) fn ended(&self) -> u32 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether every transaction has ended.
    pub(super) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    /// The number of the next transaction, from 1.
    fn next(&self) -> Option<u32> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        (number <= self.transactions).then_some(number)
    }

    /// How long a transaction may stay open after its INSERT: commits come late and in another order than the events' ids. The
    /// more there are, the shorter, so that all of them take about as long.
    fn longest_pause(&self) -> Duration {
        (SPREAD * PRODUCERS / self.transactions).min(LONGEST_PAUSE)
    }
}

/// Someone at the office, with a connection of their own, who takes one student after another from registration to certificate.
struct Producer {
    client: Client,
    steps: [Step; 3],
    ledger: Ledger,
}

/// One kind of business transaction.
struct Step {
    event_type: &'static str,
    /// Changes the platform's tables; takes the number of its subject and returns that of the next step's.
    change: Statement,
    /// Tells of it: the plain INSERT into the outbox.
    tell: Statement,
}

impl Producer {
    async fn hire(database_url: &str) -> Result<Self> {
        let client = connect_once(database_url).await?;
        let steps = [
            Step::prepare(&client, REGISTER).await?,
            Step::prepare(&client, APPROVE).await?,
            Step::prepare(&client, ISSUE).await?,
        ];
        Ok(Self {
            client,
            steps,
            ledger: Ledger::default(),
        })
    }

    async fn work(mut self, platform: Arc<Platform>) -> Result<Ledger> {
        let (mut step, mut subject) = (0, None);
        while let Some(number) = platform.next() {
            let of = subject.unwrap_or_else(|| i32::try_from(number).unwrap_or_default());
            let pause = platform.longest_pause().mul_f64(fastrand::f64());
            // After a rollback nothing has happened: the same step is taken again.
            if let Some(changed) = self.transact(step, of, pause, commits(number)).await? {
                step = (step + 1) % self.steps.len();
                subject = (step > 0).then_some(changed);
            }
            platform.ended.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.ledger)
    }

    /// One business transaction: a change, its event, and COMMIT or ROLLBACK. Returns the number of what was changed, if it was.
    async fn transact(
        &mut self,
        step: usize,
        subject: i32,
        pause: Duration,
        commits: bool,
    ) -> Result<Option<i32>> {
        let Step {
            event_type,
            change,
            tell,
        } = &self.steps[step];
        let transaction = self.client.transaction().await?;
        let changed: i32 = transaction
            .query_one(change, &[&subject])
            .await?
            .try_get(0)?;
        let event_id: Uuid = transaction.query_one(tell, &[&changed]).await?.try_get(0)?;
        tokio::time::sleep(pause).await;
        if !commits {
            self.ledger.rolled_back.insert(event_id);
            transaction.rollback().await?;
            return Ok(None);
        }
        transaction.commit().await?;
        self.ledger.committed.insert(
            event_id,
            Committed {
                event_type,
                at: SystemTime::now(),
            },
        );
        Ok(Some(changed))
    }
}

impl Step {
    async fn prepare(client: &Client, (event_type, change, tell): Text) -> Result<Self> {
        let (change, tell) = (client.prepare(change).await?, client.prepare(tell).await?);
        Ok(Self {
            event_type,
            change,
            tell,
        })
    }
}

/// Every tenth transaction rolls back.
fn commits(number: u32) -> bool {
    !number.is_multiple_of(10)
}

/// An event type, the change that it tells of, and the INSERT.
type Text = (&'static str, &'static str, &'static str);

const REGISTER: Text = (
    "student.registered",
    include_str!("../../../sql/demo/register_student.sql"),
    include_str!("../../../sql/demo/student_registered.sql"),
);
const APPROVE: Text = (
    "INTERNSHIP_APPROVED",
    include_str!("../../../sql/demo/approve_internship.sql"),
    include_str!("../../../sql/demo/internship_approved.sql"),
);
const ISSUE: Text = (
    "certificate.issued",
    include_str!("../../../sql/demo/issue_certificate.sql"),
    include_str!("../../../sql/demo/certificate_issued.sql"),
);

const PRODUCERS: u32 = 6;
/// How long all the pauses of one producer are, if each were the longest.
const SPREAD: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_millis(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_transaction_in_ten_rolls_back() {
        let committed = (1..=300).filter(|number| commits(*number)).count();
        assert_eq!(committed, 270);
    }

    #[test]
    fn more_transactions_make_shorter_pauses() {
        assert_eq!(Platform::new(1).longest_pause(), LONGEST_PAUSE);
        assert_eq!(
            Platform::new(18_000).longest_pause(),
            Duration::from_millis(1)
        );
    }
}
