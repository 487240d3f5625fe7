//! Whether everything held: computed from the evidence, event by event. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use uuid::Uuid;

use super::evidence::{Account, Attempt, Evidence, Receipt, Recorded};
use super::partners::Character;

/// What was found.
pub(super) struct Verdict {
    pub(super) committed: usize,
    pub(super) rolled_back: usize,
    pub(super) partners: Vec<Findings>,
    pub(super) claims: Vec<Claim>,
    /// From COMMIT to receipt, of the healthy partner's accepted requests, shortest first.
    pub(super) latencies: Vec<Duration>,
}

/// Something that must hold, and how often it did not, by partner or by where it was found.
pub(super) struct Claim {
    pub(super) says: &'static str,
    pub(super) against: Vec<(&'static str, usize)>,
}

impl Claim {
    pub(super) fn holds(&self) -> bool {
        self.against.is_empty()
    }
}

impl Verdict {
    /// Compares the accounts.
    pub(super) fn of(evidence: &Evidence) -> Self {
        let partners: Vec<Findings> = evidence
            .partners
            .iter()
            .map(|account| Findings::of(account, evidence))
            .collect();
        let healthy = evidence
            .partners
            .iter()
            .find(|account| account.character == Character::Healthy);
        Self {
            committed: evidence.ledger.committed.len(),
            rolled_back: evidence.ledger.rolled_back.len(),
            claims: claims(evidence, &partners),
            latencies: healthy
                .map(|account| latencies(account, evidence))
                .unwrap_or_default(),
            partners,
        }
    }

    /// Whether everything held.
    pub(super) fn holds(&self) -> bool {
        self.claims.iter().all(Claim::holds)
    }
}

/// What was found about one partner. The counts from `missing` on must be 0.
pub(super) struct Findings {
    pub(super) character: Character,
    /// Deliveries by their status.
    pub(super) deliveries: BTreeMap<String, usize>,
    /// Attempts by their outcome.
    pub(super) attempts: BTreeMap<String, usize>,
    /// Requests that it received.
    pub(super) requests: usize,
    /// Of these, with a valid signature.
    pub(super) verified: usize,
    /// Events owed to it that it never accepted; where nobody listens, that were never tried.
    pub(super) missing: usize,
    /// Requests for an event that it had accepted before.
    pub(super) duplicates: usize,
    /// Requests that told of a transaction that was rolled back.
    pub(super) rolled_back: usize,
    /// Requests for an event that was not owed to it at all.
    pub(super) uncalled: usize,
    /// Requests whose data are not byte for byte what the platform inserted.
    pub(super) altered: usize,
    /// Events that it did not answer as often, and each time as, it was to.
    pub(super) off_script: usize,
    /// Events whose attempt rows do not show what it counted and answered.
    pub(super) misrecorded: usize,
    /// Events whose attempts did not meet what they were to meet.
    pub(super) other_outcome: usize,
    /// Events whose delivery did not end as promised, and deliveries that should not be.
    pub(super) other_status: usize,
}

impl Findings {
    fn of(account: &Account, evidence: &Evidence) -> Self {
        let all = Comparison::of(account, evidence);
        let character = account.character;
        Self {
            character,
            deliveries: counted(account.deliveries.iter().map(|(_, status)| status)),
            attempts: counted(
                account
                    .attempts
                    .values()
                    .flatten()
                    .map(|attempt| &attempt.outcome),
            ),
            requests: account.receipts.len(),
            verified: all.requests(|receipt| receipt.is_signed),
            missing: all.owed(|id| all.is_missing(id)),
            duplicates: all
                .received
                .values()
                .map(|receipts| after_acceptance(receipts))
                .sum(),
            rolled_back: all.requests(|receipt| all.is_rolled_back(receipt)),
            uncalled: all.requests(|receipt| all.is_uncalled(receipt)),
            altered: all
                .requests(|receipt| !is_exact(receipt, evidence.outbox.get(&receipt.event_id))),
            off_script: all.owed(|id| !all.answers(id).eq(character.answers().iter().copied())),
            misrecorded: all.seen().filter(|id| all.is_misrecorded(id)).count(),
            other_outcome: all
                .owed(|id| !all.outcomes(id).eq(character.outcomes().iter().copied())),
            other_status: wrong_endings(&account.deliveries, &all.owed, character.status()),
        }
    }
}

/// One partner's account, sorted by event and laid beside what was owed to it.
struct Comparison<'a> {
    account: &'a Account,
    evidence: &'a Evidence,
    /// Committed, and of a type that the partner wants.
    owed: HashSet<Uuid>,
    received: HashMap<Uuid, Vec<&'a Receipt>>,
}

