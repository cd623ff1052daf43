"""The Server-Timing header: where a request's time went before its answer began, for browsers and curl to show.

See https://www.w3.org/TR/server-timing/. It goes out with the answer's head, so it cannot tell the answer's whole time.
"""

from __future__ import annotations

from collections.abc import Sequence

Stage = tuple[bytes, float]  # name, seconds


def server_timing(queue_s: float, engine_s: float, before: Sequence[Stage] = ()) -> bytes:
    """The header's line, without its end.

    ``queue_s``: in the gateway's queue; ``engine_s``: from sending to the engine to its answer's first byte; ``before``:
    what came before the queue, such as what was done with pictures. In seconds; the header has milliseconds.
    """
    stages = b"".join([b"%b;dur=%.1f, " % (name, seconds * 1e3) for name, seconds in before])
    return b'server-timing: %bqueue;dur=%.1f, engine;dur=%.1f;desc="to first byte"' % (
        stages, queue_s * 1e3, engine_s * 1e3,
    )  # fmt: skip
