#!/usr/bin/env python3
"""A program to install: `toy --check FILE` judges a configuration, `toy FILE` serves what it says."""

import http.server
import pathlib
import sys

VERSION = "@version@"


def main() -> None:
    """Check a configuration, or serve it."""
    path = pathlib.Path(sys.argv[-1])
    text = path.read_text()
    if "bad" in text:
        sys.exit(f"toy: this configuration is bad: {text}")
    if sys.argv[1] == "--check":
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class calls it so
            body = "not ready" if "hang" in text else f"toy {VERSION} says {text}"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

    http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()


if __name__ == "__main__":
    main()
