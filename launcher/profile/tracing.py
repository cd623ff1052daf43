"""The profile's section on traces: where they go, and of how many requests there are any."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from launcher.profile.section import Section

TRACES_PATH = "/v1/traces"  # OTLP/HTTP's own, below a collector's base URL


def _collector(value: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+[^\s]*", value):
        raise ValueError(
            f"{value!r} is not a URL: it must begin with http:// or https://, such as http://127.0.0.1:4318"
        )
    base = value.rstrip("/")
    if base.endswith(TRACES_PATH):
        raise ValueError(f"{value!r} ends with {TRACES_PATH}: leave that out, the launcher adds it")
    return base


CollectorUrl = Annotated[
    str, AfterValidator(_collector), WithJsonSchema({"type": "string", "pattern": r"^https?://[^/\s]+"})
]


class TracingSection(Section):
    """Traces of requests, in OpenTelemetry's form: a span for each from the gateway, and below it the engine's own."""

    endpoint: CollectorUrl = Field(
        description="Base URL of a collector that speaks OTLP over HTTP, such as http://127.0.0.1:4318, without /v1/traces."
    )
    sample: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="Share of requests that are traced, of those that come without a traceparent; in others that header decides.",
    )

    @property
    def url(self) -> str:
        """Where spans are sent."""
        return self.endpoint + TRACES_PATH
