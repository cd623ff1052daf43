"""The Server-Timing header: where a request's time went before its answer began, for browsers and curl to show.

See https://www.w3.org/TR/server-timing/. It goes out with the answer's head, so it cannot tell the answer's whole time.
"""

from __future__ import annotations


def server_timing(queue_s: float, engine_s: float, media_s: float = 0.0) -> bytes:
    """The header's line, without its end.

    ``queue_s``: in the gateway's queue; ``engine_s``: from sending to the engine to its answer's first byte;
    ``media_s``: for making pictures smaller, left out where there was none. In seconds; the header has milliseconds.
    """
    if media_s:
        return b'server-timing: media;dur=%.1f, queue;dur=%.1f, engine;dur=%.1f;desc="to first byte"' % (
            media_s * 1e3, queue_s * 1e3, engine_s * 1e3,
        )  # fmt: skip
    return b'server-timing: queue;dur=%.1f, engine;dur=%.1f;desc="to first byte"' % (queue_s * 1e3, engine_s * 1e3)
