"""Run the service: `python -m demo_app`."""

import signal
import socket
import sys

import structlog
import uvicorn
from pydantic import ValidationError

from .app import create_app
from .settings import Settings, explain

log = structlog.stdlib.get_logger("demo_app")


def main() -> int:
    """Serve until a signal comes, and return the process's exit status.

    Only what prevents the start is printed. Everything else is in the log files, as the journal is collected too.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        print(explain(error), file=sys.stderr)
        return 2
    try:
        app = create_app(settings)
        # Bound here, as uvicorn would report a port in use to the log and not to whoever starts the service.
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        print(f"demo-app can't start: {error}", file=sys.stderr)
        return 1

    host, port = listener.getsockname()[:2]
    log.info("listening", address=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,  # logs.py decides
            access_log=False,  # access.log has the request, with its trace
            server_header=False,
            timeout_graceful_shutdown=8,  # a stream that never ends must not hold up a restart
        )
    )
    # After its graceful shutdown uvicorn raises the signal again, for whoever was in charge before: a clean end.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    server.run(sockets=[listener])
    return 0 if server.started else 1  # app.log says why


if __name__ == "__main__":
    sys.exit(main())
