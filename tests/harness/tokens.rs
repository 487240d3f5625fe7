//! What it takes to be let in: a token server, and the secret parts of what workers show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use posthaste::secret::CredentialKind;
use posthaste::trial::partner::{Received, Replies, Reply};
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Partner, World};

/// An OAuth 2 server at `/token`, over HTTPS. The tokens that it gives are `CANARY-token-1` and so on.
pub(crate) struct TokenServer {
    partner: Partner,
    given: Arc<AtomicU64>,
}

impl TokenServer {
    /// Its tokens last so many seconds.
    pub(crate) async fn start(lasts: u64) -> Self {
        let server = Self {
            partner: Partner::replying(Reply::Hang).await,
            given: Arc::default(),
        };
        server.issue(lasts);
        server
    }

    /// Gives tokens from now on that last so many seconds.
    pub(crate) fn issue(&self, lasts: u64) {
        let given = Arc::clone(&self.given);
        self.partner.set_reply(Replies::by(move |_| {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            let token = format!("CANARY-token-{number}");
            answer(
                200,
                &json!({"access_token": token, "token_type": "bearer", "expires_in": lasts}),
            )
        }));
    }

    /// Answers like this from now on.
    pub(crate) fn reply(&self, reply: Reply) {
        self.partner.set_reply(reply);
    }

    /// How many requests came.
    pub(crate) fn asked(&self) -> u64 {
        self.partner.count()
    }

    /// The requests.
    pub(crate) fn received(&self) -> Vec<Arc<Received>> {
        self.partner.received()
    }

    /// Once so many requests have come.
    pub(crate) async fn wait_for(&self, count: u64) {
        self.partner.wait_for(count).await;
    }

    pub(crate) fn url(&self) -> String {
        self.partner.url("/token")
    }

    /// The change of terms that makes a subscription use it, with `more` in its authentication.
    pub(crate) fn change(&self, more: &Value) -> String {
        let mut term =
            json!({"kind": "oauth2", "token_url": self.url(), "client_id": "us:and them"});
        let more = more.as_object().unwrap().clone();
        term.as_object_mut().unwrap().extend(more);
        json!({"authentication": term}).to_string()
    }
}

/// A JSON answer.
pub(crate) fn answer(status: u16, body: &Value) -> Reply {
    Reply::StatusWith {
        status,
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from(body.to_string()),
    }
}

impl World {
    /// Stores what a subscription shows to its endpoint: the secret part of its authentication, or the key of its certificate.
    pub(crate) async fn import(&self, name: &str, id: i32, kind: CredentialKind, secret: &str) {
        let secret_id = Uuid::now_v7();
        let keyring = self.config(&[]).keyring().unwrap();
        let sealed = keyring
            .seal_credential(kind, id, secret_id, secret)
            .unwrap();
        let called = match kind {
            CredentialKind::Authentication => ":authentication",
            CredentialKind::ClientKey => ":client_key",
            CredentialKind::Header => panic!("that is what set_credential is for"),
        };
        let set = "select posthaste.set_credential($1, $2, $3, $4, $5, 'a trial')";
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &name,
            &called,
            &secret_id,
            &sealed.key_id,
            &sealed.ciphertext,
        ];
        self.db.execute(set, parameters).await.unwrap();
    }

    /// Every row of every table, as text.
    pub(crate) async fn dump(&self) -> String {
        let tables = "select oid::regclass::text from pg_class where relkind = 'r' and relnamespace = 'posthaste'::regnamespace";
        let mut dump = String::new();
        for table in self.db.query(tables, &[]).await.unwrap() {
            let table: String = table.get(0);
            let rows = format!("select string_agg(t::text, E'\\n') from {table} t");
            dump += &self.text(&rows).await;
        }
        dump
    }
}
