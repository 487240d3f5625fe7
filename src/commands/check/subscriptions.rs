//! What keeps single subscriptions from being delivered to, or will soon, or makes their requests worth less.

use jiff::{SignedDuration, Timestamp};
use posthaste::config::Config;
use posthaste::envelope::Envelope;
use posthaste::logging::escaped;
use posthaste::mask::Mask;
use posthaste::secret::{CredentialKind, Keyring, Sealed, SecretKind};
use posthaste::sender::ClientIdentity;
use posthaste::signature::Profile;
use posthaste::store::{Store, StoredTerms, StoredValue};
use posthaste::{Error, Result};
use uuid::Uuid;

use super::{Finding, Level};
use crate::commands::certificate::Certificate;
use crate::commands::output::typed;

/// Everything there is to say of the subscriptions, what fails first; or that there is nothing.
pub(super) async fn of_subscriptions(config: &Config, store: &Store) -> Result<Vec<Finding>> {
    // That the keys cannot be read is said elsewhere.
    let Ok(keyring) = config.keyring() else {
        return Ok(Vec::new());
    };
    let (mut findings, mut count, mut after) = (Vec::new(), 0, i32::MIN);
    loop {
        let ids = store.subscriptions_to_check(after, AT_ONCE).await?;
        let Some(last) = ids.last() else { break };
        after = *last;
        for terms in store.terms(&ids).await? {
            count += 1;
            findings.extend(of_terms(&terms, &keyring, Timestamp::now()));
        }
    }
    if findings.is_empty() {
        let text = format!("{count}, with all that their terms need");
        return Ok(vec![Level::Fine.says("subscriptions", text)]);
    }
    Ok(shortened(findings))
}

/// What fails first, and no more than people read.
fn shortened(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by_key(|finding| finding.level != Level::Fails);
    if findings.len() > MOST {
        let (left, level) = (findings.len() - MOST, findings[MOST].level);
        findings.truncate(MOST);
        findings.push(level.says("subscriptions", format!("{left} more such lines")));
    }
    findings
}

fn of_terms(terms: &StoredTerms, keyring: &Keyring, now: Timestamp) -> Vec<Finding> {
    let subject = Subject { terms, keyring };
    let mut findings = subject.signatures();
    findings.extend(subject.headers());
    findings.extend(subject.authentication());
    findings.extend(subject.certificate(now));
    findings.extend(subject.envelope());
    findings.extend(subject.mask());
    findings
}

/// One subscription.
struct Subject<'t> {
    terms: &'t StoredTerms,
    keyring: &'t Keyring,
}

