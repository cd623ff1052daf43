"""The profile's sections on what else clients send: URLs that are fetched, uploads that are kept, clips of sound."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launcher.profile.hosts import HostPattern
from launcher.profile.section import Positive, Section
from launcher.profile.units import MIB, Duration, Size

Port = Annotated[int, Field(ge=1, le=65535)]


class FetchSection(Section):
    """Pictures and clips that a request names by URL. Fetched by the gateway, from public addresses only; never by an engine."""

    hosts: tuple[HostPattern, ...] = Field(
        (),
        description="Hosts that may be fetched from: example.org, '*.example.org', or '*' for all. None: URLs are refused.",
    )
    http: bool = Field(False, description="Plain http too, not only https.")
    ports: tuple[Port, ...] = Field((), description="Ports besides 443 and 80.")
    timeout: Duration = Field(20.0, description="Longest time for one URL, redirects included.")
    at_once: Positive = Field(8, description="Most URLs that are fetched at the same time.")


class UploadsSection(Section):
    """POST /api/upload: pictures that are sent ahead of the requests that use them. Kept in memory, forgotten on a restart."""

    memory: Size = Field(256 * MIB, description="Most memory for all uploads; the longest unused ones go first.")
    per_key: Size = Field(64 * MIB, description="Most of that for one API key.")
    keep: Duration = Field(900.0, description="How long an upload is kept after its last use.")


class AudioBudget(Section):
    """What a clip is brought to."""

    max_tokens: Positive = Field(512, description="Most prompt tokens of one clip; what is longer is cut, and said so.")
    tokens_per_second: Annotated[float, Field(gt=0)] = Field(
        25.0, description="Prompt tokens that the model makes of a second of sound; its model card tells."
    )
    sample_rate: Annotated[int, Field(ge=8000, le=48000)] = Field(
        16000, description="The model's rate, in Hz; clips are resampled to it."
    )
    pad: bool = Field(False, description="Fill shorter clips up with silence, so that each is max_tokens.")


class AudioSection(Section):
    """Clips of sound (input_audio, audio_url), for models that take them."""

    budget: Literal["original"] | AudioBudget = Field(
        "original", description="What a clip may come to: {max_tokens: 512}, or original."
    )
    max_count: Positive = Field(4, description="Most clips in a request.")
    max_bytes: Size = Field(20 * MIB, description="Largest clip, as it comes (without base64).")
    max_length: Duration = Field(300.0, description="Longest clip that is read; a longer one is refused, not cut.")
