//! `posthaste preview`: the very request that a subscription would get of an event, without sending it.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use posthaste::catalogue::{breach, compile};
use posthaste::config::Config;
use posthaste::delivery::{DeliveryKey, ExternalIds};
use posthaste::directory;
use posthaste::endpoint::{EndpointUrl, PlainHttp};
use posthaste::mask::{Mask, PseudonymKey, Refusal};
use posthaste::masks::{Applied, Masking, Seen, Whole};
use posthaste::request::{Event, Occasion, Shape};
use posthaste::secret::{SecretKind, SigningSecret};
use posthaste::store::{Control, Source};
use posthaste::{Error, Result};
use serde_json::Value;
use uuid::Uuid;

use super::input::{given, reason, subject};
use super::output::remark;
use super::settings;

pub(crate) fn command() -> Command {
    let command = Command::new("preview")
        .about("Show the very request that a subscription would get of an event, and send nothing")
        .long_about(
            "Prints the request that a worker would send of an event to a subscription at its first \
             attempt: masked, in its envelope, byte for byte; or, with --change, on the terms that \
             somebody proposes. It is on the record, since it shows an event. Header values that are \
             secret are not shown, and signatures are not computed but with --sign. The exit code is 1 \
             where nothing would be sent.",
        )
        .arg(subject(SUBSCRIPTION, "The subscription's name"))
        .arg(subject(EVENT, "The event's id").value_parser(value_parser!(Uuid)))
        .arg(reason().required(true))
        .arg(
            Arg::new("change")
                .long("change")
                .value_name("CHANGE")
                .value_parser(value_parser!(i64))
                .help("On the terms that this open change proposes"),
        )
        .arg(Arg::new("sign").long("sign").action(ArgAction::SetTrue).help(
            "Compute the signatures: takes the keys, and reveals the subscription's secrets to this login, on the record",
        ))
        .arg(
            Arg::new("timestamp")
                .long("timestamp")
                .value_name("UNIX")
                .value_parser(value_parser!(i64).range(0..))
                .help("When it is sent, in Unix seconds; now, unless given"),
        )
        .after_help(EXAMPLES);
    settings::arguments(command, |setting| setting.key == "key_file")
}

pub(crate) async fn run(args: &ArgMatches) -> Result<ExitCode> {
    let config = settings::load(args)?.config;
    let control = Control::open(&config).await?;
    let (name, reason) = (given(args, SUBSCRIPTION), given(args, "reason"));
    let event_id = args.get_one::<Uuid>(EVENT).copied().unwrap_or_default();
    let change_id = args.get_one::<i64>("change").copied();
    let source = control
        .preview_source(name, event_id, reason, change_id)
        .await?;
    let shape = directory::shape(
        &control.shape_of(&source.terms).await?,
        extra(&source.terms["headers"])?,
    )
    .map_err(Error::Refused)?;
    let seen = seen(&control, &config, &source).await?;
    let scene = Scene {
        source: &source,
        seen: &seen,
        event_id,
        timestamp: args
            .get_one::<i64>("timestamp")
            .copied()
            .unwrap_or_else(now),
    };
    let (headers, body) = if args.get_flag("sign") {
        let secrets = revealed(&control, &config, name, reason).await?;
        scene.compose(&shape, &secrets)?
    } else {
        scene.compose_unsigned(&shape)?
    };
    print(&source, headers, &body)?;
    let obstacles = obstacles(&control, &source).await?;
    for obstacle in &obstacles {
        remark(&format!("nothing would be sent: {obstacle}"));
    }
    Ok(if obstacles.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One event on its way, at one time.
struct Scene<'s> {
    source: &'s Source,
    seen: &'s Seen,
    event_id: Uuid,
    timestamp: i64,
}

impl Scene<'_> {
    fn compose(&self, shape: &Shape, secrets: &[SigningSecret]) -> Result<(HeaderMap, Vec<u8>)> {
        let source = self.source;
        let (data, metadata) = match self.seen {
            Seen::Everything => (source.payload.as_str(), source.metadata.as_deref()),
            Seen::Left { data, metadata } => (data.as_str(), metadata.as_deref()),
        };
        let event = Event {
            key: DeliveryKey {
                event_id: self.event_id,
                subscription_id: source.subscription_id,
                replay: 0,
            },
            subscription: source.terms["name"].as_str().unwrap_or_default(),
            event_type: &source.event_type,
            occurred_at: source.occurred_at,
            data,
            metadata,
            tenant: source.tenant.as_deref(),
            traceparent: source.traceparent.as_deref(),
        };
        let retries = source.terms["retry_intervals"]
            .as_array()
            .map_or(0, Vec::len);
        let occasion = Occasion {
            timestamp: self.timestamp,
            number: 1,
            left: i16::try_from(retries).unwrap_or(i16::MAX),
        };
        let composed = shape.compose(&event, secrets, &occasion);
        let (headers, body) = composed.map_err(|why| Error::Refused(why.to_string()))?;
        Ok((headers, body.to_vec()))
    }

    /// As with secrets, but for the values that would depend on them.
    fn compose_unsigned(&self, shape: &Shape) -> Result<(HeaderMap, Vec<u8>)> {
        let (mut headers, body) = self.compose(shape, &stand_ins()?)?;
        let (others, _) = self.compose(shape, &stand_ins()?)?;
        for (name, value) in &mut headers {
            if others.get(name) != Some(value) {
                *value = HeaderValue::from_static(NOT_COMPUTED);
            }
        }
        Ok((headers, body))
    }
}