impl Subject<'_> {
    fn signatures(&self) -> Vec<Finding> {
        let names = &self.terms.shape.signatures;
        let profiles: Result<Vec<Profile>> = names.iter().map(|it| Profile::parse(it)).collect();
        let profiles = match profiles {
            Ok(profiles) => profiles,
            Err(error) => return vec![self.fails("signatures", error, &self.change("signatures"))],
        };
        let mut findings = Vec::new();
        if !profiles.is_empty() && profiles.iter().all(|profile| profile.is_replayable()) {
            let why = format!(
                "{} binds no time: whoever saw a request can send it again for ever",
                names.join(", ")
            );
            let add = format!("{}, with standard_v1 besides", self.change("signatures"));
            findings.push(self.warns("signatures", &why, &add));
        }
        findings.extend(profiles.into_iter().filter_map(|it| self.secret_for(it)));
        findings
    }

    /// Whether some live secret is of a kind that this profile takes; that there is none at all is said by `status`.
    fn secret_for(&self, profile: Profile) -> Option<Finding> {
        let StoredTerms {
            secrets, asked_for, ..
        } = self.terms;
        let asked_for = asked_for.iter();
        let kinds: Vec<SecretKind> = asked_for
            .filter_map(|asked| SecretKind::parse(&asked.kind).ok())
            .chain(secrets.iter().map(|secret| secret.kind))
            .collect();
        if kinds.is_empty() || kinds.iter().any(|kind| profile.takes(*kind)) {
            return None;
        }
        let kind = if profile.takes(SecretKind::Shared) {
            SecretKind::Shared
        } else {
            SecretKind::Ed25519
        };
        let (why, name) = (
            format!("no live secret can sign for {profile}, so nothing is sent"),
            self.name(),
        );
        let todo = format!("`posthaste secret rotate {name} --kind {kind}`");
        Some(self.warns("signatures", &why, &todo))
    }

    fn headers(&self) -> Vec<Finding> {
        let header = |(name, value): &(String, StoredValue)| {
            let StoredValue::Secret(stored) = value else {
                return None;
            };
            let flag = format!("--header {}", typed(name));
            let what = format!("the secret header {name}");
            self.credential(CredentialKind::Header, &what, &flag, stored.as_ref())
        };
        self.terms.headers.iter().filter_map(header).collect()
    }

    fn authentication(&self) -> Option<Finding> {
        self.terms.authentication.as_ref()?;
        self.credential(
            CredentialKind::Authentication,
            "the secret part of the authentication",
            "--authentication",
            self.terms.credential.as_ref(),
        )
    }

    fn certificate(&self, now: Timestamp) -> Vec<Finding> {
        let Some(pem) = &self.terms.client_certificate else {
            return Vec::new();
        };
        let stored = self.terms.client_key.as_ref();
        let (kind, what) = (
            CredentialKind::ClientKey,
            "the key of the client certificate",
        );
        let mut findings = Vec::from_iter(self.credential(kind, what, KEY_FLAG, stored));
        if let Some(Ok(key)) = stored.map(|stored| self.open(kind, stored))
            && let Err(error) = ClientIdentity::from_pem(pem.as_bytes(), key.as_bytes())
        {
            findings.push(self.fails("certificates", error, &self.import(KEY_FLAG)));
        }
        findings.extend(self.end(pem, now));
        findings
    }

    /// Whether the certificate has ended or soon will.
    fn end(&self, pem: &str, now: Timestamp) -> Option<Finding> {
        let todo = format!(
            "{} with a new certificate, then {}",
            self.change("tls"),
            self.import(KEY_FLAG)
        );
        let Some(read) = Certificate::read(pem) else {
            return Some(self.fails("certificates", "it cannot be read", &todo));
        };
        let when = format!("the client certificate of {} ", read.subject);
        if read.ends <= now {
            let why = format!("{when}ended at {}", read.end());
            return Some(self.fails("certificates", why, &todo));
        }
        let is_soon = now.duration_until(read.ends) < SOON;
        let why = format!("{when}ends at {}", read.end());
        is_soon.then(|| self.warns("certificates", &why, &todo))
    }

    fn envelope(&self) -> Option<Finding> {
        let shape = &self.terms.shape;
        let headers: Vec<(&str, &str)> = shape
            .headers
            .iter()
            .map(|(name, template)| (name.as_str(), template.as_str()))
            .collect();
        let read = Envelope::parse(
            &shape.template,
            &shape.content_type,
            &headers,
            &shape.values,
        );
        let error = read.err()?;
        Some(self.fails("envelopes", error, &self.change("envelope")))
    }

    fn mask(&self) -> Vec<Finding> {
        let Some(mask) = &self.terms.mask else {
            return Vec::new();
        };
        let error = Mask::parse(mask).err();
        let mut findings =
            Vec::from_iter(error.map(|error| self.fails("masks", error, &self.change("mask"))));
        let key = self.terms.partner_key.as_ref();
        let opened =
            key.map(|(secret_id, sealed)| self.keyring.open_partner_key(*secret_id, sealed));
        if let Some(Err(error)) = opened {
            let what = format!(
                "the key of the pseudonyms of {:?}: {error}",
                self.terms.partner
            );
            findings.push(self.fails("masks", what, KEY_BACK));
        }
        findings
    }

    /// What is missing, or does not open.
    fn credential(
        &self,
        kind: CredentialKind,
        what: &str,
        flag: &str,
        stored: Option<&(Uuid, Sealed)>,
    ) -> Option<Finding> {
        let Some(stored) = stored else {
            let why = format!("{what} has not been imported yet, so nothing is sent");
            return Some(self.warns("credentials", &why, &self.import(flag)));
        };
        let error = self.open(kind, stored).err()?;
        let todo = format!("{KEY_BACK}, or {}", self.import(flag));
        Some(self.fails("credentials", format!("{what}: {error}"), &todo))
    }

    fn open(
        &self,
        kind: CredentialKind,
        (secret_id, sealed): &(Uuid, Sealed),
    ) -> std::result::Result<zeroize::Zeroizing<String>, Error> {
        let id = self.terms.subscription_id;
        self.keyring.open_credential(kind, id, *secret_id, sealed)
    }

    fn import(&self, flag: &str) -> String {
        format!("`posthaste secret import {} {flag} ...`", self.name())
    }

    fn change(&self, term: &str) -> String {
        let name = self.name();
        format!("`posthaste subscription change {name}`, term {term}")
    }

    fn name(&self) -> String {
        typed(&self.terms.name)
    }

    fn warns(&self, about: &'static str, why: &str, todo: &str) -> Finding {
        self.says(Level::Warns, about, why, todo)
    }

    fn fails(&self, about: &'static str, why: impl std::fmt::Display, todo: &str) -> Finding {
        self.says(Level::Fails, about, &why.to_string(), todo)
    }

    fn says(&self, level: Level, about: &'static str, why: &str, todo: &str) -> Finding {
        let text = format!("{}: {why}; {todo}", self.terms.name);
        level.says(about, escaped(&text))
    }
}

/// Subscriptions read at once.
const AT_ONCE: usize = 200;
/// Lines about subscriptions.
const MOST: usize = 100;
/// How long before its end a certificate is spoken of.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
const KEY_FLAG: &str = "--client-key";
const KEY_BACK: &str = "give the keyring the key that it was encrypted with";
