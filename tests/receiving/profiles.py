"""Which keys made the signatures of one request, by what each sender's documentation says: its receivers' arithmetic, and where they are
installed their libraries. Reads {"headers", "body" (base64), "secrets", "public_keys" (base64), "prefix"} from standard input and prints, for
each profile whose header is there, the places of the keys that verify it."""

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import tempfile
from pathlib import Path

request = json.load(sys.stdin)
headers = request["headers"]
body = base64.b64decode(request["body"])
secrets = request["secrets"]


def tag(key, message):
    return hmac.new(key, message, hashlib.sha256).digest()


def places(keys, verifies):
    return [place for place, key in enumerate(keys) if verifies(key)]


def by_string(expected, given):
    """Their key is the secret's text itself."""
    return places(secrets, lambda secret: any(hmac.compare_digest(expected(secret.encode()), g) for g in given))


def standard(prefix):
    """(v1 by shared secrets, v1a by public keys)"""
    signed = f"{headers[prefix + '-id']}.{headers[prefix + '-timestamp']}.".encode() + body
    offered = [part.split(",", 1) for part in headers[prefix + "-signature"].split(" ")]
    v1 = [base64.b64decode(value) for version, value in offered if version == "v1"]
    v1a = [base64.b64decode(value) for version, value in offered if version == "v1a"]
    shared = places(secrets, lambda s: s.startswith("whsec_") and tag(base64.b64decode(s[6:]), signed) in v1)
    public = places(request["public_keys"], lambda key: any(ed25519(base64.b64decode(key), signed, s) for s in v1a))
    assert len(shared) <= len(v1) and len(public) <= len(v1a)
    return shared, public


def ed25519(key, message, signature):
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        # What makes 32 bytes a SubjectPublicKeyInfo.
        (place / "key").write_bytes(bytes.fromhex("302a300506032b6570032100") + key)
        (place / "message").write_bytes(message)
        (place / "signature").write_bytes(signature)
        command = "openssl pkeyutl -verify -pubin -inkey key -keyform DER -rawin -in message -sigfile signature"
        return subprocess.run(command.split(), cwd=place, capture_output=True).returncode == 0


def items(value):
    return [item.split("=", 1) for item in value.split(",")]


def of(value, name):
    return [content for key, content in items(value) if key == name]


def timed(value, separator):
    stamp = of(value, "t")[0].encode()
    given = [bytes.fromhex(v) for v in of(value, "v1")]
    return by_string(lambda key: tag(key, stamp + separator + body), given)


def hook0(value):
    stamp = of(value, "t")[0]
    names = of(value, "h")[0]
    head = ".".join([names] + [headers[name] for name in names.split(" ")])
    older = by_string(lambda key: tag(key, f"{stamp}.".encode() + body), [bytes.fromhex(of(value, "v0")[0])])
    newer = by_string(lambda key: tag(key, f"{stamp}.{head}.".encode() + body), [bytes.fromhex(of(value, "v1")[0])])
    assert older == newer
    return newer


def plain(value):
    return by_string(lambda key: tag(key, body), [value])


def libraries(found):
    """What their own libraries say must be the same."""
    def agrees(name, verify):
        assert places(secrets, verify) == found[name], name

    def passes(check):
        try:
            check()
            return True
        except Exception:
            return False

    for name, module in [("standard_v1", "standardwebhooks"), ("svix_legacy", "svix")]:
        if name in found and (library := installed(module)):
            agrees(name, lambda s: passes(lambda: library.Webhook(s).verify(body, headers)))
    if "stripe" in found and (stripe := installed("stripe")):
        agrees("stripe", lambda s: passes(lambda: stripe.WebhookSignature.verify_header(body.decode(), headers["stripe-signature"], s, 300)))


def installed(module):
    try:
        return __import__(module)
    except ImportError:
        return None


found = {}
if "webhook-signature" in headers:
    found["standard_v1"], found["standard_v1a"] = standard("webhook")
if "svix-signature" in headers:
    found["svix_legacy"] = standard("svix")[0]
if "stripe-signature" in headers:
    found["stripe"] = timed(headers["stripe-signature"], b".")
if "x-convoy-signature" in headers:
    value = headers["x-convoy-signature"]
    found["convoy"] = timed(value, b",") if value.startswith("t=") else plain(bytes.fromhex(value))
if "x-hook0-signature" in headers:
    found["hook0"] = hook0(headers["x-hook0-signature"])
if "x-shopify-hmac-sha256" in headers:
    found["shopify"] = plain(base64.b64decode(headers["x-shopify-hmac-sha256"]))
for name, header in [("github", "x-hub-signature-256"), ("prefixed", request["prefix"] + "-signature")]:
    if header in headers:
        algorithm, value = headers[header].split("=", 1)
        assert algorithm == "sha256"
        found[name] = plain(bytes.fromhex(value))
libraries(found)
for name, by in sorted(found.items()):
    print(name, *by)
