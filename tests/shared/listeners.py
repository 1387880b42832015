"""Who is told of alerts: a web server and a mail server of the tests' own, where the scenario's inventory says."""

from __future__ import annotations

import json
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

ADDRESS = "10.89.77.1"  # this machine, as the test hosts see it
WEB_PORT, MAIL_PORT = 9480, 9425
TOKEN = "a-token-of-our-own"

Json = dict[str, Any]


class Listeners:
    """Keeps what arrives, in the order in which it does."""

    def __init__(self) -> None:
        self.messages: list[Json] = []
        self.mails: list[EmailMessage] = []
        kept = self.messages

        class Handler(BaseHTTPRequestHandler):
            """Takes what is sent by who has the token."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                allowed = self.headers["Authorization"] == f"Bearer {TOKEN}"
                if allowed:
                    kept.append(json.loads(body))
                self.send_response(200 if allowed else 401)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.web = ThreadingHTTPServer((ADDRESS, WEB_PORT), Handler)
        self.mail = Controller(self, hostname=ADDRESS, port=MAIL_PORT)

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a mail."""
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def __enter__(self) -> Listeners:
        threading.Thread(target=self.web.serve_forever, daemon=True).start()
        self.mail.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.web.shutdown()
        self.web.server_close()
        self.mail.stop()

    def alerts(self, status: str, **labels: str) -> list[Json]:
        """Return the alerts with a status and labels that the web server was told of."""
        return [
            alert
            for message in self.messages
            for alert in message["alerts"]
            if alert["status"] == status and labels.items() <= alert["labels"].items()
        ]

    def mails_about(self, subject: str) -> list[str]:
        """Return the texts of the mails with that subject."""
        bodies = [mail.get_body(("plain",)) for mail in self.mails if mail["Subject"] == subject]
        return [str(body.get_content()) for body in bodies if body]
