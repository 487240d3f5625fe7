//! Log lines to standard output: text or JSON, one line a record, and never in the way of a delivery.
//!
//! A record is formatted where it happens, and handed to a thread of its own over a bounded queue.
//! Where nobody reads standard output, the queue fills and further lines are dropped and counted:
//! a worker delivers at the same pace with or without its reader.
//!
//! Of each kind of line so many are written in a second; the rest are counted, and one line says how many were left out. So no
//! storm of failures fills a disk, and none crowds out what else there is to say.

mod sampling;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use metrics::counter;
use tracing::Event;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::set_global_default;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{self, FormatEvent, FormatFields};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use self::sampling::{LeftOut, SECOND, Sampler};
use crate::config::{Config, LogAttempts, LogFormat, LogLevel};
use crate::telemetry::ATTEMPT_LINES;
use crate::telemetry::list::{LOG_LINES_DROPPED, LOG_LINES_SAMPLED};
use crate::{Error, Result};

/// Starts logging to standard output, in colour where that is a terminal and `NO_COLOR` is not set.
/// Hold the result until the end of the program: dropping it waits, for a second at most, until
/// what was logged is written.
pub fn init(config: &Config) -> Result<Flush> {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (lines, flush) = Lines::to(io::stdout(), config.log_format, colour)?;
    let taken = |_| io::Error::other("another logger is installed");
    set_global_default(subscriber(lines, Wanted::by(config)))
        .map_err(|error| Error::Io("logging".to_owned(), taken(error)))?;
    Ok(flush)
}

/// Writes what is still queued when it is dropped.
#[derive(Debug)]
pub struct Flush(SyncSender<Job>);

impl Drop for Flush {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let (done, written) = sync_channel(1);
        let mut job = Job::Flush(done);
        while let Err(TrySendError::Full(back)) = self.0.try_send(job) {
            if Instant::now() >= deadline {
                return;
            }
            job = back;
            thread::sleep(FLUSH_STEP);
        }
        // Either way we are done: it is written, or nobody reads.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    level: LogLevel,
    attempts: LogAttempts,
    attempts_per_second: u32,
}

impl Wanted {
    fn by(config: &Config) -> Self {
        Self {
            level: config.log_level,
            attempts: config.log_attempts,
            attempts_per_second: u32::try_from(config.log_attempts_per_second).unwrap_or(u32::MAX),
        }
    }
}

fn subscriber(lines: Lines, wanted: Wanted) -> impl tracing::Subscriber + Send + Sync {
    let sampling = Sampling {
        left_out: Arc::clone(&lines.left_out),
        queue: lines.queue.clone(),
        attempts_per_second: wanted.attempts_per_second,
    };
    let layer = tracing_subscriber::fmt::layer().with_ansi(lines.colour);
    let layer = match lines.format {
        LogFormat::Text => layer
            .map_event_format(|format| Sampled(sampling, format))
            .with_writer(lines)
            .boxed(),
        LogFormat::Json => layer
            .json()
            .map_event_format(|format| Sampled(sampling, Nesting(format)))
            .with_writer(lines)
            .boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(targets(wanted)))
}

/// Writes nothing of a record that is left out. (A filter that looks at single records confuses those of other layers.)
struct Sampled<F>(Sampling, F);

impl<S, N, F> FormatEvent<S, N> for Sampled<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: format::Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if self.0.passes(event) {
            self.1.format_event(context, writer, event)
        } else {
            Ok(())
        }
    }
}

/// Writes the fields `error.code` and `error.message` of a record as a member `error` of its own, `{"code": ..., "message": ...}`:
/// a shape that others search for. It stands beside `fields`, whose `error` is a text.
struct Nesting<F>(F);

impl<S, N, F> FormatEvent<S, N> for Nesting<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: format::Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if event.metadata().fields().field("error.code").is_none() {
            return self.0.format_event(context, writer, event);
        }
        let mut record = String::new();
        let flat = format::Writer::new(&mut record);
        self.0.format_event(context, flat, event)?;
        match nested(&record) {
            Some(nested) => writeln!(writer, "{nested}"),
            None => writer.write_str(&record),
        }
    }
}

