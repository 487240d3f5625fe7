//! The envelopes that come with the program.

use std::collections::BTreeMap;

use super::{Envelope, EnvelopeError};

/// An envelope under its name. A version never changes: what should be different is a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Lower-case words joined by `_`.
    pub name: &'static str,
    /// Counted from 1.
    pub version: i16,
    /// Of the body.
    pub template: &'static str,
    /// The media type of the body.
    pub content_type: &'static str,
    /// Names and templates.
    pub headers: &'static [(&'static str, &'static str)],
    /// For whoever chooses one.
    pub description: &'static str,
}

impl Shipped {
    /// The envelope with these constants.
    ///
    /// # Errors
    /// A constant is missing, empty, too long, or not asked for.
    pub fn compile(&self, values: &BTreeMap<String, String>) -> Result<Envelope, EnvelopeError> {
        Envelope::parse(self.template, self.content_type, self.headers, values)
    }
}

/// All of them, the default first.
pub const SHIPPED: &[Shipped] = &[
    Shipped {
        name: "standard",
        version: 1,
        template: r#"{"type":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "type, timestamp, data: the shape that Standard Webhooks describes",
    },
    Shipped {
        name: "event_occurred_at",
        version: 1,
        template: r#"{"event":"{{type}}","occurredAt":"{{occurred_at}}","data":"{{data}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "event, occurredAt, data: for partners whose code is in camel case",
    },
    Shipped {
        name: "identified",
        version: 1,
        template: r#"{"id":"{{event_id}}","type":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}","metadata":"{{metadata}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "id, type, timestamp, data, metadata (null where the event has none): for partners that store bodies without headers",
    },
    Shipped {
        name: "api_versioned",
        version: 1,
        template: r#"{"id":"{{event_id}}","event":"{{type}}","timestamp":"{{occurred_at}}","data":"{{data}}","api_version":"{{values.api_version}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "id, event, timestamp, data, api_version: for a platform that pins each partner to a version of its API, values.api_version",
    },
    Shipped {
        name: "unix_sourced",
        version: 1,
        template: r#"{"event":"{{type}}","timestamp":"{{occurred_at_unix}}","data":"{{data}}","source":"{{values.source}}"}"#,
        content_type: JSON,
        headers: &[],
        description: "event, timestamp in Unix seconds, data, source: which of a partner's suppliers it comes from, values.source",
    },
    Shipped {
        name: "raw",
        version: 1,
        template: r#""{{data}}""#,
        content_type: JSON,
        headers: &[],
        description: "the payload alone, byte for byte; its type and time are told by nothing",
    },
    Shipped {
        name: "cloudevents_structured",
        version: 1,
        template: r#"{"specversion":"1.0","id":"{{event_id}}","source":"{{values.source}}","type":"{{type}}","time":"{{occurred_at}}","subject":"{{tenant?}}","datacontenttype":"application/json","data":"{{data}}"}"#,
        content_type: "application/cloudevents+json; charset=utf-8",
        headers: &[],
        description: "a CloudEvent 1.0 in structured mode; its source, a URI reference, is values.source, its subject the tenant where there is one",
    },
    Shipped {
        name: "cloudevents_binary",
        version: 1,
        template: r#""{{data}}""#,
        content_type: JSON,
        headers: &[
            ("ce-specversion", "1.0"),
            ("ce-id", "{{event_id}}"),
            ("ce-source", "{{values.source}}"),
            ("ce-type", "{{type}}"),
            ("ce-time", "{{occurred_at}}"),
            ("ce-subject", "{{tenant?}}"),
        ],
        description: "a CloudEvent 1.0 in binary mode: the payload alone, with ce-* headers; its source, a URI reference, is values.source, its subject the tenant where there is one",
    },
];

