//! The flags of `subscription propose` that say what requests look like, and how we show who we are.

use clap::{Arg, ArgAction, ArgMatches};
use posthaste::{Error, Result};
use serde_json::{Map, Value, json};

use crate::commands::input::{all_given, if_given, path, read_text, text, texts};

/// What bodies and headers look like, and what signs them.
pub(super) fn shaped() -> [Arg; 6] {
    let envelope = "The shape of its requests, a NAME or NAME@VERSION of `posthaste envelope list`";
    let value = "A constant that the envelope wants, such as source=https://platform.example";
    let signature = "How requests are signed, several at once: standard_v1, standard_v1a, svix_legacy, stripe, github, shopify, convoy, convoy_simple, hook0, prefixed";
    let prefix =
        "Send headers of that name with -Event, -Delivery and -Timestamp, such as X-Platform";
    [
        text("envelope", envelope).value_name("NAME"),
        texts("value", value)
            .value_name("NAME=TEXT")
            .value_parser(named_value),
        texts("signature", signature).value_name("PROFILE"),
        text("header-prefix", prefix).value_name("PREFIX"),
        text("user-agent", "In place of the worker's own").value_name("TEXT"),
        Arg::new("pass-trace")
            .long("pass-trace")
            .action(ArgAction::SetTrue)
            .help("Send the event's trace context along"),
    ]
}

/// Who we are to the endpoint, who it is to us, and what it must allow first.
pub(super) fn trusted() -> [Arg; 4] {
    let authentication = "bearer, basic:USER, header:NAME, or the JSON of an oauth2; the secret part is given with `secret import --authentication`";
    let certificate =
        "Show this client certificate (PEM); its key is given with `secret import --client-key`";
    let authority = "Trust the authority in this file (PEM) and no other";
    let handshake = "Ask the receiver first, as CloudEvents' webhooks do: an origin, a DNS name of ours, or JSON with origin, callback and rate";
    [
        text("authentication", authentication).value_name("HOW"),
        path("client-certificate", certificate),
        path("authority", authority),
        text("handshake", handshake)
            .value_name("ORIGIN")
            .value_parser(self::handshake),
    ]
}

/// What it must not see.
pub(super) fn masked() -> [Arg; 2] {
    let partner = "Whose pseudonyms and external ids it gets; else the tenant, or its name";
    [
        path(
            "mask",
            "What becomes of fields before they leave (a file with the mask's JSON)",
        ),
        text("partner", partner).value_name("NAME"),
    ]
}

/// The terms that were given, under their names in the database.
pub(super) fn read(args: &ArgMatches) -> Result<Value> {
    let mut terms = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            terms.insert(name.to_owned(), value);
        }
    };
    for (flag, name) in [
        ("envelope", "envelope"),
        ("header-prefix", "header_prefix"),
        ("user-agent", "user_agent"),
        ("partner", "partner"),
    ] {
        put(name, if_given(args, flag).map(Value::from));
    }
    let values: Map<String, Value> = args
        .get_many::<(String, Value)>("value")
        .unwrap_or_default()
        .cloned()
        .collect();
    put("envelope_values", Some(Value::Object(values)));
    let signatures = all_given(args, "signature");
    put(
        "signatures",
        (!signatures.is_empty()).then(|| json!(signatures)),
    );
    put("pass_trace", Some(json!(args.get_flag("pass-trace"))));
    put(
        "authentication",
        if_given(args, "authentication")
            .map(authentication)
            .transpose()?,
    );
    put("handshake", args.get_one("handshake").cloned());
    put("tls", tls(args)?);
    put("mask", mask(args)?);
    Ok(Value::Object(terms))
}

fn tls(args: &ArgMatches) -> Result<Option<Value>> {
    let mut tls = Map::new();
    for (flag, name) in [
        ("client-certificate", "certificate"),
        ("authority", "authority"),
    ] {
        if let Some(pem) = contents(args, flag)? {
            tls.insert(name.to_owned(), Value::String(pem));
        }
    }
    Ok((!tls.is_empty()).then_some(Value::Object(tls)))
}

fn mask(args: &ArgMatches) -> Result<Option<Value>> {
    let Some(text) = contents(args, "mask")? else {
        return Ok(None);
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::Refused(format!("--mask: the file is not JSON: {error}")))
}

fn contents(args: &ArgMatches, flag: &str) -> Result<Option<String>> {
    let Some(file) = args.get_one::<std::path::PathBuf>(flag) else {
        return Ok(None);
    };
    read_text(file).map(Some)
}

fn named_value(text: &str) -> std::result::Result<(String, Value), &'static str> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=TEXT")?;
    Ok((name.trim().to_owned(), json!(value)))
}

/// Which kinds there are, and what they need, is for the database to say. Whoever adds the secret part is told so here, and the text
/// is not repeated: neither the database nor a log is to see it.
fn authentication(text: &str) -> Result<Value> {
    if text.starts_with('{') {
        let no_json = |error: serde_json::Error| {
            Error::Refused(format!("--authentication: it is not JSON: {error}"))
        };
        return serde_json::from_str(text).map_err(no_json);
    }
    match text.split_once(':') {
        Some(("basic", user)) if !user.contains(':') => Ok(json!({"kind": "basic", "user": user})),
        Some(("header", name)) if !name.contains([':', '=', ' ']) => {
            Ok(json!({"kind": "header", "header": name}))
        }
        None => Ok(json!({"kind": text})),
        Some(_) => Err(Error::Refused(SECRET_PART.to_owned())),
    }
}

fn handshake(text: &str) -> std::result::Result<Value, String> {
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    Ok(json!({"origin": text}))
}

const SECRET_PART: &str = "--authentication: must be bearer, basic:USER, header:NAME or the JSON of an oauth2, and no more; the secret part is given with `secret import --authentication`";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_authentication_is_a_kind_and_what_is_not_secret_of_it() {
        for (text, expected) in [
            ("bearer", json!({"kind": "bearer"})),
            ("basic:us", json!({"kind": "basic", "user": "us"})),
            ("header:X-Key", json!({"kind": "header", "header": "X-Key"})),
            (r#"{"kind": "oauth2"}"#, json!({"kind": "oauth2"})),
        ] {
            assert_eq!(authentication(text).unwrap(), expected);
        }
    }

    #[test]
    fn a_secret_part_goes_no_further_and_is_not_repeated() {
        for text in [
            "bearer:CANARY",
            "basic:us:CANARY",
            "header:X-Key: CANARY",
            "header:X-Key=CANARY",
            "token:CANARY",
        ] {
            let error = authentication(text).unwrap_err().to_string();
            assert!(
                error.contains("secret import") && !error.contains("CANARY"),
                "{error}"
            );
        }
    }
}