fn nested(record: &str) -> Option<serde_json::Value> {
    let mut record: serde_json::Value = serde_json::from_str(record).ok()?;
    let fields = record.get_mut("fields")?.as_object_mut()?;
    let (code, message) = (
        fields.remove("error.code")?,
        fields.remove("error.message")?,
    );
    let error = serde_json::json!({ "code": code, "message": message });
    record.as_object_mut()?.insert("error".to_owned(), error);
    Some(record)
}

/// Our own records from the wanted level up; those about attempts as they are wanted. Those of the libraries from `warn` up whatever
/// the level is: below that the database driver writes down statements with their parameters, which are payloads.
fn targets(wanted: Wanted) -> Targets {
    let level = match wanted.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let attempts = match wanted.attempts {
        LogAttempts::Off => LevelFilter::OFF,
        LogAttempts::Failed => level,
        LogAttempts::All => level.max(LevelFilter::DEBUG),
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("posthaste", level)
        .with_target(ATTEMPT_LINES, attempts)
}

/// Lets through so many lines of each kind in a second.
struct Sampling {
    left_out: Arc<Leaving>,
    queue: SyncSender<Job>,
    attempts_per_second: u32,
}

/// What was left out and not told of yet.
#[derive(Debug)]
struct Leaving {
    sampler: Mutex<Sampler<Kind>>,
    /// Whether the far end knows that there is something to tell.
    is_told: AtomicBool,
}

/// Whose share of a second a line takes.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Any about an attempt.
    Attempt,
    /// Any from this place in the code.
    Place(Identifier),
}

impl Sampling {
    fn passes(&self, event: &Event<'_>) -> bool {
        let (kind, most) = if event.metadata().target() == ATTEMPT_LINES {
            (Kind::Attempt, self.attempts_per_second)
        } else {
            let place = Kind::Place(event.metadata().callsite());
            (place, OTHERS_PER_SECOND)
        };
        let passes = self
            .left_out
            .sampler()
            .passes(kind, most, Instant::now(), || message(event));
        if !passes {
            counter!(LOG_LINES_SAMPLED).increment(1);
            // Where the queue is full, the next one tells.
            if !self.left_out.is_told.swap(true, Ordering::AcqRel)
                && self.queue.try_send(Job::LeftOut).is_err()
            {
                self.left_out.is_told.store(false, Ordering::Release);
            }
        }
        passes
    }
}

impl Leaving {
    fn sampler(&self) -> std::sync::MutexGuard<'_, Sampler<Kind>> {
        self.sampler.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a record says, without its fields.
fn message(event: &Event<'_>) -> String {
    struct Message(String);
    impl Visit for Message {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            if field.name() == "message" {
                self.0 = format!("{value:?}");
            }
        }
    }
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0
}

/// The near end of the queue. The formatter writes each record to it in one piece.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
    left_out: Arc<Leaving>,
    format: LogFormat,
    colour: bool,
}

#[derive(Debug)]
enum Job {
    Line(Vec<u8>),
    /// Lines were left out: to be told of in a second.
    LeftOut,
    Flush(SyncSender<()>),
}