const JSON: &str = "application/json";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;
    use serde_json::Value;
    use uuid::Uuid;

    use super::super::{Facts, values_of};
    use super::*;

    #[test]
    fn each_shipped_envelope_renders_its_golden_files_byte_for_byte() {
        for shipped in SHIPPED {
            let envelope = compile(shipped);
            for (case, facts) in cases() {
                let name = golden_name(shipped, case);
                let expected = fs::read(golden().join(&name)).unwrap();
                let request = request(&envelope, &facts);
                let texts = [&request, &expected].map(|bytes| String::from_utf8_lossy(bytes));
                assert_eq!(texts[0], texts[1], "{name}");
            }
        }
    }

    #[test]
    fn no_golden_file_is_without_its_envelope() {
        let names = SHIPPED
            .iter()
            .flat_map(|shipped| cases().map(|(case, _)| golden_name(shipped, case)));
        let known: BTreeSet<_> = names.chain([".gitattributes".to_owned()]).collect();
        let files = fs::read_dir(golden()).unwrap();
        let found = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        assert_eq!(found.collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn a_name_and_version_mean_one_envelope() {
        let keys: BTreeSet<_> = SHIPPED.iter().map(|s| (s.name, s.version)).collect();
        assert_eq!(keys.len(), SHIPPED.len());
        for shipped in SHIPPED {
            let is_word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(shipped.name.bytes().all(is_word), "{}", shipped.name);
            assert!(shipped.version > 0 && !shipped.description.is_empty());
        }
    }

    #[test]
    fn the_standard_envelope_is_the_first_of_the_shipped() {
        assert_eq!(SHIPPED[0].name, "standard");
        assert_eq!(compile(&SHIPPED[0]), Envelope::standard());
    }

    #[test]
    fn only_what_says_nothing_around_the_data_does_not_mark_a_test() {
        for shipped in SHIPPED {
            let envelope = compile(shipped);
            let bodies = [false, true].map(|is_test| {
                let facts = Facts { is_test, ..bare() };
                String::from_utf8(envelope.body(&facts).to_vec()).unwrap()
            });
            let [plain, marked] = bodies;
            let is_raw = shipped.template == r#""{{data}}""#;
            assert_eq!(marked == plain, is_raw, "{}", shipped.name);
            assert_eq!(marked.replacen(r#""test":true,"#, "", 1), plain);
        }
    }

    proptest! {
        #[test]
        fn any_json_keeps_its_bytes_in_every_shipped_envelope(data in json(), is_test: bool) {
            for shipped in SHIPPED {
                let envelope = compile(shipped);
                let body = envelope.body(&Facts { data: &data, is_test, ..full() });
                let around = envelope.body(&Facts { data: "\u{1}", is_test, ..full() });
                let around = String::from_utf8(around.to_vec()).unwrap();
                let (before, after) = around.split_once('\u{1}').unwrap();
                let within = body.strip_prefix(before.as_bytes());
                let within = within.and_then(|rest| rest.strip_suffix(after.as_bytes()));
                prop_assert_eq!(within, Some(data.as_bytes()));
            }
        }

        #[test]
        fn any_texts_make_valid_json_that_reads_back(
            event_type: String, tenant: Option<String>, source in ".{1,100}", data in json(),
        ) {
            let facts = Facts { event_type: &event_type, tenant: tenant.as_deref(), data: &data, ..full() };
            for shipped in SHIPPED {
                let envelope = compile_with(shipped, &source);
                let body = envelope.body(&facts);
                let read: Value = serde_json::from_slice(&body).unwrap();
                let data: Value = serde_json::from_str(&data).unwrap();
                if shipped.template == r#""{{data}}""# {
                    prop_assert_eq!(&read, &data);
                    continue;
                }
                prop_assert_eq!(&read["data"], &data);
                let name = if read["event"].is_null() { "type" } else { "event" };
                prop_assert_eq!(&read[name], &event_type);
                if shipped.name == "cloudevents_structured" {
                    prop_assert_eq!(&read["source"], &source);
                    prop_assert_eq!(read.get("subject").and_then(Value::as_str), tenant.as_deref());
                }
            }
        }

        #[test]
        fn any_texts_make_headers_that_can_be_sent_and_read_back(
            event_type in ".{1,100}", tenant: String, source in ".{1,100}",
        ) {
            let facts = Facts { event_type: &event_type, tenant: Some(&tenant), ..full() };
            let shipped = SHIPPED.iter().find(|s| s.name == "cloudevents_binary").unwrap();
            let envelope = compile_with(shipped, &source);
            let headers: Vec<_> = envelope.headers(&facts).map(Result::unwrap).collect();
            prop_assert_eq!(headers.len(), 7);
            for (name, text) in [("ce-type", &event_type), ("ce-subject", &tenant), ("ce-source", &source)] {
                let (_, value) = headers.iter().find(|(known, _)| known == name).unwrap();
                prop_assert!(value.as_bytes().iter().all(u8::is_ascii_graphic));
                prop_assert_eq!(&decoded(value.to_str().unwrap()), text);
            }
        }

        #[test]
        fn the_same_facts_make_the_same_bytes_in_one_allocation_of_their_size(
            event_type: String, tenant: Option<String>, metadata in proptest::option::of(json()), data in json(), is_test: bool,
        ) {
            let facts = Facts {
                event_type: &event_type, tenant: tenant.as_deref(), metadata: metadata.as_deref(), data: &data, is_test, ..full()
            };
            for shipped in SHIPPED {
                let body = compile(shipped).body(&facts);
                prop_assert_eq!(&body, &compile(shipped).body(&facts));
                let length = body.len();
                prop_assert_eq!(body.try_into_mut().unwrap().capacity(), length);
            }
        }
    }

    /// JSON texts of all kinds, with space where JSON allows it and numbers that no float holds.
    fn json() -> impl Strategy<Value = String> {
        let string = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|b| b.to_string()),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?([eE][-+]?[0-9]{1,2})?",
            string.clone(),
            Just(r#""\ud83d\ude00\/\u0000{{data}}""#.to_owned()),
        ];
        let space = "[ \t\r\n]{0,2}";
        leaf.prop_recursive(4, 32, 4, move |inner| {
            let member = (string.clone(), space, inner.clone());
            let member = member.prop_map(|(name, space, value)| format!("{name}{space}:{value}"));
            prop_oneof![
                proptest::collection::vec(inner, 0..4)
                    .prop_map(|elements| format!("[{}]", elements.join(" ,"))),
                proptest::collection::vec(member, 0..4)
                    .prop_map(|members| format!("{{{} }}", members.join(","))),
            ]
        })
    }

    /// As any URL decoder does it.
    fn decoded(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once('%') {
            bytes.extend_from_slice(before.as_bytes());
            bytes.push(u8::from_str_radix(&from[..2], 16).unwrap());
            rest = &from[2..];
        }
        bytes.extend_from_slice(rest.as_bytes());
        String::from_utf8(bytes).unwrap()
    }

    /// A line for each header, an empty line, the body.
    fn request(envelope: &Envelope, facts: &Facts<'_>) -> Vec<u8> {
        let mut request = Vec::new();
        for header in envelope.headers(facts) {
            let (name, value) = header.unwrap();
            request.extend_from_slice(format!("{name}: {}\n", value.to_str().unwrap()).as_bytes());
        }
        request.push(b'\n');
        request.extend_from_slice(&envelope.body(facts));
        request
    }

    fn compile(shipped: &Shipped) -> Envelope {
        compile_with(shipped, "https://platform.example/events?of=tests")
    }

    fn compile_with(shipped: &Shipped, source: &str) -> Envelope {
        let needed = values_of(shipped.template, shipped.headers).unwrap();
        let value = |name: String| match name.as_str() {
            "source" => (name, source.to_owned()),
            _ => (name, "2026-01-01".to_owned()),
        };
        shipped
            .compile(&needed.into_iter().map(value).collect())
            .unwrap()
    }

    fn golden_name(shipped: &Shipped, case: &str) -> String {
        format!("{}.v{}.{case}.http", shipped.name, shipped.version)
    }

    fn golden() -> &'static Path {
        Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/envelopes"
        ))
    }

    fn cases() -> [(&'static str, Facts<'static>); 3] {
        let test = Facts {
            is_test: true,
            ..bare()
        };
        [("full", full()), ("bare", bare()), ("test", test)]
    }

    fn full() -> Facts<'static> {
        Facts {
            event_id: Uuid::from_u128(0x0199_e8a4_7c00_7000_8000_0123_4567_89ab),
            delivery_id: "0199e8a4-7c00-7000-8000-0123456789ab.12.0",
            event_type: "certificate.issued",
            occurred_at: SystemTime::UNIX_EPOCH + Duration::from_micros(1_760_000_000_123_456),
            data: "{\"b\" : 1.0, \"a\":\t[1e400, 12345678901234567890, -0.0, \"\\u0000\\/\\\"é\u{2028}😀\"],\n \"b\":2, \"\": {} }",
            metadata: Some(r#"{"request_id" : "r-1","n":1.50}"#),
            tenant: Some(r#"Universidad "Córdoba" €\100 %"#),
            subscription: "partner-12",
            is_test: false,
        }
    }

    fn bare() -> Facts<'static> {
        Facts {
            metadata: None,
            tenant: None,
            ..full()
        }
    }
}
