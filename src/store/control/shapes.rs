//! What requests look like, for those who agree on it: envelopes, and previews of what would be sent.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Control, Proposed, proposed};
use crate::delivery::ExternalIds;
use crate::mask::Id;
use crate::secret::Sealed;
use crate::store::StoredShape;
use crate::store::shapes::external_id;
use crate::{Error, Result};

/// An event and the terms that it would be sent on.
#[derive(Debug)]
pub struct Source {
    /// Which subscription; one that is only proposed has its id already.
    pub subscription_id: i32,
    /// The terms, under the names of `posthaste.terms`.
    pub terms: Value,
    /// The event's type.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: SystemTime,
    /// Its data, JSON text.
    pub payload: String,
    /// Its metadata, JSON text.
    pub metadata: Option<String>,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Its trace context.
    pub traceparent: Option<String>,
    /// Whether it is for that subscription at all.
    pub is_meant: bool,
    /// The key of its partner's pseudonyms, where there is a mask and the key was made.
    pub partner_key: Option<(Uuid, Sealed)>,
}

/// An envelope that is to be.
#[derive(Clone, Debug)]
pub struct EnvelopeProposal {
    /// What it is called.
    pub name: String,
    /// The template of the body.
    pub template: String,
    /// The media type of the body.
    pub content_type: String,
    /// Templates of headers.
    pub headers: BTreeMap<String, String>,
    /// For whoever chooses one.
    pub description: Option<String>,
    /// Why it is proposed.
    pub reason: Option<String>,
}

impl Control {
    /// An event for a preview of what a subscription would get of it, on the terms that stand or on those that an open change
    /// proposes. That it was looked at is committed to the audit log before it is read.
    pub async fn preview_source(
        &self,
        subscription: &str,
        event_id: Uuid,
        reason: &str,
        change_id: Option<i64>,
    ) -> Result<Source> {
        let parameters: &[&(dyn ToSql + Sync)] = &[&subscription, &event_id, &reason, &change_id];
        let asked = self.row(ASK_TO_PREVIEW, parameters).await?;
        let entry: i64 = asked.try_get(0)?;
        source(&self.row(PREVIEW_SOURCE, &[&entry]).await?)
    }

    /// What terms say of the look of requests, with the envelope that they name.
    pub async fn shape_of(&self, terms: &Value) -> Result<StoredShape> {
        let called = terms["envelope"].as_str().unwrap_or_default();
        let envelope = self.envelope(called).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let names = terms["signatures"].as_array().into_iter().flatten();
        Ok(StoredShape {
            template: text(&envelope["template"]).unwrap_or_default(),
            content_type: text(&envelope["content_type"]).unwrap_or_default(),
            headers: texts(&envelope["headers"]).collect(),
            values: texts(&terms["envelope_values"]).collect(),
            signatures: names.filter_map(text).collect(),
            header_prefix: text(&terms["header_prefix"]),
            user_agent: text(&terms["user_agent"]),
            pass_trace: terms["pass_trace"].as_bool().unwrap_or_default(),
        })
    }

    /// What a partner calls these, of those that it has a name for.
    pub async fn external_ids(&self, partner: &str, wanted: &[Id]) -> Result<ExternalIds> {
        let kinds: Vec<&str> = wanted.iter().map(|id| &*id.kind).collect();
        let internals: Vec<&str> = wanted.iter().map(|id| id.internal.as_str()).collect();
        let rows = self.query(ID_MAP, &[&partner, &kinds, &internals]).await?;
        rows.iter().map(external_id).collect()
    }

    /// All envelopes, by name and version.
    pub async fn envelopes(&self) -> Result<Vec<Value>> {
        self.rows(ENVELOPES, &[&None::<&str>]).await
    }

    /// One envelope, `name@version`, or the newest of a name.
    pub async fn envelope(&self, called: &str) -> Result<Value> {
        let found = self.rows(ENVELOPES, &[&Some(called)]).await?;
        let text = || format!("there is no envelope {called:?}; see `posthaste envelope list`");
        found
            .into_iter()
            .next_back()
            .ok_or_else(|| Error::Refused(text()))
    }

    /// Proposes an envelope, or a new version of one.
    pub async fn propose_envelope(&self, proposal: &EnvelopeProposal) -> Result<Proposed> {
        let headers = serde_json::json!(proposal.headers).to_string();
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &proposal.name,
            &proposal.template,
            &proposal.content_type,
            &headers,
            &proposal.description,
            &proposal.reason,
        ];
        proposed(&self.row(PROPOSE_ENVELOPE, parameters).await?)
    }
}

fn source(row: &Row) -> Result<Source> {
    let terms: String = row.try_get("terms")?;
    let key_id: Option<String> = row.try_get("partner_key_id")?;
    let partner_key = match key_id {
        None => None,
        Some(key_id) => {
            let ciphertext = row.try_get("partner_ciphertext")?;
            Some((
                row.try_get("partner_secret_id")?,
                Sealed { key_id, ciphertext },
            ))
        }
    };
    Ok(Source {
        subscription_id: row.try_get("subscription_id")?,
        terms: serde_json::from_str(&terms)
            .map_err(|error| Error::Database(format!("the terms are no JSON text: {error}")))?,
        event_type: row.try_get("event_type")?,
        occurred_at: row.try_get("occurred_at")?,
        payload: row.try_get("payload")?,
        metadata: row.try_get("metadata")?,
        tenant: row.try_get("tenant")?,
        traceparent: row.try_get("traceparent")?,
        is_meant: row.try_get("is_meant")?,
        partner_key,
    })
}

/// The members of an object that are texts.
fn texts(object: &Value) -> impl Iterator<Item = (String, String)> {
    let members = object.as_object().into_iter().flatten();
    members.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
}

const ASK_TO_PREVIEW: &str = include_str!("../../../sql/queries/control/ask_to_preview.sql");
const PREVIEW_SOURCE: &str = include_str!("../../../sql/queries/control/preview_source.sql");
const ID_MAP: &str = include_str!("../../../sql/queries/control/id_map.sql");
const ENVELOPES: &str = include_str!("../../../sql/queries/control/envelopes.sql");
const PROPOSE_ENVELOPE: &str = include_str!("../../../sql/queries/control/propose_envelope.sql");
