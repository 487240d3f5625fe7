//! Attempts that were recorded, as metrics: a batch is summed first, so that the registry is asked a few times for each batch rather
//! than for each attempt.

use std::time::{Duration, Instant, SystemTime};

use metrics::{Histogram, counter, histogram};

use super::list::{
    ATTEMPT_DURATION, ATTEMPT_PHASE, ATTEMPTS, BATCH_ROWS, FINISHED, FIRST_ATTEMPT_DELAY,
    STATUS_CLASSES, SUCCESS_DELAY,
};
use super::{Ledger, log};
use crate::delivery::{Attempt, Outcome, Verdict};
use crate::operational::OperationalEvent;

/// Counts and logs a batch that was recorded; `late` are the places of those that changed nothing. Asks for a subscription's name
/// only where a delivery was given up.
pub fn recorded(
    attempts: &[Attempt],
    late: &[usize],
    ledger: &Ledger,
    name_of: impl Fn(i32) -> Option<String>,
) {
    let mut sums = Sums::default();
    let clock = Clock::read(ledger);
    for (place, attempt) in attempts.iter().enumerate() {
        let is_late = late.contains(&place);
        sums.add(attempt, is_late, clock);
        tell(attempt, is_late, &name_of);
    }
    sums.tell(attempts.len());
    ledger.tallies.count(attempts, clock.now);
}

fn tell(attempt: &Attempt, is_late: bool, name_of: impl Fn(i32) -> Option<String>) {
    let given_up = match attempt.ruling.verdict {
        _ if is_late => return log::attempt(attempt, LATE),
        Verdict::Exhausted if !attempt.key.is_test() => OperationalEvent::DeliveryExhausted,
        Verdict::Rejected if !attempt.key.is_test() => OperationalEvent::DeliveryRejected,
        verdict => return log::attempt(attempt, verdict.as_str()),
    };
    let name = name_of(attempt.key.subscription_id).unwrap_or_default();
    log::told_of_delivery(given_up, attempt, &name);
}

/// The same moment by three clocks.
#[derive(Clone, Copy)]
struct Clock {
    now: Instant,
    /// What Postgres would say, which gave the events their times, in seconds since 1970.
    database: f64,
}

impl Clock {
    fn read(ledger: &Ledger) -> Self {
        let ours = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            now: Instant::now(),
            database: ours.as_secs_f64() - ledger.clock_difference(),
        }
    }

    /// How long after `owed_from` so long ago was; nothing where that was before it.
    fn delay(self, owed_from: f64, ago: Duration) -> f64 {
        (self.database - ago.as_secs_f64() - owed_from).max(0.0)
    }
}

/// The sums of a batch, and the histograms that it has needed so far.
#[derive(Default)]
struct Sums {
    attempts: [[[u32; CLASSES]; VERDICTS]; OUTCOMES],
    finished: [u32; ENDS.len()],
    durations: [Option<Histogram>; OUTCOMES],
    phases: [Option<Histogram>; PHASES.len()],
    first_attempt: Option<Histogram>,
    success: Option<Histogram>,
}

impl Sums {
    fn add(&mut self, attempt: &Attempt, is_late: bool, clock: Clock) {
        let report = &attempt.report;
        let verdict = if is_late {
            VERDICTS - 1
        } else {
            place(attempt.ruling.verdict)
        };
        self.attempts[report.outcome as usize][verdict][class(report.http_status)] += 1;
        if !is_late && !attempt.key.is_test() {
            self.end(attempt.ruling.verdict);
        }
        if report.outcome != Outcome::Abandoned {
            self.time(attempt);
        }
        if let Some(owed_from) = attempt.owed_from.filter(|_| attempt.key.replay == 0) {
            self.delays(attempt, owed_from, is_late, clock);
        }
    }

    fn end(&mut self, verdict: Verdict) {
        let place = match verdict {
            Verdict::Done => 0,
            Verdict::Exhausted => 1,
            Verdict::Rejected => 2,
            Verdict::Expired => 3,
            Verdict::Retry(_) => return,
        };
        self.finished[place] += 1;
    }