impl Lines {
    fn to(
        sink: impl Write + Send + 'static,
        format: LogFormat,
        colour: bool,
    ) -> Result<(Self, Flush)> {
        let (queue, jobs) = sync_channel(QUEUED_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let left_out = Arc::new(Leaving {
            sampler: Mutex::new(Sampler::new()),
            is_told: AtomicBool::new(false),
        });
        let writer = Writer {
            sink,
            format,
            dropped: Arc::clone(&dropped),
            left_out: Arc::clone(&left_out),
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(&jobs))
            .map_err(|error| Error::Io("the logging thread".to_owned(), error))?;
        let flush = Flush(queue.clone());
        Ok((
            Self {
                queue,
                dropped,
                left_out,
                format,
                colour,
            },
            flush,
        ))
    }
}

impl Write for Lines {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let line = one_line(&String::from_utf8_lossy(record), self.colour);
        if line.len() > LINE_LIMIT || self.queue.try_send(Job::Line(line.into_bytes())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            counter!(LOG_LINES_DROPPED).increment(1);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The far end of the queue.
struct Writer<W> {
    sink: W,
    format: LogFormat,
    dropped: Arc<AtomicU64>,
    left_out: Arc<Leaving>,
}

impl<W: Write> Writer<W> {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut tell_at: Option<Instant> = None;
        loop {
            let job = match tell_at {
                None => jobs.recv().map_err(RecvTimeoutError::from),
                Some(at) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(Job::Line(line)) => self.write(&line),
                Ok(Job::LeftOut) => tell_at = Some(Instant::now() + SECOND),
                Ok(Job::Flush(done)) => {
                    self.report_left_out();
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.report_left_out(),
            }
            if tell_at.is_some_and(|at| at <= Instant::now()) {
                tell_at = None;
                self.report_left_out();
            }
            self.report_dropped();
        }
    }

    /// A line that cannot be written (the disk is full, the reader is gone) is a dropped one.
    fn write(&mut self, line: &[u8]) {
        if self
            .sink
            .write_all(line)
            .and_then(|()| self.sink.flush())
            .is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            counter!(LOG_LINES_DROPPED).increment(1);
        }
    }

    fn report_left_out(&mut self) {
        // First: what is left out from here on is told of again.
        self.left_out.is_told.store(false, Ordering::Release);
        let left_out = self.left_out.sampler().left_out();
        for LeftOut { of, lines } in left_out {
            let line = match self.format {
                LogFormat::Text => text_line(&format!("{LEFT_OUT} of={of:?} left_out={lines}")),
                LogFormat::Json => json_line(
                    &serde_json::json!({ "message": LEFT_OUT, "of": of, "left_out": lines }),
                ),
            };
            self.write(line.as_bytes());
        }
    }

    fn report_dropped(&mut self) {
        let count = self.dropped.swap(0, Ordering::Relaxed);
        let line = match self.format {
            _ if count == 0 => return,
            LogFormat::Text => text_line(&format!("{DROPPED} dropped={count}")),
            LogFormat::Json => {
                json_line(&serde_json::json!({ "message": DROPPED, "dropped": count }))
            }
        };
        if self.sink.write_all(line.as_bytes()).is_err() {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn text_line(message: &str) -> String {
    let time = jiff::Timestamp::now();
    one_line(
        &format!("{time}  WARN {}: {message}", module_path!()),
        false,
    )
}

fn json_line(fields: &serde_json::Value) -> String {
    let record = serde_json::json!({
        "timestamp": jiff::Timestamp::now().to_string(),
        "level": "WARN",
        "fields": fields,
        "target": module_path!(),
    });
    one_line(&record.to_string(), false)
}

/// Makes a text from outside safe to print as a part of one line: whatever could end the line, start
/// another or steer a terminal is written as `\n` or `\u001b`, which is also how JSON writes it.
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    text.chars()
        .for_each(|letter| push_escaped(&mut line, letter));
    line
}

/// One record on one line, so that a value from outside cannot forge another. With `colour`, the few
/// sequences that the formatter writes itself pass; it does not escape all that a value may hold.
fn one_line(record: &str, colour: bool) -> String {
    let record = record.strip_suffix('\n').unwrap_or(record);
    let mut line = String::with_capacity(record.len() + 1);
    for (at, letter) in record.char_indices() {
        match letter {
            '\x1b' if colour && is_style(&record[at + 1..]) => line.push(letter),
            _ => push_escaped(&mut line, letter),
        }
    }
    line.push('\n');
    line
}

fn push_escaped(line: &mut String, letter: char) {
    match letter {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        // Writing to a String cannot fail.
        _ if is_unsafe(letter) => drop(write!(line, "\\u{:04x}", u32::from(letter))),
        _ => line.push(letter),
    }
}

/// Whether what follows an ESC sets bold, dim, italic or one of the level colours, or takes it back.
fn is_style(rest: &str) -> bool {
    let code = rest.strip_prefix('[').and_then(|rest| rest.split_once('m'));
    code.is_some_and(|(code, _)| STYLES.contains(&code))
}

/// Control characters, and those that break or reorder a line without being one.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

const DROPPED: &str = "log lines were dropped: standard output was not read in time";
const LEFT_OUT: &str = "log lines were left out: there were too many of a kind";
/// Lines from one place in the code, but those about attempts.
const OTHERS_PER_SECOND: u32 = 20;
const STYLES: &[&str] = &["0", "1", "2", "3", "31", "32", "33", "34", "35"];
const QUEUED_LINES: usize = 4096;
/// With a full queue, this is what the log takes of memory: 32 MiB.
const LINE_LIMIT: usize = 8 * 1024;
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
const FLUSH_STEP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use tracing::subscriber::with_default;
    use tracing::{debug, error, info};

    use super::*;

    /// A sink that tests can read.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A sink that takes nothing until it is told to, like a pipe that nobody reads.
    struct Stuck(Receiver<()>, Page);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Fails once the test has let go, and then all is taken.
            let _ = self.0.recv();
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: LogLevel, colour: bool, log: impl FnOnce()) -> String {
        logged_of(Wanted { level, ..WANTED }, format, colour, log)
    }

    fn logged_of(wanted: Wanted, format: LogFormat, colour: bool, log: impl FnOnce()) -> String {
        let page = Page::default();
        let (lines, flush) = Lines::to(page.clone(), format, colour).unwrap();
        with_default(subscriber(lines, wanted), log);
        drop(flush);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    /// All that there is about attempts, so that queues fill.
    const WANTED: Wanted = Wanted {
        level: LogLevel::Info,
        attempts: LogAttempts::Failed,
        attempts_per_second: u32::MAX,
    };

    const FORGERY: &str = "a\nINFO posthaste: forged\r\t\u{1b}[2J\u{85}\u{2028}\u{202e}";

    #[test]
    fn a_value_cannot_forge_a_line() {
        for colour in [false, true] {
            let text = logged(LogFormat::Text, LogLevel::Info, colour, || {
                error!(snippet = FORGERY, shown = %FORGERY, "{FORGERY}");
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(
                !text.contains("\u{1b}[2J")
                    && !text.contains(['\r', '\u{85}', '\u{2028}', '\u{202e}']),
                "{text:?}"
            );
            assert_eq!(text.contains('\u{1b}'), colour, "{text:?}");
        }
    }

    #[test]
    fn a_json_record_is_one_line_that_parses_to_what_was_logged() {
        let text = logged(LogFormat::Json, LogLevel::Info, false, || {
            info!(snippet = FORGERY, attempt = 3, "sent");
        });
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(record["fields"]["snippet"], FORGERY);
        assert_eq!(record["fields"]["attempt"], 3);
        assert_eq!(record["level"], "INFO");
        assert!(!text.contains(['\u{85}', '\u{2028}', '\u{202e}']));
    }

    #[test]
    fn a_code_and_its_message_are_a_member_of_their_own() {
        let log = || {
            error!(
                error.code = "WEBHOOK",
                error.message = "It failed",
                subscription = FORGERY,
                "told"
            );
            error!(error = "\"error.code\":\"x\"", "not told");
        };
        let text = logged(LogFormat::Json, LogLevel::Info, false, log);
        let records: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(
            text.contains(r#""error":{"code":"WEBHOOK","message":"It failed"}"#),
            "{text}"
        );
        assert_eq!(records.len(), 2);
        assert_eq!(
            records[0]["fields"],
            serde_json::json!({ "message": "told", "subscription": FORGERY })
        );
        assert_eq!(records[0]["level"], "ERROR");
        assert_eq!(records[1].get("error"), None);
        let text = logged(LogFormat::Text, LogLevel::Info, false, log);
        assert!(text.contains(r#"error.code="WEBHOOK""#), "{text}");
    }

    #[test]
    fn the_level_filters_us_and_never_lets_libraries_chatter() {
        let log = || {
            info!("ours");
            debug!("ours in detail");
            info!(target: "tokio_postgres::prepare", "theirs");
            error!(target: "tokio_postgres", "their trouble");
        };
        let info = logged(LogFormat::Text, LogLevel::Info, false, log);
        assert!(
            info.contains("ours") && !info.contains("detail") && !info.contains("theirs"),
            "{info}"
        );
        let trace = logged(LogFormat::Text, LogLevel::Trace, false, log);
        assert!(
            trace.contains("detail")
                && trace.contains("their trouble")
                && !trace.contains("theirs"),
            "{trace}"
        );
        let error = logged(LogFormat::Text, LogLevel::Error, false, log);
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn attempts_are_logged_as_they_are_wanted() {
        let log = || {
            debug!(target: ATTEMPT_LINES, "accepted");
            info!(target: ATTEMPT_LINES, "failed");
            info!("other");
        };
        let of = |level, attempts| {
            let wanted = Wanted {
                level,
                attempts,
                ..WANTED
            };
            let text = logged_of(wanted, LogFormat::Text, false, log);
            ["accepted", "failed", "other"].map(|line| text.contains(line))
        };
        let (t, f) = (true, false);
        assert_eq!(of(LogLevel::Info, LogAttempts::Off), [f, f, t]);
        assert_eq!(of(LogLevel::Debug, LogAttempts::Off), [f, f, t]);
        assert_eq!(of(LogLevel::Error, LogAttempts::Failed), [f, f, f]);
        assert_eq!(of(LogLevel::Info, LogAttempts::Failed), [f, t, t]);
        assert_eq!(of(LogLevel::Debug, LogAttempts::Failed), [t, t, t]);
        assert_eq!(of(LogLevel::Error, LogAttempts::All), [t, t, f]);
    }

    #[test]
    fn a_storm_is_sampled_and_what_is_left_out_is_told() {
        let storm = || {
            for number in 0..1000 {
                info!(target: ATTEMPT_LINES, number, "attempt");
                error!(number, "delivery {}", "given\nup");
            }
            error!("the breaker opened");
        };
        let wanted = Wanted {
            attempts_per_second: 7,
            ..WANTED
        };
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged_of(wanted, format, false, storm);
            // A second may end while it goes on.
            let lines = text.lines().count();
            assert!((28..100).contains(&lines), "{text}");
            assert!(text.contains("the breaker opened"), "{text}");
        }
        let text = logged_of(wanted, LogFormat::Json, false, storm);
        let told = |of: &str| {
            let records = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let left_out = records
                .filter(|record| record["fields"]["of"] == of)
                .map(|record| record["fields"]["left_out"].as_u64().unwrap());
            let left_out: u64 = left_out.sum();
            let message = format!("\"message\":{}", serde_json::json!(of));
            left_out + text.lines().filter(|line| line.contains(&message)).count() as u64
        };
        assert_eq!((told("attempt"), told("delivery given\nup")), (1000, 1000));
    }

    #[test]
    fn what_was_left_out_is_told_of_within_a_second_though_nothing_more_is_logged() {
        let page = Page::default();
        let (lines, flush) = Lines::to(page.clone(), LogFormat::Text, false).unwrap();
        let begun = Instant::now();
        with_default(subscriber(lines, WANTED), || {
            (0..100).for_each(|number| info!(number, "storm"));
        });
        let text = || String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        // 80, unless the storm took longer than a second.
        while !text().contains("of=\"storm\" left_out=") {
            assert!(begun.elapsed() < 10 * SECOND, "{}", text());
            thread::yield_now();
        }
        assert!(begun.elapsed() >= SECOND);
        drop(flush);
    }

    #[test]
    fn a_standard_output_that_nobody_reads_stops_nobody_and_is_told_of_later() {
        let (page, (release, stuck)) = (Page::default(), channel());
        let (lines, flush) = Lines::to(Stuck(stuck, page.clone()), LogFormat::Json, false).unwrap();
        with_default(subscriber(lines, WANTED), || {
            for number in 0..QUEUED_LINES * 2 {
                info!(target: ATTEMPT_LINES, number, "still going");
            }
        });
        drop(release);
        drop(flush);
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let records: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let dropped: u64 = records
            .iter()
            .filter_map(|record| record["fields"]["dropped"].as_u64())
            .sum();
        let written = records
            .iter()
            .filter(|record| record["fields"]["number"].is_u64())
            .count();
        assert!(dropped > 0);
        assert_eq!(
            usize::try_from(dropped).unwrap() + written,
            QUEUED_LINES * 2
        );
    }

    #[test]
    fn an_endless_line_is_dropped_and_counted() {
        let text = logged(LogFormat::Text, LogLevel::Info, false, || {
            info!("{}", "x".repeat(LINE_LIMIT));
            info!("next");
        });
        assert!(
            text.contains("next") && text.contains("dropped=1") && text.len() < 1000,
            "{text}"
        );
    }
}