/// What the mask leaves.
async fn seen(control: &Control, config: &Config, source: &Source) -> Result<Seen> {
    let mask = &source.terms["mask"];
    if mask.is_null() {
        return Ok(Seen::Everything);
    }
    let mask = Mask::parse(&mask.to_string()).map_err(|why| Error::Refused(why.to_string()))?;
    let partner = source.terms["partner"].as_str().unwrap_or_default();
    let wanted = mask.wanted(&source.payload).map_err(|why| unmasked(&why))?;
    let ids = control.external_ids(partner, &wanted).await?;
    let whole = Whole {
        data: source.payload.clone(),
        metadata: source.metadata.clone(),
    };
    let with = |key: [u8; 32]| apply(&mask, partner, key, &whole, &ids);
    let sealed = source.partner_key.as_ref();
    match (config.keyring(), sealed) {
        (Ok(keyring), Some((secret_id, sealed))) => {
            let key = keyring.open_partner_key(*secret_id, sealed)?;
            Ok(with(*key)?.seen)
        }
        (keyring, _) => {
            // Where no pseudonym is made, any key leads to the same.
            let [one, other] = [with([0; 32])?, with([1; 32])?];
            if one.seen == other.seen {
                return Ok(one.seen);
            }
            let needs = if keyring.is_err() {
                NEEDS_KEYS
            } else {
                NOT_MADE
            };
            Err(Error::Keys(needs.to_owned()))
        }
    }
}

fn apply(
    mask: &Mask,
    partner: &str,
    key: [u8; 32],
    whole: &Whole,
    ids: &ExternalIds,
) -> Result<Applied> {
    let masking = Masking {
        mask: mask.clone(),
        partner: partner.to_owned(),
        key: PseudonymKey::new(key),
    };
    masking.apply(whole, ids).map_err(|why| unmasked(&why))
}

fn unmasked(refusal: &Refusal) -> Error {
    Error::Refused(match refusal {
        Refusal::Hold(why) => format!("it would be quarantined: {why}"),
        Refusal::Refuse(why) => format!("it would be rejected: {why}"),
    })
}

/// Why nothing would be sent of it, or not now.
async fn obstacles(control: &Control, source: &Source) -> Result<Vec<String>> {
    let mut obstacles = Vec::new();
    if !source.is_meant {
        obstacles.push("the event is not meant for this subscription: another tenant or type, or its filter leaves it out".to_owned());
    }
    if source.terms["active"] == false {
        obstacles.push("the subscription is paused".to_owned());
    }
    if source.terms["sandbox"] == true {
        obstacles.push("the subscription is in its sandbox".to_owned());
    }
    let known = control.event_types().await?;
    let known = known
        .iter()
        .find(|known| known["event_type"] == source.event_type.as_str());
    if let Some(schema) = known.map(|known| &known["schema"])
        && !schema.is_null()
    {
        let breach = match compile(&schema.to_string()) {
            Ok(validator) => breach(&validator, &source.payload),
            Err(why) => Some(format!("has a schema that does not compile: {why}")),
        };
        obstacles
            .extend(breach.map(|why| format!("the payload {why}, so it would be quarantined")));
    }
    Ok(obstacles)
}

