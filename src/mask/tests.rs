#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [7; 32];

fn mask(json: &str) -> Mask {
    Mask::parse(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn apply(mask: &Mask, payload: &str) -> Result<Masked, Refusal> {
    mask.apply(payload, &PseudonymKey::new(KEY), &|_| None)
}

/// What is left of a payload.
fn left(mask_json: &str, payload: &str) -> String {
    apply(&mask(mask_json), payload).unwrap().json
}

fn pseudonym(json: &str) -> String {
    let pseudonyms = Pseudonyms::new(&PseudonymKey::new(KEY));
    format!("\"{}\"", pseudonyms.of_value(json).unwrap())
}

#[track_caller]
fn assert_cases(cases: &[(&str, &str, &str)]) {
    for (mask, payload, expected) in cases {
        assert_eq!(left(mask, payload), *expected, "{mask} of {payload}");
    }
}

#[test]
fn only_what_is_allowed_leaves() {
    assert_cases(&[
        (r#"{"allow":["/a"]}"#, r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
        (r#"{"allow":["/a"]}"#, r#"{"b":2}"#, "{}"),
        (
            r#"{"allow":["/a/b"]}"#,
            r#"{"a":{"b":1,"c":2},"b":3}"#,
            r#"{"a":{"b":1}}"#,
        ),
        (
            r#"{"allow":["/a"]}"#,
            r#"{"a":{"b":1,"c":[2]}}"#,
            r#"{"a":{"b":1,"c":[2]}}"#,
        ),
        (
            r#"{"allow":["/a/*/x"]}"#,
            r#"{"a":[{"x":1,"y":2},{"y":3},4,[5]]}"#,
            r#"{"a":[{"x":1},{}]}"#,
        ),
        (
            r#"{"allow":["/a/*"]}"#,
            r#"{"a":{"k":1,"l":[2]},"b":3}"#,
            r#"{"a":{"k":1,"l":[2]}}"#,
        ),
        (
            r#"{"allow":["/a/**"]}"#,
            r#"{"a":{"k":{"l":[2]}},"b":3}"#,
            r#"{"a":{"k":{"l":[2]}}}"#,
        ),
        (r#"{"allow":["/a/**"]}"#, r#"{"a":1}"#, "{}"),
        (
            r#"{"allow":["/a/1"]}"#,
            r#"{"a":["x","y","z"]}"#,
            r#"{"a":["y"]}"#,
        ),
        (
            r#"{"allow":["/a/1"]}"#,
            r#"{"a":{"1":"y","01":"z"}}"#,
            r#"{"a":{"1":"y"}}"#,
        ),
        (
            r#"{"allow":["/a/10"]}"#,
            r#"{"a":[0,1,2,3,4,5,6,7,8,9,10,11]}"#,
            r#"{"a":[10]}"#,
        ),
        ("{}", r#"{"a":1}"#, "null"),
    ]);
}

#[test]
fn the_root_may_be_anything() {
    assert_cases(&[
        (r#"{"allow":[""]}"#, r#" {"a" : 1} "#, r#"{"a" : 1}"#),
        (r#"{"allow":[""]}"#, "1e400", "1e400"),
        (r#"{"allow":["/a"]}"#, r#""secret""#, "null"),
        (r#"{"allow":["/a"]}"#, "[1,2]", "null"),
        (r#"{"allow":["/*"]}"#, "[1, 2]", "[1,2]"),
        (r#"{"allow":["/**"]}"#, "[[1, 2]]", "[[1, 2]]"),
        (r#"{"allow":["/0"]}"#, "[1,2]", "[1]"),
        ("{}", "[1]", "null"),
        (
            r#"{"rest":{"replace":"[masked]"}}"#,
            r#"{"a":1}"#,
            r#""[masked]""#,
        ),
        (r#"{"allow":["/a"],"rest":{"replace":0}}"#, "\"x\"", "0"),
        (r#"{"fields":{"":{"replace":[]}}}"#, r#"{"a":1}"#, "[]"),
        (r#"{"fields":{"":"drop"}}"#, r#"{"a":1}"#, "null"),
    ]);
    assert_eq!(
        left(r#"{"rest":"pseudonym"}"#, "[1, 2]"),
        pseudonym("[1,2]")
    );
    assert_eq!(left(r#"{"fields":{"":"pseudonym"}}"#, "7"), pseudonym("7"));
}

#[test]
fn fields_are_hidden_below_what_is_allowed() {
    let mask = r#"{"allow":["/user"],"fields":{"/user/email":"drop","/user/score":{"replace":null},"/user/*/ip":{"replace":{"x":0}}}}"#;
    assert_cases(&[
        (
            mask,
            r#"{"user":{"email":"e","name":"n"}}"#,
            r#"{"user":{"name":"n"}}"#,
        ),
        (
            mask,
            r#"{"user":{"score":[1,2]}}"#,
            r#"{"user":{"score":null}}"#,
        ),
        (
            mask,
            r#"{"user":{"a":{"ip":1,"b":{"ip":2}}}}"#,
            r#"{"user":{"a":{"ip":{"x":0},"b":{"ip":2}}}}"#,
        ),
        (mask, r#"{"user":["email"]}"#, r#"{"user":["email"]}"#),
    ]);
    let masked = left(
        r#"{"allow":[""],"fields":{"/a":"pseudonym"}}"#,
        r#"{"a":{"b": 1},"c":2}"#,
    );
    assert_eq!(
        masked,
        format!(r#"{{"a":{},"c":2}}"#, pseudonym(r#"{"b":1}"#))
    );
}

#[test]
fn the_narrower_path_counts_and_in_doubt_the_one_that_hides() {
    let drop = |allow: &str, field: &str| {
        format!(r#"{{"allow":["{allow}"],"fields":{{"{field}":"drop"}}}}"#)
    };
    let payload = r#"{"a":{"b":{"c":1}}}"#;
    for (allow, field, expected) in [
        ("/a/b", "/a/*", payload),
        ("/a/*", "/a/b", r#"{"a":{}}"#),
        ("/a/b", "/*/b", payload),
        ("/a", "/*/b", r#"{"a":{}}"#),
        ("/a/*", "/*/b", r#"{"a":{}}"#),
        ("/*/b", "/a/**", r#"{"a":{}}"#),
        ("/a/b", "/a/**", payload),
        ("/a/b/c", "/**", payload),
        ("/a", "/a/**", r#"{"a":{}}"#),
        ("/a/b", "/a/b", "null"),
        ("/a/**", "/a/**", "null"),
        ("/**", "/*/**", r#"{"a":{}}"#),
        ("/*/**", "/**", r#"{"a":{"b":{"c":1}}}"#),
    ] {
        // `/*/**` does not name the first level, and `/**` hides it, but it is on the way.
        assert_eq!(
            left(&drop(allow, field), payload),
            expected,
            "{allow} {field}"
        );
    }
}

#[test]
fn of_two_paths_that_hide_the_one_that_is_literal_first_counts() {
    let mask = r#"{"fields":{"/a/b":{"replace":1},"/a/*":{"replace":2},"/*/b":{"replace":3},"/*/*":{"replace":4},"/**":{"replace":5}}}"#;
    assert_cases(&[
        (
            mask,
            r#"{"a":{"b":0,"c":0},"x":{"b":0,"c":0},"y":0}"#,
            r#"{"a":{"b":1,"c":2},"x":{"b":3,"c":4},"y":5}"#,
        ),
        (
            r#"{"fields":{"/a/**":{"replace":1},"/*/*/**":{"replace":2}}}"#,
            r#"{"a":{"b":{"c":0}}}"#,
            r#"{"a":{"b":1}}"#,
        ),
    ]);
}

#[test]
fn what_hides_takes_a_container_whole() {
    for hides in ["\"drop\"", "\"pseudonym\"", r#"{"replace":"X"}"#] {
        let mask = format!(r#"{{"allow":["/b"],"rest":{hides},"fields":{{"/a":{hides}}}}}"#);
        let payloads = [
            r#"{"a":{"@":"@"},"@":{"@":"@"}}"#,
            r#"{"a":[["@"],"@"],"@":[["@"]]}"#,
        ];
        for payload in payloads {
            let left = left(&mask, payload);
            assert!(!left.contains('@'), "{left}");
        }
    }
}

#[test]
fn a_container_stays_only_on_the_way_to_what_may_be_seen() {
    assert_cases(&[
        (r#"{"allow":["/a/b"]}"#, r#"{"a":{"x":1}}"#, r#"{"a":{}}"#),
        (r#"{"allow":["/a/b"]}"#, r#"{"a":[1,2]}"#, "{}"),
        (r#"{"allow":["/a/b"]}"#, r#"{"a":"scalar"}"#, "{}"),
        (r#"{"allow":["/a/*"]}"#, r#"{"a":[]}"#, r#"{"a":[]}"#),
        (
            r#"{"allow":["/x"],"fields":{"/a/b":"drop"}}"#,
            r#"{"a":{"c":1}}"#,
            "{}",
        ),
        (
            r#"{"allow":["/x"],"fields":{"/a/**":"drop"}}"#,
            r#"{"a":{"c":1}}"#,
            "{}",
        ),
        (
            r#"{"fields":{"/a/b":{"replace":1}}}"#,
            r#"{"a":{"b":0,"c":0},"d":{}}"#,
            r#"{"a":{"b":1}}"#,
        ),
        (
            r#"{"allow":["/m/a/b"],"fields":{"/m/**":{"replace":"X"}}}"#,
            r#"{"m":{"a":{"b":1,"c":[2]},"d":{"e":3}}}"#,
            r#"{"m":{"a":{"b":1,"c":"X"},"d":"X"}}"#,
        ),
    ]);
}

#[test]
fn a_name_that_no_path_allows_is_never_seen() {
    let mask = r#"{"allow":["/a/b","/list/*/sku"],"rest":{"replace":"X"}}"#;
    assert_cases(&[
        (
            mask,
            r#"{"a":{"b":1,"bob@example.org":2},"alice@example.org":3}"#,
            r#"{"a":{"b":1}}"#,
        ),
        (
            mask,
            r#"{"a":"scalar","list":[{"sku":1,"secret":2},3]}"#,
            r#"{"a":"X","list":[{"sku":1},"X"]}"#,
        ),
        (
            mask,
            r#"{"a":[1,2],"list":{"carol":{"sku":1},"dave":5}}"#,
            r#"{"a":"X","list":{"carol":{"sku":1},"dave":"X"}}"#,
        ),
        (
            r#"{"fields":{"/a/*":"drop"},"rest":"pseudonym","allow":["/a"]}"#,
            r#"{"a":{"bob":1}}"#,
            r#"{"a":{}}"#,
        ),
    ]);
}

#[test]
fn what_is_shown_keeps_its_bytes() {
    let odd = r#"[1.50, -0, 1E+400, 12345678901234567890.10, "\u0061\/\ud800é\ud83d\ude00", {"b" :1,"a":2 , "b":3}]"#;
    for (mask, payload, expected) in [
        (
            r#"{"allow":["/a"]}"#,
            format!(r#"{{ "a" : {odd} , "b":1}}"#),
            format!(r#"{{"a":{odd}}}"#),
        ),
        (r#"{"allow":[""]}"#, format!("\n{odd}\t"), odd.to_owned()),
        (
            r#"{"allow":["/a"],"fields":{"/a/6":"drop"}}"#,
            format!(r#"{{"\u0061":{odd}}}"#),
            format!(
                r#"{{"\u0061":{}}}"#,
                odd.replace(", ", ",").replace(" ,\"b\"", " , \"b\"")
            ),
        ),
    ] {
        assert_eq!(left(mask, &payload), expected);
    }
}

#[test]
fn names_are_compared_by_what_they_mean() {
    assert_cases(&[
        (
            r#"{"allow":["/aé"]}"#,
            r#"{"\u0061\u00e9":1,"a\\u00e9":2}"#,
            r#"{"\u0061\u00e9":1}"#,
        ),
        (r#"{"allow":["/\u0061"]}"#, r#"{"a":1}"#, r#"{"a":1}"#),
        (
            r#"{"allow":["/x"],"fields":{"/secret":"drop"}}"#,
            r#"{"s\u0065cret":1}"#,
            "{}",
        ),
        (
            r#"{"allow":[""],"fields":{"/secret":"drop"}}"#,
            r#"{"s\u0065cret":1,"Secret":2}"#,
            r#"{"Secret":2}"#,
        ),
        (
            r#"{"allow":["/😀"]}"#,
            r#"{"\ud83d\ude00":1,"\ud83d":2}"#,
            r#"{"\ud83d\ude00":1}"#,
        ),
        (
            r#"{"allow":["/a~1b","/c~0d","/"]}"#,
            r#"{"a/b":1,"c~d":2,"":3,"a":{"b":4}}"#,
            r#"{"a/b":1,"c~d":2,"":3}"#,
        ),
        (
            r#"{"allow":["//"]}"#,
            r#"{"":{"":1,"x":2}}"#,
            r#"{"":{"":1}}"#,
        ),
        (
            r#"{"allow":["/~2","/~2~2"]}"#,
            r#"{"*":1,"**":2,"x":3}"#,
            r#"{"*":1,"**":2}"#,
        ),
        (
            r#"{"allow":["/\u0000"]}"#,
            r#"{"\u0000":1,"":2}"#,
            r#"{"\u0000":1}"#,
        ),
        (
            r#"{"allow":["/*"]}"#,
            r#"{"\ud800":1,"*":2}"#,
            r#"{"\ud800":1,"*":2}"#,
        ),
        // No normal forms: these are two names.
        ("{\"allow\":[\"/\u{e9}\"]}", "{\"e\u{301}\":1}", "{}"),
    ]);
}

#[test]
fn each_of_two_members_with_one_name_is_treated_as_the_name_is() {
    assert_cases(&[
        (
            r#"{"allow":["/a"]}"#,
            r#"{"a":1,"b":2,"a":3,"b":4}"#,
            r#"{"a":1,"a":3}"#,
        ),
        (
            r#"{"allow":[""],"fields":{"/a":{"replace":0}}}"#,
            r#"{"a":1,"\u0061":2,"b":3}"#,
            r#"{"a":0,"\u0061":0,"b":3}"#,
        ),
    ]);
}

#[test]
fn an_internal_id_becomes_the_external_one() {
    let mask =
        mask(r#"{"fields":{"/s/*/id":{"map":"student"},"/t":{"map":"teacher"},"/n":{"map":"x"}}}"#);
    let payload = r#"{"s":[{"id":7},{"id":"7"},{"id":"\u0061"},{"id":true}],"t":7,"n":null}"#;
    let wanted = mask.wanted(payload).unwrap();
    let wanted: Vec<(&str, &str)> = wanted.iter().map(|id| (&*id.kind, &*id.internal)).collect();
    assert_eq!(
        wanted,
        [
            ("student", "7"),
            ("student", "a"),
            ("student", "true"),
            ("teacher", "7")
        ]
    );
    let known = |id: &Id| Some(format!("{}\"{}", id.kind, id.internal));
    let masked = mask
        .apply(payload, &PseudonymKey::new(KEY), &known)
        .unwrap();
    assert_eq!(
        masked.json,
        r#"{"s":[{"id":"student\"7"},{"id":"student\"7"},{"id":"student\"a"},{"id":"student\"true"}],"t":"teacher\"7","n":null}"#
    );
    assert!(masked.newly_pseudonymised.is_empty());
}

#[test]
fn a_missing_id_holds_refuses_or_gets_a_pseudonym() {
    let with = |missing: &str| {
        mask(&format!(
            r#"{{"allow":[""],"fields":{{"/*/id":{{"map":"student"{missing}}}}}}}"#
        ))
    };
    let payload = r#"{"bob@example.org":{"id":4711},"carol":{"id":"4711"}}"#;
    let text = "the id of kind `student` at `/*/id` has no external id".to_owned();
    for missing in ["", r#","missing":"hold""#] {
        assert_eq!(
            apply(&with(missing), payload),
            Err(Refusal::Hold(text.clone()))
        );
    }
    assert_eq!(
        apply(&with(r#","missing":"refuse""#), payload),
        Err(Refusal::Refuse(text))
    );

    let masked = apply(&with(r#","missing":"pseudonym""#), payload).unwrap();
    let [(id, made_up)] = &masked.newly_pseudonymised[..] else {
        panic!("{masked:?}");
    };
    assert_eq!((&*id.kind, &*id.internal), ("student", "4711"));
    assert_eq!(
        masked.json,
        format!(r#"{{"bob@example.org":{{"id":"{made_up}"}},"carol":{{"id":"{made_up}"}}}}"#)
    );
    // Stored as the mapping, it gives the same bytes at the next attempt.
    let again = with(r#","missing":"hold""#)
        .apply(payload, &PseudonymKey::new([0; 32]), &|_| {
            Some(made_up.clone())
        })
        .unwrap();
    assert_eq!(again.json, masked.json);
}

#[test]
fn what_cannot_be_an_id_is_refused_without_being_told() {
    let mask = mask(r#"{"fields":{"/*/id":{"map":"student","missing":"pseudonym"}}}"#);
    for (id, what) in [
        (r#"{"marker":1}"#.to_owned(), "an object"),
        (r#"["marker"]"#.to_owned(), "an array"),
        (r#""marker\ud800""#.to_owned(), "half of a surrogate pair"),
        (r#""marker\u0000""#.to_owned(), "a NUL"),
        (
            format!("\"marker{}\"", "x".repeat(1019)),
            "longer than 1024",
        ),
    ] {
        let payload = format!(r#"{{"marker":{{"id":{id}}}}}"#);
        for refusal in [
            apply(&mask, &payload).unwrap_err(),
            mask.wanted(&payload).unwrap_err(),
        ] {
            let Refusal::Refuse(text) = refusal else {
                panic!("{refusal:?}");
            };
            assert!(
                text.contains(what) && text.contains("`/*/id`") && !text.contains("marker"),
                "{text}"
            );
        }
    }
    assert!(apply(&mask, &format!(r#"[{{"id":"{}"}}]"#, "x".repeat(1024))).is_ok());
}

#[test]
fn metadata_leaves_only_where_it_is_named() {
    let none = mask(r#"{"allow":[""]}"#);
    assert_eq!(none.apply_to_metadata(r#"{"request_id":"r"}"#), Ok(None));
    let some = mask(r#"{"metadata":["/request_id","/a/*"]}"#);
    assert_eq!(
        some.apply_to_metadata(r#"{"request_id": "r", "user": 7, "a":{"b":1}}"#),
        Ok(Some(r#"{"request_id":"r","a":{"b":1}}"#.to_owned()))
    );
    assert_eq!(some.apply_to_metadata("{}"), Ok(Some("{}".to_owned())));
    assert_eq!(some.apply_to_metadata("7"), Ok(None));
    assert!(some.apply_to_metadata("{").is_err());
}

#[test]
fn what_cannot_be_read_is_refused_whatever_the_mask() {
    let deep = |levels: usize| {
        format!(
            "{}{}",
            r#"{"a":["#.repeat(levels / 2),
            "]}".repeat(levels / 2)
        )
    };
    for mask_json in [
        r#"{"allow":[""]}"#,
        "{}",
        r#"{"rest":"pseudonym"}"#,
        r#"{"allow":["/a/*/a/*/a"],"fields":{"/a/*/a/*":{"map":"x"}}}"#,
    ] {
        let Ok(mask) = Mask::parse(mask_json) else {
            continue;
        };
        let hostile = [
            "",
            "{",
            r#"{"marker":1"#,
            r#"{"marker":01}"#,
            r#"{"a":1,}"#,
            "marker",
            r#"{"a":"marker}"#,
            "{\"a\":\"\n\"}",
            "1 2",
            r#"{"a":1}}"#,
            r#"{"a":"\x"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a" 1}"#,
            "{a:1}",
            r#"{"a":[1,]}"#,
            "\u{feff}{}",
            "\0",
        ];
        for payload in hostile {
            let refusal = apply(&mask, payload).unwrap_err();
            assert!(
                matches!(&refusal, Refusal::Refuse(text) if !text.contains("marker")),
                "{refusal}"
            );
        }
        assert!(apply(&mask, &deep(128)).is_ok());
        for payload in [deep(130), "[".repeat(1_000_000), r#"{"a":"#.repeat(100_000)] {
            assert!(matches!(apply(&mask, &payload), Err(Refusal::Refuse(_))));
        }
    }
}

#[test]
fn a_path_may_be_as_deep_as_a_payload_is_wide() {
    let path = "/*".repeat(32);
    let mask = mask(&format!(
        r#"{{"allow":["{path}"],"fields":{{"{path}/**":"drop"}}}}"#
    ));
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(apply(&mask, &nested(32)).unwrap().json, nested(32));
    assert_eq!(
        apply(&mask, &nested(31)).unwrap().json,
        nested(31).replace('1', "")
    );
    assert_eq!(
        apply(&mask, &nested(128)).unwrap().json,
        format!("{}{}", "[".repeat(33), "]".repeat(33))
    );
}

#[test]
fn what_grows_without_measure_is_refused() {
    let digits = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    let pseudonyms = apply(&mask(r#"{"fields":{"/*":"pseudonym"}}"#), &digits(100_000)).unwrap();
    assert_eq!(pseudonyms.json.len(), 1 + 100_000 * 27);
    let long = mask(&format!(
        r#"{{"fields":{{"/*":{{"replace":"{}"}}}}}}"#,
        "x".repeat(254)
    ));
    assert!(apply(&long, &digits(280)).is_ok());
    let Err(Refusal::Refuse(text)) = apply(&long, &digits(300)) else {
        panic!("it was not refused");
    };
    assert!(text.contains("16 times"), "{text}");
    let unbounded = |_: &Id| Some("x".repeat(100_000));
    let ids = mask(r#"{"fields":{"/*":{"map":"x"}}}"#);
    assert!(
        ids.apply("[1]", &PseudonymKey::new(KEY), &unbounded)
            .is_err()
    );
}

#[test]
fn nothing_of_a_payload_is_in_what_is_printed() {
    let masked = apply(
        &mask(r#"{"allow":[""],"fields":{"/id":{"map":"k","missing":"pseudonym"}}}"#),
        r#"{"id":"marker"}"#,
    );
    let printed = format!("{:?}", masked.unwrap());
    assert!(
        printed.contains("Id(k, hidden)") && !printed.contains("marker"),
        "{printed}"
    );
}

// Against a second reading of the rules, value by value and path by path, as the module's documentation tells them.

/// A document.
#[derive(Clone, Debug)]
enum Doc {
    Leaf(String),
    Array(Vec<Doc>),
    Object(Vec<(String, Doc)>),
}

#[derive(Clone, Debug)]
struct Model {
    allow: Vec<Vec<String>>,
    rest: String,
    fields: Vec<(Vec<String>, String)>,
}

impl Model {
    fn json(&self) -> String {
        let text = |path: &Vec<String>| {
            path.iter()
                .flat_map(|segment| ["/", segment])
                .collect::<String>()
        };
        let allow: Vec<String> = self
            .allow
            .iter()
            .map(|path| format!("\"{}\"", text(path)))
            .collect();
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|(path, how)| format!("\"{}\":{how}", text(path)))
            .collect();
        format!(
            r#"{{"allow":[{}],"fields":{{{}}},"rest":{}}}"#,
            allow.join(","),
            fields.join(","),
            self.rest
        )
    }

    /// Each allowed path, and what it implies.
    fn allowed(&self) -> Vec<Vec<String>> {
        let implied = self
            .allow
            .iter()
            .filter(|path| !is_deep(path) && self.fields.iter().all(|(field, _)| field != *path))
            .map(|path| {
                let deep = ["**".to_owned()];
                path.iter().cloned().chain(deep).collect()
            });
        self.allow.iter().cloned().chain(implied).collect()
    }

    /// `Ok` is shown; otherwise how it is hidden, and whether by a `**`.
    fn fit(&self, path: &[String]) -> Option<Result<(), (String, bool)>> {
        let mut fields: Vec<_> = self
            .fields
            .iter()
            .filter(|(pattern, _)| fits(pattern, path))
            .collect();
        let allowed = self
            .allowed()
            .into_iter()
            .filter(|pattern| fits(pattern, path));
        for pattern in allowed {
            if fields
                .iter()
                .all(|(field, _)| pattern != *field && is_within(&pattern, field))
            {
                return Some(Ok(()));
            }
        }
        fields.sort_by_key(|(pattern, _)| rank(pattern));
        fields
            .first()
            .map(|(pattern, how)| Err((how.clone(), is_deep(pattern))))
    }

    /// Whether something below may be seen, and counts in spite of the `**` that hide what is here.
    fn leads(&self, path: &[String], in_array: bool) -> bool {
        let hiding: Vec<_> = self
            .fields
            .iter()
            .filter(|(field, _)| is_deep(field) && fits(field, path))
            .collect();
        let goes_on = |pattern: &[String]| {
            pattern.len() > path.len()
                && pattern
                    .iter()
                    .zip(path)
                    .all(|(segment, name)| segment == "*" || segment == name)
                && (!in_array
                    || pattern[path.len()].starts_with('*')
                    || pattern[path.len()].parse::<u64>().is_ok())
        };
        let dropped = |pattern: &Vec<String>| {
            self.fields
                .iter()
                .any(|(field, how)| field == pattern && how == "\"drop\"")
        };
        let of_fields = self.fields.iter().any(|(pattern, how)| {
            how != "\"drop\""
                && goes_on(pattern)
                && hiding.iter().all(|(field, _)| rank(pattern) < rank(field))
        });
        let of_allow = self.allowed().into_iter().any(|pattern| {
            !dropped(&pattern)
                && goes_on(&pattern)
                && hiding
                    .iter()
                    .all(|(field, _)| pattern != *field && is_within(&pattern, field))
        });
        of_fields || of_allow
    }

    fn left(&self, doc: &Doc, path: &[String], is_member: bool) -> Option<String> {
        let leads = match doc {
            Doc::Leaf(_) => false,
            Doc::Array(_) => self.leads(path, true),
            Doc::Object(_) => self.leads(path, false),
        };
        let how = match self.fit(path) {
            Some(Ok(())) => return Some(self.inside(doc, path)),
            Some(Err((_, true))) | None if leads => return Some(self.inside(doc, path)),
            Some(Err((how, _))) => how,
            None if is_member && !self.leads(path, false) => return None,
            None => self.rest.clone(),
        };
        match how.as_str() {
            "\"drop\"" => None,
            "\"pseudonym\"" => Some(pseudonym(&doc.json())),
            replace => Some(
                replace
                    .strip_prefix("{\"replace\":")
                    .unwrap()
                    .strip_suffix('}')
                    .unwrap()
                    .to_owned(),
            ),
        }
    }

    fn inside(&self, doc: &Doc, path: &[String]) -> String {
        let at = |name: String| path.iter().cloned().chain([name]).collect::<Vec<_>>();
        match doc {
            Doc::Leaf(json) => json.clone(),
            Doc::Array(elements) => {
                let left = elements.iter().enumerate().filter_map(|(index, element)| {
                    self.left(element, &at(index.to_string()), false)
                });
                format!("[{}]", left.collect::<Vec<_>>().join(","))
            }
            Doc::Object(members) => {
                let left = members.iter().filter_map(|(name, value)| {
                    Some(format!(
                        "\"{name}\":{}",
                        self.left(value, &at(name.clone()), true)?
                    ))
                });
                format!("{{{}}}", left.collect::<Vec<_>>().join(","))
            }
        }
    }
}

/// What is literal first sorts first.
fn rank(pattern: &[String]) -> Vec<usize> {
    let stars = |segment: &String| {
        if segment.starts_with('*') {
            segment.len()
        } else {
            0
        }
    };
    pattern.iter().map(stars).collect()
}

fn is_deep(pattern: &[String]) -> bool {
    pattern.last().is_some_and(|last| last == "**")
}

fn fits(pattern: &[String], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((segment, _)), Some(_)) if segment == "**" => true,
        (Some((segment, pattern)), Some((name, path))) => {
            (segment == "*" || segment == name) && fits(pattern, path)
        }
        _ => false,
    }
}

/// Whether every place that one pattern names is named by the other.
fn is_within(one: &[String], other: &[String]) -> bool {
    match (one.split_first(), other.split_first()) {
        (None, None) => true,
        (Some(_), Some((segment, _))) if segment == "**" => true,
        (Some((first, _)), _) if first == "**" => false,
        (Some((first, one)), Some((second, other))) => {
            (second == "*" || first == second) && is_within(one, other)
        }
        _ => false,
    }
}

impl Doc {
    fn json(&self) -> String {
        Model {
            allow: vec![vec![]],
            rest: String::new(),
            fields: vec![],
        }
        .inside(self, &[])
    }

    /// Numbers all leaves and some names, so that each can be told from all others: `S<number>!`, and none is part of a pseudonym.
    fn mark(&mut self, next: &mut u32) {
        let mut marker = || {
            *next += 1;
            format!("S{next}!")
        };
        match self {
            Doc::Leaf(json) => *json = format!("\"{}\"", marker()),
            Doc::Array(elements) => elements.iter_mut().for_each(|element| element.mark(next)),
            Doc::Object(members) => {
                for (name, _) in members.iter_mut().filter(|(name, _)| name == "?") {
                    *name = marker();
                }
                for (_, value) in members {
                    value.mark(next);
                }
            }
        }
    }

    /// Every marker with its path, and whether it is a name.
    fn markers(&self, path: &[String], found: &mut Vec<(String, Vec<String>, bool)>) {
        let at = |name: &str| {
            path.iter()
                .cloned()
                .chain([name.to_owned()])
                .collect::<Vec<_>>()
        };
        match self {
            Doc::Leaf(json) => {
                found.push((json.trim_matches('"').to_owned(), path.to_vec(), false));
            }
            Doc::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    element.markers(&at(&index.to_string()), found);
                }
            }
            Doc::Object(members) => {
                for (name, value) in members {
                    if name.starts_with('S') {
                        found.push((name.clone(), at(name), true));
                    }
                    value.markers(&at(name), found);
                }
            }
        }
    }
}

fn docs() -> impl Strategy<Value = Doc> {
    let leaf = Just(Doc::Leaf(String::new()));
    let name = prop::sample::select(vec!["a", "a", "b", "b", "0", "1", "", "?"]);
    let doc = leaf.prop_recursive(5, 48, 4, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Doc::Array),
            3 => prop::collection::vec((name.clone().prop_map(str::to_owned), inner), 0..5).prop_map(Doc::Object),
        ]
    });
    doc.prop_map(|mut doc| {
        doc.mark(&mut 0);
        doc
    })
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    let segment =
        prop::sample::select(vec!["a", "a", "b", "0", "1", "", "*", "*"]).prop_map(str::to_owned);
    (
        prop::collection::vec(segment, 0..5),
        prop::bool::weighted(0.35),
    )
        .prop_map(|(mut pattern, deep)| {
            pattern.extend(deep.then(|| "**".to_owned()));
            pattern
        })
}

fn models() -> impl Strategy<Value = Model> {
    let hides = || {
        prop::sample::select(vec![
            "\"drop\"",
            "\"drop\"",
            "\"pseudonym\"",
            r#"{"replace":"X"}"#,
            r#"{"replace":[]}"#,
        ])
        .prop_map(str::to_owned)
    };
    let allow = prop::collection::hash_set(patterns(), 0..6);
    let fields = prop::collection::hash_map(patterns(), hides(), 0..5);
    let model = (allow, hides(), fields).prop_map(|(allow, rest, fields)| Model {
        allow: allow.into_iter().collect(),
        rest,
        fields: fields.into_iter().collect(),
    });
    model.prop_map(|mut model| {
        // Without the paths that could never count, which would be refused.
        while Mask::parse(&model.json()).is_err() {
            if model.fields.pop().is_none() {
                break;
            }
        }
        model
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_left_is_what_the_rules_say(model in models(), doc in docs()) {
        let expected = model.left(&doc, &[], false).unwrap_or_else(|| "null".to_owned());
        prop_assert_eq!(left(&model.json(), &doc.json()), expected, "{} of {}", model.json(), doc.json());
    }

    #[test]
    fn no_secret_leaves_whatever_the_mask(model in models(), doc in docs()) {
        let left = left(&model.json(), &doc.json());
        let mut markers = Vec::new();
        doc.markers(&[], &mut markers);
        for (marker, path, is_name) in markers {
            let above = |pattern: &Vec<String>| (0..=path.len()).any(|length| fits(pattern, &path[..length]));
            let is_allowed = model.allow.iter().any(above);
            // Hidden by one path that no allowed one is within, and that no other of `fields` crosses.
            let is_hidden = model.fields.iter().any(|field| (0..=path.len()).any(|length| {
                let (here, (pattern, how)) = (&path[..length], field);
                let passes = |other: &Vec<String>| other.iter().zip(here).all(|(segment, name)| segment.starts_with('*') || segment == name);
                fits(pattern, here)
                    && (!is_name || length < path.len() || how == "\"drop\"")
                    && model.allowed().iter().all(|allow| pattern == allow || !passes(allow) || !is_within(allow, pattern))
                    && model.fields.iter().all(|(other, _)| other == pattern || !passes(other))
            }));
            // A path that ends at a name or goes past it shows the name.
            let is_passed = is_name && model.allow.iter().chain(model.fields.iter().map(|(pattern, _)| pattern)).any(|pattern| {
                pattern.iter().zip(&path).all(|(segment, name)| segment.starts_with('*') || segment == name)
                    && (is_deep(pattern) || pattern.len() >= path.len())
            });
            let is_left = left.contains(&marker);
            prop_assert!(!is_left || is_allowed || is_passed, "{marker} {} of {}: {left}", model.json(), doc.json());
            prop_assert!(!is_left || !is_hidden, "{marker} {} of {}: {left}", model.json(), doc.json());
        }
    }

    #[test]
    fn white_space_and_escapes_change_nothing_that_is_hidden(model in models(), doc in docs()) {
        let mask = mask(&model.json());
        let compact = doc.json();
        let spaced = compact.replace(':', " :\t").replace(',', "\n, ").replace('[', "[ ").replace('}', " }").replace("\"a\"", "\"\\u0061\"")
            .replace('S', "\\u0053");
        let (one, other) = (apply(&mask, &compact).unwrap().json, apply(&mask, &spaced).unwrap().json);
        let parsed = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        prop_assert_eq!(parsed(&one), parsed(&other));
        prop_assert_eq!(&other, &apply(&mask, &spaced).unwrap().json);
    }

    #[test]
    fn any_text_is_masked_or_refused_and_what_is_left_is_json(model in models(), text in r#"[\[\]{}":,0ab\\u é\t.-]{0,40}"#) {
        let is_json = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        match apply(&mask(&model.json()), &text) {
            Ok(masked) => prop_assert!(serde_json::from_str::<serde_json::Value>(&masked.json).is_ok() || text.contains("\\u")),
            Err(Refusal::Refuse(_)) => prop_assert!(!is_json),
            Err(Refusal::Hold(text)) => prop_assert!(false, "{text}"),
        }
    }

    #[test]
    fn every_mapped_id_is_asked_for_beforehand(patterns in prop::collection::hash_set(patterns(), 1..4), doc in docs()) {
        let fields: HashMap<_, _> = patterns.into_iter().map(|pattern| (pattern, r#"{"map":"k"}"#.to_owned())).collect();
        let model = Model { allow: vec![], rest: "\"drop\"".to_owned(), fields: fields.into_iter().collect() };
        if let Ok(mask) = Mask::parse(&model.json()) {
            let asked = std::cell::RefCell::new(Vec::new());
            let answer = |id: &Id| {
                if !asked.borrow().contains(id) {
                    asked.borrow_mut().push(id.clone());
                }
                Some("external".to_owned())
            };
            let applied = mask.apply(&doc.json(), &PseudonymKey::new(KEY), &answer);
            match mask.wanted(&doc.json()) {
                Ok(wanted) => prop_assert_eq!(wanted, asked.into_inner()),
                Err(refusal) => prop_assert_eq!(applied, Err(refusal)),
            }
        }
    }
}
