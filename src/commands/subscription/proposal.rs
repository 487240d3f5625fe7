//! From the flags of `subscription propose` to a proposal.

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use posthaste::store::Proposal;
use posthaste::{Error, Result};
use serde_json::{Map, Value, json};

use super::shape;
use crate::commands::input::{all_given, given, if_given, reason, text, texts};
use crate::commands::settings;

pub(super) fn command() -> Command {
    let command = Command::new("propose")
        .about("Propose a new subscription, for another administrator to approve")
        .long_about(
            "Proposes a new subscription and prints the change's id. It gets every event that is \
             committed after its approval. Intervals are written as Postgres reads them: 5s, 30 \
             minutes, 24h.",
        )
        .arg(super::name())
        .args(wanted())
        .args(retried())
        .args(paced())
        .args(guarded())
        .args(sent())
        .args(shape::shaped())
        .args(shape::trusted())
        .args(shape::masked())
        .arg(after_dead_letter())
        .arg(text("description", "What it is for"))
        .arg(text("contact", "Whom to ask"))
        .arg(reason())
        .after_help(EXAMPLES);
    settings::arguments(command, |_| false)
}

/// Which events it gets.
fn wanted() -> [Arg; 4] {
    let types = "A name from the catalogue, a prefix such as certificate.*, or * alone for all";
    let filter = "Get only events whose payload this SQL/JSON path finds something in";
    let unknown = "With `*`: also events whose type is not in the catalogue";
    [
        texts("event-type", types).value_name("TYPE").required(true),
        text("tenant", "Get only the events of this tenant"),
        text("filter", filter).value_name("PATH"),
        Arg::new("unknown-types")
            .long("unknown-types")
            .action(ArgAction::SetTrue)
            .help(unknown),
    ]
}

/// When it is tried again, and when no longer.
fn retried() -> [Arg; 6] {
    let waits = "How long to wait after the first, second, ... failed attempt";
    let named =
        "These waits by name instead: five_retries is 15 s to 1 h, four_retries 1 min to 1 h";
    let doubling = "Waits that grow by a factor instead, such as 10s/2/1h/8: 8 of them, from 10 s on each twice as long, up to 1 h";
    let jitter = "How chance varies the waits: a fraction, none, equal (half of each to all of it) or full (nothing to all of it)";
    let errors = "What a 4xx status means, but for 408, 425 and 429, which are tried again, and 410, which ends it all";
    [
        texts("retry-interval", waits)
            .value_name("INTERVAL")
            .default_values(RETRY_INTERVALS),
        text("retry-schedule", named)
            .value_name("NAME")
            .conflicts_with("retry-interval")
            .value_parser(SCHEDULES),
        text("retry-exponential", doubling)
            .value_name("BASE/FACTOR/LONGEST/COUNT")
            .conflicts_with_all(["retry-interval", "retry-schedule"])
            .value_parser(exponential),
        text("retry-jitter", jitter)
            .value_name("HOW")
            .default_value("0.1"),
        text("client-errors", errors)
            .value_parser(["retry", "reject"])
            .default_value("retry"),
        text(
            "max-age",
            "How long after it was inserted an event is still sent",
        )
        .value_name("INTERVAL"),
    ]
}

/// What keeps us from sending.
fn guarded() -> [Arg; 3] {
    let breaker = "When nothing is sent for a while because too much fails: fields of {failures, ratio, requests, window, open_for, open_for_at_most}, or null for never";
    let pause = "After how long with nothing but failures it is paused; never for never";
    [
        text("breaker", breaker)
            .value_name("JSON")
            .value_parser(|text: &str| serde_json::from_str::<Value>(text)),
        text("pause-after", pause)
            .value_name("INTERVAL")
            .default_value("5 days"),
        Arg::new("sandbox")
            .long("sandbox")
            .action(ArgAction::SetTrue)
            .help("Render, sign and record everything, and send nothing"),
    ]
}

/// How long, how many at once, and how many in a time.
fn paced() -> [Arg; 3] {
    let timeout = "The longest that one request may take; else what the worker allows";
    let at_once = "Requests at once from one worker; else what the worker allows";
    let rate = "So many requests in any such period, all workers together; with a burst, that many at once after a rest; with a block, nothing for that long once the limit is met";
    [
        text("timeout", timeout).value_name("INTERVAL"),
        text("concurrency", at_once)
            .value_name("REQUESTS")
            .value_parser(value_parser!(i32)),
        texts("rate", rate)
            .value_name("REQUESTS/PERIOD[/[BURST][/BLOCK]]")
            .value_parser(self::rate),
    ]
}

