"""A whole receiver, to try things out with: verifies, stores, answers, and does the work afterwards. `server.py PORT`, next to verify.py.

WEBHOOK_SECRETS holds the signing secrets, separated by spaces; inbox.db holds what came. Real ones stand behind a server that speaks HTTPS.
"""

import os
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from verify import verify

SECRETS = os.environ["WEBHOOK_SECRETS"].split()
MOST_BYTES = 2 << 20
INBOX = "create table if not exists inbox (webhook_id text primary key, body blob not null, done boolean not null default false)"


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.answer(self.receive())

    def receive(self):
        length = int(self.headers.get("content-length", "0"))
        if not 0 < length <= MOST_BYTES:
            return 413
        body = self.rfile.read(length)
        # Of a header that came twice the last one counts, for the signature and for all that follows.
        headers = {name.lower(): value for name, value in self.headers.items()}
        problem = verify(SECRETS, headers, body)
        if problem is not None:
            self.log_error("not genuine: %s", problem)
            return 401
        if headers.get("webhook-test") == "true":
            return 204
        try:
            # Once for each id, however often it comes. Committed before we answer.
            with sqlite3.connect("inbox.db") as inbox:
                inbox.execute("insert or ignore into inbox (webhook_id, body) values (?, ?)", (headers["webhook-id"], body))
        except sqlite3.Error as error:
            self.log_error("not stored: %s", error)
            return 503  # it comes again
        return 204

    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()


if __name__ == "__main__":
    sqlite3.connect("inbox.db").execute(INBOX)
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
