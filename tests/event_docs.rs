//! The page of events that receivers are given is the catalogue, and nothing but what concerns them.

use serde_json::{Value, json};

use crate::harness::{Login, Said, World, posthaste};

#[tokio::test]
async fn the_page_tells_each_event_with_its_fields_its_schema_and_its_example() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    fill(&ada).await;
    let said = docs(&ada, &["certificate.*"]).await;
    assert_eq!(said.done(), CERTIFICATES);
    let auditor = world.login("posthaste_auditor").await;
    assert_eq!(
        docs(&auditor, &["certificate.*"]).await.done(),
        CERTIFICATES
    );
}

#[tokio::test]
async fn it_has_what_is_active_and_was_asked_for() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    fill(&ada).await;
    for (arguments, names) in [
        (&["--json"][..], &["certificate.issued", "order.paid"][..]),
        (
            &["--json", "--inactive"],
            &["certificate.issued", "certificate.lost", "order.paid"],
        ),
        (
            &["--json", "order.paid", "certificate.*"],
            &["certificate.issued", "order.paid"],
        ),
        (
            &["--json", "posthaste.breaker.*"],
            &["posthaste.breaker.closed", "posthaste.breaker.opened"],
        ),
    ] {
        let said = docs(&ada, arguments).await;
        let listed: Value = serde_json::from_str(said.done()).unwrap();
        let listed = listed.as_array().unwrap().iter();
        let listed: Vec<&str> = listed
            .map(|kind| kind["event_type"].as_str().unwrap())
            .collect();
        assert_eq!(listed, names, "{arguments:?}");
    }
    docs(&ada, &["certificate.lost"])
        .await
        .denied_with("no event type in the catalogue matches certificate.lost");
}

#[tokio::test]
async fn scripts_get_the_same_as_json() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    fill(&ada).await;
    let said = docs(&ada, &["--json", "certificate.issued"]).await;
    let listed: Value = serde_json::from_str(said.done()).unwrap();
    let kind = &listed[0];
    assert_eq!(
        (&kind["deprecated"], &kind["revision"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(kind["fields"][0]["field"], "/certificate");
    assert_eq!(kind["schema"]["properties"]["certificate"]["minimum"], 1);
    assert_eq!(kind["example"]["certificate"], 42);
    for hidden in ["owner", "created_by"] {
        assert!(kind.get(hidden).is_none(), "{hidden}");
    }
}

async fn fill(admin: &Login) {
    admin.run(CATALOGUE).await;
}

async fn docs(login: &Login, arguments: &[&str]) -> Said {
    let arguments = [&["event-type", "docs"], arguments].concat();
    posthaste(&arguments, &[("DATABASE_URL", &login.url)], "").await
}

const CATALOGUE: &str = r#"
    select posthaste.create_event_type('certificate.issued', 'A certificate was issued | at last', owner => 'the office', schema => '{
            "type": "object", "deprecated": true, "required": ["certificate"],
            "properties": {"student": {"type": "object", "properties": {"name": {"type": ["string", "null"], "description": "As on the certificate"}}},
                           "certificate": {"type": "integer", "minimum": 1, "description": "Its number"}}}',
        example => '{"student": {"name": "Ada"}, "certificate": 42, "weight": 1.10}');
    select posthaste.create_event_type('certificate.lost', 'Nobody knows where it is');
    select posthaste.change_event_type('certificate.lost', '{"active": false}', 'found');
    select posthaste.create_event_type('order.paid', 'An order was paid');
"#;

/// The order of keys and the digits of numbers are those that were given.
const CERTIFICATES: &str = r#"# Events

What can be sent to you. Each event comes as `{"type":…,"timestamp":…,"data":…}`, unless another envelope was agreed with you: `type` is a name from this
page, and what the page says of fields is about `data`, before a mask that may have been agreed. A field is named by its JSON Pointer, in which `*` stands for each element of an array, or for each key of an object.

| event type | what it means | |
| --- | --- | --- |
| [certificate.issued](#certificateissued) | A certificate was issued \| at last | deprecated |

## certificate.issued

A certificate was issued | at last

**Deprecated:** it is still sent; build nothing new on it.

| field | type | required | what it is |
| --- | --- | --- | --- |
| `/certificate` | integer, at least 1 | yes | Its number |
| `/student` | object | no |  |
| `/student/name` | string or null | no | As on the certificate |

Its JSON Schema, revision 1:

```json
{
  "type": "object",
  "deprecated": true,
  "required": [
    "certificate"
  ],
  "properties": {
    "student": {
      "type": "object",
      "properties": {
        "name": {
          "type": [
            "string",
            "null"
          ],
          "description": "As on the certificate"
        }
      }
    },
    "certificate": {
      "type": "integer",
      "minimum": 1,
      "description": "Its number"
    }
  }
}
```

An example of `data`:

```json
{
  "student": {
    "name": "Ada"
  },
  "certificate": 42,
  "weight": 1.10
}
```
"#;
