"""What the launchers of an engine's hosts say to each other: one JSON object a line. Pure: no I/O, no clock.

    head → follower   challenge (who are you?)       welcome | refused      start · end · bye
    follower → head               hello                                     ended
    both              beat, each second

A follower says hello only while nothing of an earlier start is left on its host. Nothing secret goes over the line: a
key that both have is proved by an HMAC over both sides' nonces, never sent.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from typing import Literal

import msgspec

from launcher.profile.model import Profile

PROTOCOL = 1
MOST_BYTES = 64 * 1024  # of a line
DIGEST_LETTERS = 12
COMPARED = ("model", "hardware", "engine")
NOT_COMPARED = ("engine.python", "engine.env")  # a host may have its Python elsewhere, and interfaces of other names


class Malformed(Exception):
    """Not a line of this protocol."""


class Message(msgspec.Struct, frozen=True, tag_field="say", forbid_unknown_fields=False):
    """What one side says."""


class Challenge(Message, tag="challenge", frozen=True):
    """The head's first word."""

    protocol: int
    nonce: str


class Hello(Message, tag="hello", frozen=True):
    """A follower's first word: who it is, and what it would run. ``settings``: dotted key → digest of its value."""

    protocol: int
    rank: int
    nodes: int
    vllm: str
    settings: Mapping[str, str]
    nonce: str
    proof: str = ""


class Welcome(Message, tag="welcome", frozen=True):
    """It belongs here; ``proof`` shows that the head has the key too."""

    proof: str = ""


class Refused(Message, tag="refused", frozen=True):
    """It does not. ``retry_helps``: it may, a little later."""

    reason: str
    remedy: str = ""
    retry_helps: bool = False


class Start(Message, tag="start", frozen=True):
    """Every host is there: start your part. Generations are numbered by the head."""

    generation: int


class End(Message, tag="end", frozen=True):
    """This generation is over: end your part."""

    generation: int
    reason: str


class Ended(Message, tag="ended", frozen=True):
    """Nothing is left of this generation here. ``by_itself``: it was not told to end, and why it did."""

    generation: int
    by_itself: bool
    reason: str = ""
    remedy: str = ""
    retry_helps: bool = True


class Bye(Message, tag="bye", frozen=True):
    """The head stops for good. ``failure`` is empty where it was asked to."""

    failure: str = ""


class Beat(Message, tag="beat", frozen=True):
    """Still here."""


AnyMessage = Challenge | Hello | Welcome | Refused | Start | End | Ended | Bye | Beat
_DECODER: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)
_ENCODER = msgspec.json.Encoder()


def encode(message: Message) -> bytes:
    """The message as a line."""
    return _ENCODER.encode(message) + b"\n"


def decode(line: bytes) -> AnyMessage:
    """The message of a line. Raises Malformed."""
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(str(error)) from None


def new_nonce() -> str:
    """Never the same twice."""
    return secrets.token_hex(16)


def proof_of(key: str, role: Literal["head", "follower"], challenge: Challenge, hello_nonce: str, rank: int) -> str:
    """That ``role`` has the key, in this one conversation; '' without a key."""
    if not key:
        return ""
    said = f"launcher-nodes {PROTOCOL} {role} {challenge.nonce} {hello_nonce} {rank}"
    return hmac.new(key.encode(), said.encode(), hashlib.sha256).hexdigest()


def is_proof(given: str, wanted: str) -> bool:
    """Compared in constant time."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def settings_of(profile: Profile) -> dict[str, str]:
    """A digest of each setting that all hosts must have alike, by its dotted key."""
    written = profile.model_dump(mode="json")
    found = {"name": _digest(profile.name)}
    for section in COMPARED:
        for name, value in written[section].items():
            if (key := f"{section}.{name}") not in NOT_COMPARED:
                found[key] = _digest(value)
    return found


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGEST_LETTERS]
