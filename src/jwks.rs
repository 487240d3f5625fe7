//! The public keys that receivers check signatures with, as a JSON Web Key Set (RFC 7517, RFC 8037).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

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
}
