"""Verifies webhooks that are signed as other senders sign. Take the function of your profile, with what it calls, or copy the file; it
needs Python 3.7 or later, and `cryptography` (pip) for standard_v1a alone. The usual signatures are in verify.py.

    problem = github(secrets, headers, body)    # None: the request is genuine; else a word that says why not

`secrets`: a list, two during a rotation. `headers`: a mapping, in any case. `body`: the bytes as they came. `now`: Unix seconds.
Where no timestamp is signed (github, shopify, convoy_simple, prefixed), whoever saw a request can send it again for ever. And only
standard_v1a, svix_legacy and hook0 sign an id in a header: with the others, recognise repetitions by an id in the body.
"""

import base64
import hashlib
import hmac
import re
import sys
import time
from pathlib import Path

TOLERANCE = 300  # seconds between the sender's clock and yours, either way


def stripe(secrets, headers, body, now=None):
    """`stripe-signature: t=<seconds>,v1=<hex>[,v1=<hex>]` over `<seconds>.<body>`."""
    offered = parts(header(headers, "stripe-signature"))
    return timed(secrets, offered, b".", body, now)


def convoy(secrets, headers, body, now=None):
    """`x-convoy-signature: t=<seconds>,v1=<hex>[,v1=<hex>]` over `<seconds>,<body>`."""
    offered = parts(header(headers, "x-convoy-signature"))
    return timed(secrets, offered, b",", body, now)


def convoy_simple(secrets, headers, body, now=None):
    """`x-convoy-signature: <hex>` over the body."""
    return plain(secrets, header(headers, "x-convoy-signature"), body, bytes.hex)


def github(secrets, headers, body, now=None):
    """`x-hub-signature-256: sha256=<hex>` over the body."""
    return plain(secrets, after("sha256=", header(headers, "x-hub-signature-256")), body, bytes.hex)


def prefixed(secrets, headers, body, now=None, prefix="X-Platform"):
    """`<prefix>-Signature: sha256=<hex>` over the body; the prefix is the platform's own."""
    return plain(secrets, after("sha256=", header(headers, prefix + "-Signature")), body, bytes.hex)


def shopify(secrets, headers, body, now=None):
    """`x-shopify-hmac-sha256: <base64>` over the body."""
    return plain(secrets, header(headers, "x-shopify-hmac-sha256"), body, lambda tag: base64.b64encode(tag).decode())


def hook0(secrets, headers, body, now=None):
    """`x-hook0-signature: t=<seconds>,v0=<hex>,h=<names>,v1=<hex>`; v1 is over `<seconds>.<names>.<their values>.<body>`.

    Nothing in that tells where the id ends and the type begins, or where the type ends. So an id with a dot is nobody's, nor is a type
    that holds more than letters, digits, `.`, `_` and `-`: else whoever saw a request could send it again under another id.
    """
    offered = parts(header(headers, "x-hook0-signature"))
    message_id, event_type = header(headers, "x-event-id"), header(headers, "x-event-type")
    between = f".x-event-id x-event-type.{message_id}.{event_type}.".encode()
    is_clear = "." not in message_id and re.fullmatch("[A-Za-z0-9_.-]+", event_type)
    return timed(secrets, offered, between, body, now) or (None if is_clear else "no_match")


def svix_legacy(secrets, headers, body, now=None):
    """As standard_v1, under the names svix-id, svix-timestamp and svix-signature. The key is what the part after `whsec_` is the base64 of."""
    keys = [base64.b64decode(after("whsec_", secret)) for secret in secrets]
    if any(len(key) < 24 for key in keys):
        raise ValueError("a signing secret is whsec_ and the base64 of 24 bytes or more")

    def matches(content, offered):
        tags = [b"v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()) for key in keys]
        return any(hmac.compare_digest(tag, signature.encode()) for tag in tags for signature in offered)

    return listed("svix-", "v1,", headers, body, now, matches)


def standard_v1a(public_keys, headers, body, now=None):
    """Ed25519 over what standard_v1 signs; `whpk_` and base64 is the public key. The receiver holds nothing that could sign."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    keys = [Ed25519PublicKey.from_public_bytes(base64.b64decode(after("whpk_", key))) for key in public_keys]

    def is_by(key, content, signature):
        try:
            key.verify(base64.b64decode(after("v1a,", signature)), content)
            return True
        except (InvalidSignature, ValueError):
            return False

    def matches(content, offered):
        return any(is_by(key, content, signature) for key in keys for signature in offered)

    return listed("webhook-", "v1a,", headers, body, now, matches)


def plain(secrets, offered, body, written):
    if not offered:
        return "no_signature"
    return None if any_matches(secrets, body, [offered], written) else "no_match"


def timed(secrets, offered, between, body, now):
    timestamp = "".join(value for key, value in offered if key == "t")
    tags = [value for key, value in offered if key == "v1"]
    if not tags:
        return "no_signature"
    content = timestamp.encode() + between + body
    return out_of_time(timestamp, now) or (None if any_matches(secrets, content, tags, bytes.hex) else "no_match")


def listed(names, version, headers, body, now, matches):
    message_id, timestamp = header(headers, names + "id"), header(headers, names + "timestamp")
    offered = [entry for entry in header(headers, names + "signature").split(" ") if entry.startswith(version)]
    if not message_id:
        return "missing_id"
    problem = out_of_time(timestamp, now)
    if problem or not offered:
        return problem or "no_signature"
    return None if matches(f"{message_id}.{timestamp}.".encode() + body, offered) else "no_match"


def any_matches(secrets, content, offered, written):
    """The key is the secret's letters, all of them, `whsec_` included. compare_digest takes the same time wherever a difference lies."""
    if "" in secrets:
        raise ValueError("a secret is empty: anybody could sign under it")
    tags = [written(hmac.new(secret.encode(), content, hashlib.sha256).digest()) for secret in secrets]
    return any(hmac.compare_digest(tag.encode(), signature.encode()) for tag in tags for signature in offered)


def out_of_time(timestamp, now):
    if not timestamp:
        return "missing_timestamp"
    if not re.fullmatch("[0-9]{1,18}", timestamp):
        return "malformed_timestamp"
    age = (time.time() if now is None else now) - int(timestamp)
    if abs(age) <= TOLERANCE:
        return None
    return "too_old" if age > 0 else "too_new"


def header(headers, wanted):
    return next((value for name, value in headers.items() if name.lower() == wanted.lower()), "")


def parts(value):
    return [tuple(part.strip().split("=", 1)) for part in value.split(",") if "=" in part]


def after(start, text):
    return text[len(start):] if text.startswith(start) else ""


def check(folder):
    """Verifies a recorded delivery: a folder with the files headers, body, secrets and now, in one that is called as its profile is."""
    lines = (folder / "headers").read_text("utf-8").splitlines()
    headers = {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
    secrets = (folder / "secrets").read_text("utf-8").splitlines()
    now = int((folder / "now").read_text("utf-8"))
    return globals()[folder.parent.name](secrets, headers, (folder / "body").read_bytes(), now)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        problem = check(Path(name))
        print("valid" if problem is None else f"invalid: {problem}")
