"""A line between the launchers of two hosts: messages both ways, and a beat each second, so that silence tells."""

from __future__ import annotations

import asyncio
import contextlib

from launcher.supervise.node_messages import MOST_BYTES, AnyMessage, Beat, Malformed, Message, decode, encode

BEAT_S = 1.0
SILENCE_S = 10.0  # a killed host closes its lines at once; this is for one that was cut off. A busy one is not so late.
CONNECT_S = 5.0


class LinkLost(Exception):
    """The other side is gone, silent, or speaks something else; the message says which."""


class Link:
    """One line. Whoever made it reads it with ``receive`` until LinkLost, and closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._beating = asyncio.get_running_loop().create_task(self._beat())
        self.own_address = str(writer.get_extra_info("sockname")[0])
        self.peer_address = str(writer.get_extra_info("peername")[0])

    def __repr__(self) -> str:
        return f"<Link {self.own_address} to {self.peer_address}>"

    @classmethod
    async def connect(cls, host: str, port: int) -> Link:
        """Raises LinkLost with the reason."""
        try:
            async with asyncio.timeout(CONNECT_S):
                return cls(*await asyncio.open_connection(host, port, limit=MOST_BYTES))
        except TimeoutError:
            raise LinkLost(f"no answer within {CONNECT_S:g} s") from None
        except OSError as error:
            raise LinkLost((error.strerror or str(error)).lower()) from None

    def send(self, message: Message) -> None:
        """Say it. Where the line is gone, `receive` tells."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def receive(self) -> AnyMessage:
        """The next message that is no beat."""
        while True:
            try:
                async with asyncio.timeout(SILENCE_S):
                    line = await self._reader.readline()
                message = decode(line) if line.endswith(b"\n") else None
            except TimeoutError:
                raise LinkLost(f"nothing was heard of it for {SILENCE_S:g} s") from None
            except OSError as error:
                raise LinkLost(f"the connection broke: {(error.strerror or str(error)).lower()}") from None
            except (ValueError, Malformed) as error:  # ValueError: a line longer than may be
                raise LinkLost(f"it said what no launcher says: {error}") from None
            if message is None:
                raise LinkLost("the connection was closed")
            if not isinstance(message, Beat):
                return message

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self.send(Beat())

    async def close(self) -> None:
        """What was sent still goes out, unless the other side takes nothing any more."""
        self._beating.cancel()
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(BEAT_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()