    fn time(&mut self, attempt: &Attempt) {
        let (report, phases) = (&attempt.report, attempt.report.phases);
        let outcome = report.outcome;
        self.durations[outcome as usize]
            .get_or_insert_with(|| histogram!(ATTEMPT_DURATION, "outcome" => outcome.as_str()))
            .record(report.duration.as_secs_f64());
        // What the other parts leave is the wait for the response head, where one came.
        let others = [phases.dns, phases.connect, phases.tls, phases.body];
        let others: Duration = others.into_iter().flatten().sum();
        let first_byte = report
            .http_status
            .map(|_| report.duration.saturating_sub(others));
        let parts = [
            phases.dns,
            phases.connect,
            phases.tls,
            first_byte,
            phases.body,
        ];
        for (place, part) in parts.into_iter().enumerate() {
            if let Some(part) = part {
                self.phases[place]
                    .get_or_insert_with(|| histogram!(ATTEMPT_PHASE, "phase" => PHASES[place]))
                    .record(part.as_secs_f64());
            }
        }
    }

    fn delays(&mut self, attempt: &Attempt, owed_from: f64, is_late: bool, clock: Clock) {
        let since_it_began = clock.now.saturating_duration_since(attempt.began);
        if attempt.number == 1 {
            self.first_attempt
                .get_or_insert_with(|| histogram!(FIRST_ATTEMPT_DELAY))
                .record(clock.delay(owed_from, since_it_began));
        }
        if attempt.ruling.verdict == Verdict::Done && !is_late {
            let since_it_ended = since_it_began.saturating_sub(attempt.report.duration);
            self.success
                .get_or_insert_with(|| histogram!(SUCCESS_DELAY))
                .record(clock.delay(owed_from, since_it_ended));
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn tell(&self, rows: usize) {
        histogram!(BATCH_ROWS, "query" => "record").record(rows as f64);
        for (outcome, verdicts) in Outcome::ALL.iter().zip(&self.attempts) {
            for (verdict, classes) in VERDICT_WORDS.iter().zip(verdicts) {
                for (class, count) in STATUS_CLASSES.iter().zip(classes) {
                    if *count > 0 {
                        counter!(ATTEMPTS, "outcome" => outcome.as_str(), "verdict" => *verdict, "status_class" => *class)
                            .increment(u64::from(*count));
                    }
                }
            }
        }
        for (status, count) in ENDS.iter().zip(self.finished) {
            finished(status, u64::from(count));
        }
    }
}

/// Deliveries that ended in this status.
pub(crate) fn finished(status: &'static str, deliveries: u64) {
    if deliveries == 0 {
        return;
    }
    counter!(FINISHED, "status" => status).increment(deliveries);
}

fn place(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Done => 0,
        Verdict::Retry(_) => 1,
        Verdict::Exhausted => 2,
        Verdict::Rejected => 3,
        Verdict::Expired => 4,
    }
}

fn class(status: Option<u16>) -> usize {
    let class = usize::from(status.unwrap_or_default() / 100);
    if class < CLASSES { class } else { 0 }
}

const OUTCOMES: usize = Outcome::ALL.len();
const CLASSES: usize = STATUS_CLASSES.len();
const VERDICTS: usize = VERDICT_WORDS.len();
const LATE: &str = "late";
const VERDICT_WORDS: [&str; 6] = ["done", "retry", "exhausted", "rejected", "expired", LATE];
const ENDS: [&str; 4] = ["SUCCESS", "RETRY_EXHAUSTED", "REJECTED", "EXPIRED"];
const PHASES: [&str; 5] = ["dns", "connect", "tls", "first_byte", "body"];

#[cfg(test)]
pub(super) mod tests {
    use metrics::with_local_recorder;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use uuid::Uuid;

    use super::*;
    use crate::attempt;
    use crate::delivery::{Address, DeliveryKey, Phases, Ruling};

    /// One that met this and is to be made again, except where it was accepted.
    pub(in crate::telemetry) fn attempt(subscription_id: i32, outcome: Outcome) -> Attempt {
        let mut report = attempt::abandoned("");
        report.outcome = outcome;
        report.error = None;
        report.http_status = (outcome == Outcome::Accepted).then_some(204);
        let verdict = if outcome == Outcome::Accepted {
            Verdict::Done
        } else {
            Verdict::Retry(Duration::from_secs(5))
        };
        Attempt {
            key: DeliveryKey {
                event_id: Uuid::now_v7(),
                subscription_id,
                replay: 0,
            },
            number: 1,
            ordering_key: None,
            holder: 1,
            address: Address::default(),
            worker_id: 1,
            revision: 1,
            began: Instant::now(),
            report,
            ruling: Ruling {
                verdict,
                rule: None,
                hold: None,
            },
            owed_from: None,
            expires: None,
            signed_with: Vec::new(),
            bytes: 1,
            preparations: Vec::new(),
        }
    }

