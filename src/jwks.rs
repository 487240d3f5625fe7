//! The public keys that receivers check signatures with, as a JSON Web Key Set (RFC 7517, RFC 8037).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

/// A key that verifies, and whose requests it verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The subscription's name.
    pub subscription: String,
    /// The secret's id, by which a receiver finds the key.
    pub key_id: Uuid,
    /// The key itself.
    pub public_key: [u8; 32],
}

/// The sets that are published: made once, given out often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySets {
    /// None where there are more keys than these.
    all: Option<Bytes>,
    of: BTreeMap<String, Bytes>,
}

impl KeySets {
    /// Of these keys, which keep their order.
    pub fn new(keys: &[Published]) -> Self {
        let mut grouped: BTreeMap<&str, Vec<&Published>> = BTreeMap::new();
        for key in keys {
            grouped.entry(&key.subscription).or_default().push(key);
        }
        let grouped = grouped.into_iter();
        Self {
            all: Some(set(keys.iter())),
            of: grouped
                .map(|(name, keys)| (name.to_owned(), set(keys.into_iter())))
                .collect(),
        }
    }

    /// Of the first of many keys, which come by subscription: a set that may lack a key is not in it.
    pub fn of_first(keys: &[Published]) -> Self {
        let cut = keys.last().map(|last| &last.subscription);
        let whole = keys.partition_point(|key| Some(&key.subscription) != cut);
        Self {
            all: None,
            ..Self::new(&keys[..whole])
        }
    }

    /// Whether every key is here.
    pub fn are_all(&self) -> bool {
        self.all.is_some()
    }

    /// Every key, unless there are more. Whoever trusts this set believes a request to one partner that was sent on to another.
    pub fn all(&self) -> Option<Bytes> {
        self.all.clone()
    }

    /// The keys of one subscription: what its partner is to trust. None where it has none.
    pub fn of(&self, subscription: &str) -> Option<Bytes> {
        self.of.get(subscription).cloned()
    }
}

/// The set of these keys, as JSON text.
pub fn published<'k>(keys: impl Iterator<Item = &'k Published>) -> String {
    let keys: Vec<(String, &[u8; 32])> = keys
        .map(|key| (key.key_id.to_string(), &key.public_key))
        .collect();
    jwks(keys.iter().map(|(id, key)| (id.as_str(), *key)))
}

fn set<'k>(keys: impl Iterator<Item = &'k Published>) -> Bytes {
    Bytes::from(published(keys))
}

/// The set of these Ed25519 keys, each with its id, in their order. Ids must differ: by them a receiver finds its key.
pub fn jwks<'k>(keys: impl Iterator<Item = (&'k str, &'k [u8; 32])>) -> String {
    let keys = keys.map(|(id, public)| {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(public),
            "use": "sig",
            "alg": "EdDSA",
            "kid": id,
        })
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::*;

    // RFC 8037, appendix A.2.
    const PUBLIC: [u8; 32] = [
        0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07,
        0x3a, 0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07,
        0x51, 0x1a,
    ];

    #[test]
    fn a_key_is_written_as_the_rfc_writes_it() {
        let set: Value = serde_json::from_str(&jwks([("k1", &PUBLIC)].into_iter())).unwrap();
        let expected = json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "use": "sig", "alg": "EdDSA", "kid": "k1",
        }] });
        assert_eq!(set, expected);
    }

    #[test]
    fn a_set_keeps_its_order_may_be_empty_and_no_id_breaks_it() {
        assert_eq!(jwks(std::iter::empty()), r#"{"keys":[]}"#);
        let ids = ["b", "a", "\"}]\n"];
        let set: Value =
            serde_json::from_str(&jwks(ids.into_iter().map(|id| (id, &PUBLIC)))).unwrap();
        let read = set["keys"].as_array().unwrap().iter();
        let read: Vec<_> = read.map(|key| key["kid"].as_str().unwrap()).collect();
        assert_eq!(read, ids);
    }

    #[test]
    fn each_subscription_has_a_set_of_its_own_and_none_without_keys() {
        let key = |subscription: &str, id: u128, byte: u8| Published {
            subscription: subscription.to_owned(),
            key_id: Uuid::from_u128(id),
            public_key: [byte; 32],
        };
        let keys = [key("bank", 1, 7), key("bank", 2, 8), key("port", 3, 9)];
        let sets = KeySets::new(&keys);
        let ids = |set: &[u8]| -> Vec<String> {
            let set: Value = serde_json::from_slice(set).unwrap();
            let keys = set["keys"].as_array().unwrap().iter();
            keys.map(|key| key["kid"].as_str().unwrap().to_owned())
                .collect()
        };
        let expected = |some: &[Published]| -> Vec<String> {
            some.iter().map(|key| key.key_id.to_string()).collect()
        };
        assert_eq!(ids(&sets.all().unwrap()), expected(&keys));
        assert_eq!(ids(&sets.of("bank").unwrap()), expected(&keys[..2]));
        assert_eq!(ids(&sets.of("port").unwrap()), expected(&keys[2..]));
        assert_eq!(sets.of("nobody"), None);
        assert_eq!(KeySets::new(&[]).all().unwrap(), r#"{"keys":[]}"#);

        let first = KeySets::of_first(&keys[..2]);
        assert_eq!((first.all(), first.of("bank")), (None, None));
        let first = KeySets::of_first(&keys);
        assert_eq!((first.all(), first.of("port")), (None, None));
        assert_eq!(ids(&first.of("bank").unwrap()), expected(&keys[..2]));
        assert!(sets.are_all() && !first.are_all());
    }
}
