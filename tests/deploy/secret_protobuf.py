"""helm posts its release Secrets as protobuf: just enough of that to read them."""

from __future__ import annotations

import base64
from typing import Any

MAGIC = b"k8s\x00"
Fields = dict[int, list[Any]]


def read_object(raw: bytes) -> dict[str, Any]:
    """A Secret as JSON has it; of any other kind only its kind and version, which is what DeleteOptions need."""
    assert raw.startswith(MAGIC), raw[:20]
    unknown = fields(raw[len(MAGIC) :])  # runtime.Unknown: 1 type, 2 the object
    about = fields(unknown[1][0])
    api_version, kind = about[1][0].decode(), about[2][0].decode()
    found = {"apiVersion": api_version, "kind": kind}
    if kind != "Secret":
        return found
    secret = fields(unknown[2][0])  # 1 metadata, 2 data, 3 type
    meta = fields(secret[1][0])  # 1 name, 3 namespace, 11 labels
    labels = {name: value.decode() for name, value in pairs(meta.get(11, [])).items()}
    metadata = {"name": meta[1][0].decode(), "namespace": meta.get(3, [b""])[0].decode(), "labels": labels}
    data = {name: base64.b64encode(value).decode() for name, value in pairs(secret.get(2, [])).items()}
    return {**found, "metadata": metadata, "data": data, "type": secret.get(3, [b"Opaque"])[0].decode()}


def pairs(entries: list[bytes]) -> dict[str, bytes]:
    """A map's entries: each a message of key and value."""
    found = {}
    for entry in entries:
        parts = fields(entry)
        found[parts[1][0].decode()] = parts.get(2, [b""])[0]
    return found


def fields(message: bytes) -> Fields:
    """The fields of a message by number: whole numbers, and bytes of whatever is in them."""
    found: Fields = {}
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        value: Any
        if tag & 7 == 0:
            value, at = varint(message, at)
        elif tag & 7 == 2:
            length, at = varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError(f"wire type {tag & 7} is not met in a Secret")
        found.setdefault(tag >> 3, []).append(value)
    return found


def varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