/// Where to, and with what beside the payload.
fn sent() -> [Arg; 4] {
    let secret = "A header whose value is given with `secret import --header`";
    let network = "Where the endpoint's address must lie, such as 203.0.113.0/24:443";
    [
        text("url", "Where its deliveries go")
            .value_name("URL")
            .required(true),
        texts("header", "A header to send along; not for a credential")
            .value_name("NAME: VALUE")
            .value_parser(header),
        texts("secret-header", secret).value_name("NAME"),
        texts("network", network).value_name("NETWORK"),
    ]
}

fn after_dead_letter() -> Arg {
    let what = "Whether the events behind one that was given up are sent or wait, where they have its ordering key";
    text("after-dead-letter", what)
        .value_name("WHAT")
        .value_parser(["continue", "hold"])
        .default_value("continue")
}

fn header(text: &str) -> std::result::Result<(String, Value), &'static str> {
    let (name, value) = text.split_once(':').ok_or("must be `Name: value`")?;
    Ok((name.trim().to_owned(), json!(value.trim())))
}

/// `100/1 minute`, `100/1 minute/250`, `100/1 minute/250/5 minutes` or `100/1 minute//5 minutes`. Which numbers are allowed is for the database to say.
fn rate(text: &str) -> std::result::Result<Value, &'static str> {
    const RULE: &str = "must be REQUESTS/PERIOD, REQUESTS/PERIOD/BURST or REQUESTS/PERIOD/BURST/BLOCK, such as 100/minute/250";
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| RULE);
    let parts: Vec<&str> = text.split('/').collect();
    let [requests, period, more @ ..] = &parts[..] else {
        return Err(RULE);
    };
    let mut rate = json!({"requests": number(requests)?, "period": counted(period)});
    let (burst, block) = match more {
        [] => ("", ""),
        [burst] => (*burst, ""),
        [burst, block] => (*burst, *block),
        _ => return Err(RULE),
    };
    if !burst.is_empty() {
        rate["burst"] = json!(number(burst)?);
    }
    if !block.is_empty() {
        rate["block"] = json!(block);
    }
    Ok(rate)
}

/// `minute` means one of them.
fn counted(period: &str) -> String {
    let period = period.trim();
    if period.starts_with(|first: char| first.is_ascii_alphabetic() && first != 'P') {
        format!("1 {period}")
    } else {
        period.to_owned()
    }
}

/// `10s/2/1h/8`: after 10 s, then each time twice as long, up to 1 h, 8 times. Which numbers are allowed is for the database to say.
fn exponential(text: &str) -> std::result::Result<Vec<String>, &'static str> {
    let parts: Vec<String> = text.split('/').map(|part| part.trim().to_owned()).collect();
    match parts.len() {
        4 if parts.iter().all(|part| !part.is_empty()) => Ok(parts),
        _ => Err("must be BASE/FACTOR/LONGEST/COUNT, such as 10s/2/1h/8"),
    }
}

pub(super) fn read(args: &ArgMatches) -> Result<Proposal> {
    let owned = |name: &str| if_given(args, name).map(str::to_owned);
    Ok(Proposal {
        name: given(args, super::SUBSCRIPTION).to_owned(),
        url: given(args, "url").to_owned(),
        event_types: all_given(args, "event-type"),
        tenant: owned("tenant"),
        filter: owned("filter"),
        unknown_types: args.get_flag("unknown-types"),
        retry_intervals: all_given(args, "retry-interval"),
        retry_schedule: owned("retry-schedule"),
        retry_exponential: args.get_one("retry-exponential").cloned(),
        retry_jitter: given(args, "retry-jitter").to_owned(),
        client_errors: given(args, "client-errors").to_owned(),
        max_age: owned("max-age"),
        breaker: args.get_one("breaker").cloned(),
        pause_after: owned("pause-after").filter(|after| after != "never"),
        sandbox: args.get_flag("sandbox"),
        timeout: owned("timeout"),
        concurrency: args.get_one("concurrency").copied(),
        rates: args
            .get_many::<Value>("rate")
            .unwrap_or_default()
            .cloned()
            .collect(),
        headers: headers(args)?,
        networks: all_given(args, "network"),
        after_dead_letter: given(args, "after-dead-letter").to_owned(),
        shape: shape::read(args)?,
        description: owned("description"),
        contact: owned("contact"),
        reason: owned("reason"),
    })
}