impl<'a> Comparison<'a> {
    fn of(account: &'a Account, evidence: &'a Evidence) -> Self {
        let committed = evidence.ledger.committed.iter();
        let owed = committed
            .filter(|(_, event)| account.character.wants(event.event_type))
            .map(|(id, _)| *id)
            .collect();
        let mut received: HashMap<Uuid, Vec<&Receipt>> = HashMap::new();
        for receipt in &account.receipts {
            received.entry(receipt.event_id).or_default().push(receipt);
        }
        Self {
            account,
            evidence,
            owed,
            received,
        }
    }

    /// How many of the owed events are so.
    fn owed(&self, is_so: impl Fn(&Uuid) -> bool) -> usize {
        self.owed.iter().filter(|id| is_so(id)).count()
    }

    /// How many of the requests are so.
    fn requests(&self, is_so: impl Fn(&Receipt) -> bool) -> usize {
        self.account
            .receipts
            .iter()
            .filter(|receipt| is_so(receipt))
            .count()
    }

    /// Every event that anybody knows of.
    fn seen(&self) -> impl Iterator<Item = Uuid> {
        let all: HashSet<Uuid> = self
            .received
            .keys()
            .chain(self.account.attempts.keys())
            .copied()
            .collect();
        all.into_iter()
    }

    fn answers(&self, id: &Uuid) -> impl Iterator<Item = u16> {
        self.received
            .get(id)
            .into_iter()
            .flatten()
            .map(|receipt| receipt.answered)
    }

    fn attempts(&self, id: &Uuid) -> impl Iterator<Item = &Attempt> {
        self.account.attempts.get(id).into_iter().flatten()
    }

    fn outcomes(&self, id: &Uuid) -> impl Iterator<Item = &str> {
        self.attempts(id).map(|attempt| attempt.outcome.as_str())
    }

    fn is_missing(&self, id: &Uuid) -> bool {
        match self.account.character.answers() {
            [] => self.attempts(id).next().is_none(),
            _ => !self.answers(id).any(is_acceptance),
        }
    }

    fn is_rolled_back(&self, receipt: &Receipt) -> bool {
        self.evidence.ledger.rolled_back.contains(&receipt.event_id)
    }

    fn is_uncalled(&self, receipt: &Receipt) -> bool {
        !self.owed.contains(&receipt.event_id) && !self.is_rolled_back(receipt)
    }

    /// Whether the statuses in the attempt rows are not, one by one, what the partner answered.
    fn is_misrecorded(&self, id: &Uuid) -> bool {
        let statuses = self.attempts(id).filter_map(|attempt| attempt.http_status);
        !statuses.map(i32::from).eq(self.answers(id).map(i32::from))
    }
}

