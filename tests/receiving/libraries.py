"""What the libraries that people already use make of recorded deliveries: `libraries.py NAME FOLDER...` prints a verdict for each."""

import datetime
import importlib
import sys
import time
from pathlib import Path

library = importlib.import_module(sys.argv[1])


def verified_by_standard(secret, body, headers, now):
    from standardwebhooks import webhooks as clocked  # svix verifies with it, too

    clocked.datetime = type("Clock", (datetime.datetime,), {"now": staticmethod(lambda tz: datetime.datetime.fromtimestamp(now, tz=tz))})
    library.Webhook(secret).verify(body, headers)


def verified_by_stripe(secret, body, headers, now):
    time.time = lambda: now
    library.WebhookSignature.verify_header(body, headers.get("stripe-signature"), secret, tolerance=300)


def genuine(folder):
    lines = (folder / "headers").read_text("utf-8").splitlines()
    headers = {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
    now = int((folder / "now").read_text())
    secrets = (folder / "secrets").read_text().splitlines()
    return any(passes(secret, (folder / "body").read_bytes(), headers, now) for secret in secrets)


def passes(secret, body, headers, now):
    try:
        verify = verified_by_stripe if sys.argv[1] == "stripe" else verified_by_standard
        verify(secret, body, headers, now)
        return True
    except Exception:
        return False


for folder in sys.argv[2:]:
    print("valid" if genuine(Path(folder)) else "invalid")
