"""What the libraries that people already use make of recorded deliveries: `libraries.py NAME FOLDER...` prints a verdict for each."""

import datetime
import importlib
import sys
from pathlib import Path

from standardwebhooks import webhooks as clocked  # svix verifies with it, too

library = importlib.import_module(sys.argv[1])


def genuine(folder):
    lines = (folder / "headers").read_text("utf-8").splitlines()
    headers = {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}
    now = datetime.datetime.fromtimestamp(int((folder / "now").read_text()), tz=datetime.timezone.utc)
    clocked.datetime = type("Clock", (datetime.datetime,), {"now": staticmethod(lambda tz: now)})
    body = (folder / "body").read_bytes()
    return any(passes(secret, body, headers) for secret in (folder / "secrets").read_text().split())


def passes(secret, body, headers):
    try:
        library.Webhook(secret).verify(body, headers)
        return True
    except Exception:
        return False


for folder in sys.argv[2:]:
    print("valid" if genuine(Path(folder)) else "invalid")