/// All that must hold for the demo to have shown what it promises.
fn claims(evidence: &Evidence, partners: &[Findings]) -> Vec<Claim> {
    let of_all = |says, count: fn(&Findings) -> usize| Claim {
        says,
        against: partners
            .iter()
            .map(|found| (found.character.name(), count(found)))
            .filter(|(_, count)| *count > 0)
            .collect(),
    };
    vec![
        both_or_neither(evidence),
        of_all(
            "no committed event is missing at a partner that wants it",
            |found| found.missing,
        ),
        of_all(
            "no event of a rolled-back transaction was received",
            |found| found.rolled_back,
        ),
        of_all(
            "nothing was received that nobody committed, or that the partner does not want",
            |found| found.uncalled,
        ),
        of_all("nothing was sent again after it was accepted", |found| {
            found.duplicates
        }),
        of_all("every signature is valid", |found| {
            found.requests - found.verified
        }),
        of_all(
            "every body holds the payload byte for byte, on every attempt",
            |found| found.altered,
        ),
        of_all(
            "each partner got each event as often as promised",
            |found| found.off_script,
        ),
        of_all(
            "each request that a partner counted has its attempt row, with its answer",
            |found| found.misrecorded,
        ),
        of_all(
            "each delivery met what it was to meet, attempt by attempt",
            |found| found.other_outcome,
        ),
        of_all(
            "each delivery ended with the status it was to end with",
            |found| found.other_status,
        ),
    ]
}

/// The outbox and the platform's tables against what the producers saw committed.
fn both_or_neither(evidence: &Evidence) -> Claim {
    let Evidence {
        ledger,
        outbox,
        platform_rows,
        ..
    } = evidence;
    let is_there = |id: &Uuid, event_type: &str| {
        outbox
            .get(id)
            .is_some_and(|event| event.event_type == event_type)
    };
    let lost = ledger
        .committed
        .iter()
        .filter(|(id, event)| !is_there(id, event.event_type))
        .count();
    let unasked = outbox
        .keys()
        .filter(|id| !ledger.committed.contains_key(*id))
        .count();
    let changes = platform_rows.abs_diff(ledger.committed.len());
    let found = [("outbox", lost + unasked), ("platform", changes)];
    Claim {
        says: "the outbox and the platform's tables hold what was committed, and nothing else",
        against: found.into_iter().filter(|(_, count)| *count > 0).collect(),
    }
}

fn counted<'a>(words: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word.clone()).or_default() += 1;
    }
    counts
}

fn is_acceptance(status: u16) -> bool {
    (200..300).contains(&status)
}

fn after_acceptance(receipts: &[&Receipt]) -> usize {
    let first = receipts
        .iter()
        .position(|receipt| is_acceptance(receipt.answered));
    first.map_or(0, |first| receipts.len() - first - 1)
}

