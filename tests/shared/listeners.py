"""Who is told of alerts: a web server and a mail server of the tests' own, where the scenario's inventory says."""

from __future__ import annotations

import html
import json
import re
import threading
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

ADDRESS = "10.89.77.1"  # this machine, as the test hosts see it
WEB_PORT, MAIL_PORT = 9480, 9425
TOKEN = "a-token-of-our-own"

Json = dict[str, Any]


def shown(body: MIMEPart) -> str:
    """Return the text of a part of a mail; of HTML, without its tags."""
    text = str(body.get_content())
    return html.unescape(re.sub(r"<[^>]*>", "", text)) if body.get_content_type() == "text/html" else text


class Listeners:
    """Keeps what arrives, in the order in which it does."""

    def __init__(self, web_port: int = WEB_PORT, mail_port: int = MAIL_PORT) -> None:
        self.messages: list[Json] = []
        self.chats: list[Json] = []
        self.events: list[Json] = []
        self.mails: list[EmailMessage] = []
        places = {"/alerts": self.messages, "/slack": self.chats, "/pagerduty": self.events}

        class Handler(BaseHTTPRequestHandler):
            """Takes what is sent by who has the token, and as Slack and PagerDuty do, who may have none."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                allowed = self.path != "/alerts" or self.headers["Authorization"] == f"Bearer {TOKEN}"
                if allowed:
                    places[self.path].append(json.loads(body))
                self.send_response(200 if allowed else 401)
                self.end_headers()
                self.wfile.write(b"ok" if self.path == "/slack" else b"{}")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.web = ThreadingHTTPServer((ADDRESS, web_port), Handler)
        self.mail = Controller(self, hostname=ADDRESS, port=mail_port)

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

    def chats_about(self, title: str) -> list[Json]:
        """Return what a chat that takes Slack's webhooks shows under that title."""
        return [part for chat in self.chats for part in chat["attachments"] if part["title"] == title]

    def events_about(self, action: str, summary: str) -> list[Json]:
        """Return the events with that action and summary that a service like PagerDuty got."""
        found = [event for event in self.events if event["event_action"] == action]
        return [event for event in found if event["payload"]["summary"] == summary]

    def mails_about(self, subject: str) -> list[str]:
        """Return the texts of the mails with that subject, as a reader shows them."""
        bodies = [mail.get_body(("plain", "html")) for mail in self.mails if mail["Subject"] == subject]
        return [shown(body) for body in bodies if body]
