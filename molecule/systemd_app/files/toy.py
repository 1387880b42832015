#!/usr/bin/env python3
"""A program to install: `toy --check FILE` judges a configuration, `toy FILE` serves what it says.

How it says that is in the file `greeting` beside it, which it reads anew at the signal HUP.
"""

import http.server
import pathlib
import signal
import sys
import time

VERSION = "@version@"


def main() -> None:
    """Check a configuration, or serve it."""
    path = pathlib.Path(sys.argv[-1])
    text = path.read_text()
    if "bad" in text:
        sys.exit(f"toy: this configuration is bad: {text}")
    if sys.argv[1] == "--check":
        return

    with pathlib.Path("toy.db").open("a") as database:  # in its own directory, where it is started
        database.write(f"{VERSION}\n")
    told = {"greeting": "says", "successful": 1, "seconds": 0.0}

    def reload(*_: object) -> None:
        greeting = path.with_name("greeting").read_text()
        told["successful"] = int(greeting != "mumbles")
        if told["successful"]:
            told.update(greeting=greeting, seconds=time.time())

    reload()
    signal.signal(signal.SIGHUP, reload)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class calls it so
            body = "not ready" if "hang" in text else f"toy {VERSION} {told['greeting']} {text}"
            if self.path == "/metrics":
                body = "".join(f"toy_reload_{name} {told[name]}\n" for name in ("successful", "seconds"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

    http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()


if __name__ == "__main__":
    main()