    fn page(attempts: &[Attempt], late: &[usize], ledger: &Ledger) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        with_local_recorder(&recorder, || recorded(attempts, late, ledger, |_| None));
        recorder.handle().render()
    }

    fn now() -> f64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        since.unwrap_or_default().as_secs_f64()
    }

    #[test]
    fn a_batch_is_counted_by_what_each_met_and_what_that_meant() {
        let mut replay = attempt(1, Outcome::Accepted);
        replay.key.replay = -1;
        let mut odd = attempt(2, Outcome::Rejected);
        odd.report.http_status = Some(999);
        let batch = [
            attempt(1, Outcome::Accepted),
            attempt(1, Outcome::Accepted),
            replay,
            attempt(2, Outcome::TimedOut),
            odd,
        ];
        let page = page(&batch, &[1], &Ledger::default());
        for line in [
            r#"posthaste_attempts_total{outcome="accepted",verdict="done",status_class="2xx"} 2"#,
            r#"posthaste_attempts_total{outcome="accepted",verdict="late",status_class="2xx"} 1"#,
            r#"posthaste_attempts_total{outcome="timed_out",verdict="retry",status_class="none"} 1"#,
            r#"posthaste_attempts_total{outcome="rejected",verdict="retry",status_class="none"} 1"#,
            // Neither what was late nor a test ends a delivery.
            r#"posthaste_deliveries_finished_total{status="SUCCESS"} 1"#,
            r"posthaste_batch_rows_count{query=x} 1"
                .replace('x', "\"record\"")
                .as_str(),
        ] {
            assert!(page.contains(&format!("{line}\n")), "{line}\n{page}");
        }
    }

    #[test]
    fn what_the_other_phases_leave_is_the_wait_for_the_first_byte() {
        let mut made = attempt(1, Outcome::Accepted);
        made.report.duration = Duration::from_secs(1);
        made.report.phases = Phases {
            dns: None,
            connect: Some(Duration::from_millis(100)),
            tls: Some(Duration::from_millis(200)),
            body: Some(Duration::from_millis(50)),
        };
        let mut hung = attempt(1, Outcome::TimedOut);
        hung.report.duration = Duration::from_secs(20);
        let page = page(&[made, hung], &[], &Ledger::default());
        assert!(
            page.contains(r#"posthaste_attempt_phase_seconds_sum{phase="first_byte"} 0.65"#),
            "{page}"
        );
        assert!(!page.contains(r#"phase="dns""#), "{page}");
    }

    #[test]
    fn delays_are_by_the_databases_clock_and_never_negative() {
        let ledger = Ledger::default();
        // Ours is an hour ahead.
        ledger.note_clock(3600.0);
        let mut late = attempt(1, Outcome::TimedOut);
        late.owed_from = Some(now() - 3600.0 - 100.0);
        let shown = page(&[late], &[], &ledger);
        let (_, sum) = shown
            .split_once("posthaste_first_attempt_delay_seconds_sum ")
            .unwrap_or_default();
        let sum = sum.lines().next().and_then(|sum| sum.parse::<f64>().ok());
        assert!(
            sum.is_some_and(|sum| (99.9..110.0).contains(&sum)),
            "{shown}"
        );
        assert!(
            !shown.contains("posthaste_success_delay_seconds"),
            "{shown}"
        );
        let mut ahead = attempt(1, Outcome::Accepted);
        ahead.owed_from = Some(now() + 50.0);
        let shown = page(&[ahead], &[], &ledger);
        assert!(
            shown.contains("posthaste_first_attempt_delay_seconds_sum 0\n"),
            "{shown}"
        );
        assert!(
            shown.contains("posthaste_success_delay_seconds_count 1\n"),
            "{shown}"
        );
    }

    #[test]
    fn replays_and_retries_are_no_first_attempts() {
        let ledger = Ledger::default();
        let mut replay = attempt(1, Outcome::Accepted);
        replay.owed_from = Some(now());
        replay.key.replay = 1;
        let mut retry = attempt(1, Outcome::Accepted);
        retry.owed_from = Some(now());
        retry.number = 2;
        let shown = page(&[replay, retry], &[], &ledger);
        assert!(
            !shown.contains("posthaste_first_attempt_delay_seconds"),
            "{shown}"
        );
        assert!(
            shown.contains("posthaste_success_delay_seconds_count 1\n"),
            "{shown}"
        );
    }
}
