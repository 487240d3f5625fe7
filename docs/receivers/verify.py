"""Verifies webhooks signed as Standard Webhooks, version 1. Copy this file; it needs nothing but Python 3.7 or later.

    problem = verify(secrets, headers, body)    # None: the request is genuine; else why it is not

`body` is the bytes as they came, before any JSON parser. Answer 401 to what is not genuine.
"""

import base64
import hashlib
import hmac
import re
import sys
import time
from pathlib import Path

TOLERANCE = 300  # seconds between the sender's clock and yours, either way


def verify(secrets, headers, body, now=None):
    """Returns None where one signature matches under one secret, else a word that says why not.

    `secrets`: a list of `whsec_...`, two during a rotation. `headers`: a mapping, in any case. `body`: bytes. `now`: Unix seconds.
    """
    keys = [key_of(secret) for secret in secrets]
    found = {name.lower(): value for name, value in headers.items()}
    message_id = found.get("webhook-id", "")
    timestamp = found.get("webhook-timestamp", "")
    signatures = [s for s in found.get("webhook-signature", "").split(" ") if s.startswith("v1,")]

    if not message_id:
        return "missing_id"
    if not timestamp:
        return "missing_timestamp"
    if not re.fullmatch("[0-9]{1,18}", timestamp):
        return "malformed_timestamp"
    age = (time.time() if now is None else now) - int(timestamp)
    if age > TOLERANCE:
        return "too_old"
    if age < -TOLERANCE:
        return "too_new"
    if not signatures:
        return "no_signature"

    content = f"{message_id}.{timestamp}.".encode() + body
    for key in keys:
        tag = hmac.new(key, content, hashlib.sha256).digest()
        expected = b"v1," + base64.b64encode(tag)
        # compare_digest takes the same time wherever the difference lies.
        if any(hmac.compare_digest(expected, offered.encode()) for offered in signatures):
            return None
    return "no_match"


def key_of(secret):
    """The key is what the part after `whsec_` is the base64 of, not its letters."""
    key = base64.b64decode(secret[len("whsec_"):], validate=True) if secret.startswith("whsec_") else b""
    if len(key) < 24:
        raise ValueError("a signing secret is whsec_ and the base64 of 24 bytes or more")
    return key


def check(folder):
    """Verifies a recorded delivery: a folder with the files headers, body, secrets and now."""
    lines = (folder / "headers").read_text("utf-8").splitlines()
    headers = {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
    secrets = (folder / "secrets").read_text("utf-8").split()
    now = int((folder / "now").read_text("utf-8"))
    return verify(secrets, headers, (folder / "body").read_bytes(), now)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        problem = check(Path(name))
        print("valid" if problem is None else f"invalid: {problem}")