/// Whether the body ends with the payload as the platform inserted it, inside the envelope.
fn is_exact(receipt: &Receipt, recorded: Option<&Recorded>) -> bool {
    recorded.is_some_and(|recorded| {
        receipt
            .body
            .ends_with(format!(r#","data":{}}}"#, recorded.payload).as_bytes())
    })
}

/// Owed events that do not have exactly one delivery, with this status, and deliveries of events that are not owed.
fn wrong_endings(deliveries: &[(Uuid, String)], owed: &HashSet<Uuid>, status: &str) -> usize {
    let mut endings: HashMap<Uuid, Vec<&str>> = HashMap::new();
    for (id, status) in deliveries {
        endings.entry(*id).or_default().push(status);
    }
    let uncalled = endings.keys().filter(|id| !owed.contains(*id)).count();
    let wrong = owed
        .iter()
        .filter(|id| endings.get(id).is_none_or(|found| *found != [status]))
        .count();
    wrong + uncalled
}

fn latencies(account: &Account, evidence: &Evidence) -> Vec<Duration> {
    let accepted = account
        .receipts
        .iter()
        .filter(|receipt| is_acceptance(receipt.answered));
    let mut latencies: Vec<Duration> = accepted
        .filter_map(|receipt| {
            let committed = evidence.ledger.committed.get(&receipt.event_id)?;
            // It can arrive before the producer hears that its COMMIT went through.
            Some(receipt.at.duration_since(committed.at).unwrap_or_default())
        })
        .collect();
    latencies.sort_unstable();
    latencies
}

/// The smallest of the values, in rising order, that at least `percent` percent of them do not exceed.
pub(super) fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::SystemTime;

    use bytes::Bytes;

    use super::super::evidence::{Committed, Ledger};
    use super::*;

    const TYPES: [&str; 3] = [
        "student.registered",
        "INTERNSHIP_APPROVED",
        "certificate.issued",
    ];
    const PAYLOAD: &str = r#"{"a" : 1.0}"#;

    fn id(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn receipt(event: u128, answered: u16) -> Receipt {
        Receipt {
            event_id: id(event),
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(30),
            body: Bytes::from(format!(
                r#"{{"type":"t","timestamp":"now","data":{PAYLOAD}}}"#
            )),
            is_signed: true,
            answered,
        }
    }

    fn account(character: Character) -> Account {
        let mut account = Account {
            character,
            receipts: Vec::new(),
            deliveries: Vec::new(),
            attempts: HashMap::new(),
        };
        for (event, _) in (0_u128..)
            .zip(TYPES)
            .filter(|(_, event_type)| character.wants(event_type))
        {
            account.receipts.extend(
                character
                    .answers()
                    .iter()
                    .map(|status| receipt(event, *status)),
            );
            account
                .deliveries
                .push((id(event), character.status().to_owned()));
            let answers = character
                .answers()
                .iter()
                .map(|status| i16::try_from(*status).ok());
            let answers = answers.chain(std::iter::repeat(None));
            let rows = character.outcomes().iter().zip(answers);
            let rows = rows.map(|(outcome, http_status)| Attempt {
                outcome: (*outcome).to_owned(),
                http_status,
            });
            account.attempts.insert(id(event), rows.collect());
        }
        account
    }

    /// Three committed events, of one type each; event 9 was rolled back. All is as it should be.
    fn evidence() -> Evidence {
        let mut ledger = Ledger::default();
        let mut outbox = HashMap::new();
        for (event, event_type) in (0_u128..).zip(TYPES) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(10);
            ledger
                .committed
                .insert(id(event), Committed { event_type, at });
            let recorded = Recorded {
                event_type: event_type.to_owned(),
                payload: PAYLOAD.to_owned(),
            };
            outbox.insert(id(event), recorded);
        }
        ledger.rolled_back.insert(id(9));
        Evidence {
            ledger,
            outbox,
            platform_rows: 3,
            partners: Character::ALL.map(account).into(),
        }
    }

    /// What speaks against it, as `claim's first words: who count`, after something was planted.
    fn against(plant: impl FnOnce(&mut Evidence)) -> Vec<String> {
        let mut evidence = evidence();
        plant(&mut evidence);
        let verdict = Verdict::of(&evidence);
        assert_eq!(
            verdict.holds(),
            verdict.claims.iter().all(|claim| claim.against.is_empty())
        );
        let broken = verdict.claims.into_iter().flat_map(|claim| {
            let words = claim.says.split(' ').take(4).collect::<Vec<_>>().join(" ");
            claim
                .against
                .into_iter()
                .map(move |(who, count)| format!("{words}: {who} {count}"))
        });
        broken.collect()
    }

    #[test]
    fn a_run_without_fault_holds() {
        assert_eq!(against(|_| {}), Vec::<String>::new());
        assert!(Verdict::of(&evidence()).holds());
    }

    #[test]
    fn a_missing_event_is_found() {
        let found = against(|evidence| {
            evidence.partners[0]
                .receipts
                .retain(|receipt| receipt.event_id != id(1));
        });
        assert!(
            found.contains(&"no committed event is: healthy 1".to_owned()),
            "{found:?}"
        );
        assert!(
            found.contains(&"each request that a: healthy 1".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn an_event_that_was_never_fanned_out_is_found() {
        let found = against(|evidence| {
            evidence.partners[2].attempts.clear();
            evidence.partners[2].deliveries.clear();
        });
        assert!(
            found.contains(&"no committed event is: down 1".to_owned()),
            "{found:?}"
        );
        assert!(
            found.contains(&"each delivery ended with: down 1".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn a_duplicate_is_found() {
        let found = against(|evidence| evidence.partners[1].receipts.push(receipt(2, 200)));
        assert!(
            found.contains(&"nothing was sent again: flaky 1".to_owned()),
            "{found:?}"
        );
        assert!(
            found.contains(&"each partner got each: flaky 1".to_owned()),
            "{found:?}"
        );
        assert!(
            found.contains(&"each request that a: flaky 1".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn a_rolled_back_event_is_found() {
        let found = against(|evidence| evidence.partners[0].receipts.push(receipt(9, 200)));
        assert!(
            found.contains(&"no event of a: healthy 1".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn an_event_out_of_nowhere_or_of_a_type_not_wanted_is_found() {
        for event in [0, 77] {
            let found = against(|evidence| evidence.partners[1].receipts.push(receipt(event, 200)));
            assert!(
                found.contains(&"nothing was received that: flaky 1".to_owned()),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_bad_signature_is_found() {
        let found = against(|evidence| evidence.partners[1].receipts[3].is_signed = false);
        assert_eq!(found, ["every signature is valid: flaky 1"]);
    }

    #[test]
    fn a_body_with_one_space_less_is_found() {
        let body = br#"{"type":"t","timestamp":"now","data":{"a": 1.0}}"#;
        let found =
            against(|evidence| evidence.partners[0].receipts[0].body = Bytes::from_static(body));
        assert_eq!(found, ["every body holds the: healthy 1"]);
    }

    #[test]
    fn a_delivery_that_never_finished_is_found() {
        let found = against(|evidence| evidence.partners[2].deliveries[0].1 = "FAILED".to_owned());
        assert_eq!(found, ["each delivery ended with: down 1"]);
    }

    #[test]
    fn a_request_without_a_row_and_a_row_without_a_request_are_found() {
        let rows = |evidence: &mut Evidence| evidence.partners[1].attempts.remove(&id(1)).unwrap();
        let found = against(|evidence| rows(evidence).clear());
        assert!(
            found.contains(&"each request that a: flaky 1".to_owned()),
            "{found:?}"
        );
        let found = against(|evidence| evidence.partners[1].receipts.truncate(5));
        assert!(
            found.contains(&"each request that a: flaky 1".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn an_attempt_too_few_is_found_where_nobody_listens() {
        let found = against(|evidence| {
            evidence.partners[2]
                .attempts
                .get_mut(&id(2))
                .unwrap()
                .truncate(3);
        });
        assert_eq!(found, ["each delivery met what: down 1"]);
    }

    #[test]
    fn an_outbox_or_a_platform_that_differs_from_what_was_committed_is_found() {
        let found =
            against(|evidence| evidence.ledger.committed.retain(|event, _| *event != id(0)));
        assert!(
            found.contains(&"the outbox and the: outbox 1".to_owned()),
            "{found:?}"
        );
        assert_eq!(
            against(|evidence| evidence.platform_rows = 4),
            ["the outbox and the: platform 1"]
        );
    }

    #[test]
    fn latency_is_from_commit_to_receipt_and_never_negative() {
        let mut evidence = evidence();
        evidence.partners[0].receipts[0].at = SystemTime::UNIX_EPOCH;
        let expected = [0, 20, 20].map(Duration::from_millis);
        assert_eq!(Verdict::of(&evidence).latencies, expected);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        for (percent, expected) in [(50, 100), (95, 190), (99, 198), (100, 200), (0, 1)] {
            assert_eq!(
                percentile(&sorted, percent),
                Some(Duration::from_millis(expected))
            );
        }
        assert_eq!(percentile(&sorted[..1], 99), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 50), None);
    }
}