/// Extra headers. What is secret is not shown.
fn extra(headers: &Value) -> Result<Vec<(HeaderName, HeaderValue)>> {
    let header = |(name, value): (&String, &Value)| {
        let value = value.as_str().unwrap_or(NOT_SHOWN);
        let parsed = HeaderName::try_from(name)
            .ok()
            .zip(HeaderValue::try_from(value).ok());
        parsed.ok_or_else(|| Error::Refused(format!("the header {name} cannot be sent")))
    };
    headers
        .as_object()
        .into_iter()
        .flatten()
        .map(header)
        .collect()
}

/// The secrets that sign, oldest first.
async fn revealed(
    control: &Control,
    config: &Config,
    name: &str,
    reason: &str,
) -> Result<Vec<SigningSecret>> {
    let keyring = config.keyring()?;
    let stored = control.reveal(name, reason).await?;
    let open = stored.iter().map(|stored| {
        keyring.open(
            stored.subscription_id,
            stored.secret_id,
            stored.kind,
            &stored.sealed.key_id,
            &stored.sealed.ciphertext,
        )
    });
    open.collect()
}

/// One secret of each kind that can be made, in place of those that nobody has shown us.
fn stand_ins() -> Result<Vec<SigningSecret>> {
    let kinds = [SecretKind::Shared, SecretKind::Ed25519];
    kinds.into_iter().map(SigningSecret::generate_as).collect()
}

/// The request line, the headers by name, an empty line, and the body as it is, with no line end added.
fn print(source: &Source, mut headers: HeaderMap, body: &[u8]) -> Result<()> {
    let url = source.terms["url"].as_str().unwrap_or_default();
    let refused = |error: posthaste::endpoint::UrlRefusal| Error::Refused(error.to_string());
    let url = EndpointUrl::parse(url, PlainHttp::LoopbackOnly).map_err(refused)?;
    // What the sender adds to every request.
    headers.insert(HOST, url.host_header().clone());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let ours = HeaderValue::from_static(concat!("Posthaste/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(ours);
    if let Some(name) = authentication(&source.terms["authentication"]) {
        headers.insert(name, HeaderValue::from_static(NOT_SHOWN));
    }
    let mut lines: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    lines.sort_unstable();
    let mut request = format!("POST {} HTTP/1.1\n", url.path_and_query()).into_bytes();
    for (name, value) in lines {
        request.extend([name.as_bytes(), b": ", value, b"\n"].concat());
    }
    request.push(b'\n');
    request.extend(body);
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(&request).and_then(|()| stdout.flush());
    written.map_err(|error| Error::Io("standard output".to_owned(), error))
}

/// The header in which we show who we are.
fn authentication(term: &Value) -> Option<HeaderName> {
    match term["kind"].as_str()? {
        "header" => HeaderName::try_from(term["header"].as_str()?).ok(),
        _ => Some(AUTHORIZATION),
    }
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

const SUBSCRIPTION: &str = "subscription";
const EVENT: &str = "event-id";
const NOT_SHOWN: &str = "(not shown)";
const NOT_COMPUTED: &str = "(not computed; see --sign)";
const NEEDS_KEYS: &str =
    "the mask makes pseudonyms of this event, which takes the keys: POSTHASTE_KEYS or --key-file";
const NOT_MADE: &str = "the key of the partner's pseudonyms has not been made yet: a worker makes it, within a second of the approval";
const EXAMPLES: &str = "\
Examples:
  posthaste preview university 0199e8a4-7c00-7000-8000-0123456789ab --reason 'what do they see of it?'
  posthaste preview university 0199e8a4-7c00-7000-8000-0123456789ab --change 7 --reason 'before I approve'
  posthaste preview university 0199e8a4-7c00-7000-8000-0123456789ab --sign --timestamp 1767225600 --key-file keys --reason 'ticket 4711'";