/// Names and values, or `{"secret": true}`. Which names and values are allowed is for the database to say.
fn headers(args: &ArgMatches) -> Result<Value> {
    let plain = args.get_many("header").unwrap_or_default().cloned();
    let secret = all_given(args, "secret-header").into_iter();
    let secret = secret.map(|name| (name, json!({"secret": true})));
    let mut headers = Map::new();
    for (name, value) in plain.chain(secret) {
        if headers.contains_key(&name) {
            return Err(Error::Refused(format!("header {name:?} is given twice")));
        }
        headers.insert(name, value);
    }
    Ok(Value::Object(headers))
}

/// The defaults of `posthaste.propose_subscription`, so that the help shows them.
const RETRY_INTERVALS: [&str; 9] = [
    "5s", "5min", "30min", "2h", "5h", "10h", "14h", "20h", "24h",
];
/// Those that `posthaste.retry_schedule` knows.
const SCHEDULES: [&str; 5] = [
    "standard_webhooks",
    "five_retries",
    "four_retries",
    "three_retries",
    "once",
];
const EXAMPLES: &str = "\
Examples:
  posthaste subscription propose university --url https://hooks.university.example/events --event-type certificate.issued
  posthaste subscription propose bank --url https://bank.example/in --event-type 'payment.*' --tenant bank --filter '$.amount > 100' --rate '100/1 minute/250'
  posthaste subscription propose lake --url https://lake.example/in --event-type '*' --unknown-types --retry-interval 5s --retry-interval 1h
  posthaste subscription propose erp --url https://erp.example/in --event-type order.paid --secret-header Authorization --header 'X-Environment: production'
  posthaste subscription propose shop --url https://shop.example/in --event-type 'order.*' --envelope api_versioned --value api_version=2026-11-01 --signature stripe --signature standard_v1
  posthaste subscription propose school --url https://school.example/in --event-type 'student.*' --mask school-mask.json --authentication basic:posthaste";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn proposal(more: &[&str]) -> Result<Proposal> {
        let least = [
            "propose",
            "university",
            "--url",
            "https://a.example/",
            "--event-type",
            "a.b",
        ];
        let args = command().try_get_matches_from(least.iter().chain(more));
        read(&args.unwrap())
    }

    #[test]
    fn what_repeats_is_a_list_in_the_order_given() {
        let more = [
            "--event-type",
            "c.*",
            "--retry-interval",
            "2h",
            "--retry-interval",
            "1h",
        ];
        let proposal = proposal(&more).unwrap();
        assert_eq!(proposal.event_types, ["a.b", "c.*"]);
        assert_eq!(proposal.retry_intervals, ["2h", "1h"]);
    }

    #[test]
    fn a_rate_is_so_many_in_a_period() {
        for (text, period) in [
            ("100/minute", "1 minute"),
            ("100/10 s", "10 s"),
            ("100/PT1M", "PT1M"),
        ] {
            assert_eq!(rate(text).unwrap()["period"], period);
        }
        let all = json!({"requests": 100, "period": "1 hour", "burst": 7, "block": "5 min"});
        assert_eq!(rate("100/hour/7/5 min").unwrap(), all);
        assert!(rate("100").is_err() && rate("a/b").is_err());
    }

    #[test]
    fn waits_that_grow_have_four_parts() {
        let proposal = proposal(&["--retry-exponential", "10s/2/1h/8"]).unwrap();
        assert_eq!(proposal.retry_exponential.unwrap(), ["10s", "2", "1h", "8"]);
        assert!(exponential("10s/2/1h").is_err() && exponential("10s//1h/8").is_err());
    }

    #[test]
    fn a_header_has_a_name_and_a_value_or_is_secret() {
        let proposal = proposal(&["--header", "X-A:  b: c ", "--secret-header", "X-Key"]).unwrap();
        assert_eq!(
            proposal.headers,
            json!({"X-A": "b: c", "X-Key": {"secret": true}})
        );
    }

    #[test]
    fn a_header_without_a_value_or_given_twice_is_refused() {
        let least = [
            "propose",
            "n",
            "--url",
            "u",
            "--event-type",
            "t",
            "--header",
            "X-A",
        ];
        assert!(command().try_get_matches_from(least).is_err());
        assert!(proposal(&["--header", "X-A: b", "--secret-header", "X-A"]).is_err());
    }
}
