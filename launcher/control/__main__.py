"""``python -m launcher.control RUN_DIRECTORY``: serves the control app on control.sock there, until SIGTERM."""

from __future__ import annotations

import argparse
import logging
import os
import socket
from pathlib import Path

import uvicorn

from launcher.control import CONTROL_SOCKET, GATEWAY_SOCKET
from launcher.control.app import make_app
from launcher.control.feed import Feed
from launcher.control.gateway_client import GatewayClient
from launcher.control.ops import feed_of
from launcher.gateway.audit import AuditLog

BACKLOG = 128
KEEP_ALIVE_S = 75  # an unused connection of the gateway's
GRACE_S = 2


def main() -> None:
    """Runs until it is told to stop."""
    parser = argparse.ArgumentParser(prog="launcher.control", description=__doc__)
    parser.add_argument("folder", type=Path, help="the run directory, with gateway.sock in it")
    parser.add_argument("--keys-file", type=Path, help="file of API keys")
    parser.add_argument("--audit-log", type=Path, help="where changes to the keys are written down")
    options = parser.parse_args()
    keys_file = options.keys_file and options.keys_file.absolute()
    audit = AuditLog(options.audit_log.absolute()) if options.audit_log else None
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    os.chdir(options.folder)  # socket paths may be 107 bytes long, a folder's may be longer: from here they are short
    gateway = GatewayClient(Path(GATEWAY_SOCKET))
    feed = feed_of(Path.cwd(), gateway)
    app = make_app(gateway, keys_file, audit, feed=feed)
    server = Server(
        feed,
        uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,  # the gateway has one
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
        ),
    )
    server.run(sockets=[listening(Path(CONTROL_SOCKET))])


class Server(uvicorn.Server):
    """uvicorn that ends the streams of looks when it is told to stop: by themselves they go on."""

    def __init__(self, feed: Feed, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._feed = feed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._feed.close()
        await super().shutdown(sockets)


def listening(path: Path) -> socket.socket:
    """A socket that only this user may use; it takes the place of one that an earlier process left."""
    made = path.with_name(path.name + ".new")
    made.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.fchmod(listener.fileno(), 0o600)  # what the file gets when it is made
    listener.bind(os.fspath(made))
    listener.listen(BACKLOG)
    made.replace(path)
    return listener


if __name__ == "__main__":
    main()
