"""What the sections of a profile are made of: their base and the kinds of values that several of them have."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema


class Section(BaseModel):
    """A part of the profile."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(f"{value!r} is not a path on the server: it must begin with /, such as /health")
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError(f"{value!r} is not an address: write host:port, such as 127.0.0.1:8000")
    return value


def _base_url(value: str) -> str:
    if not re.match(r"(dns\+)?https?://[^/\s]+", value):
        raise ValueError(
            f"{value!r} is not a URL: it must begin with http:// or https://, such as http://127.0.0.1:30000, or with "
            "dns+http:// for all servers behind one name"
        )
    if value.startswith("dns+") and not re.fullmatch(r"dns\+https?://[A-Za-z0-9._-]+(:\d{1,5})?/?", value):
        raise ValueError(f"{value!r} is not a name with a port, such as dns+http://engines.default.svc:8000")
    if re.search(r"/v1/*$", value):
        raise ValueError(f"{value!r} ends with /v1: leave that out, the gateway adds it")
    return value.rstrip("/")


def _host_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9.])?", value):
        raise ValueError(
            f"{value!r} is not the name of a host: write it without scheme and port, such as gateways.default.svc"
        )
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", value):
        raise ValueError(
            f"{value!r} is not a name: use lower-case letters, digits and hyphens, 52 at most, such as 2x4090"
        )
    return value


def _shape(pattern: str) -> WithJsonSchema:
    """What an editor checks; our own validators say more when they refuse."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


Address = Annotated[str, AfterValidator(_address), _shape(r"^.+:\d{1,5}$")]
UrlPath = Annotated[str, AfterValidator(_path), _shape("^/")]
BaseUrl = Annotated[str, AfterValidator(_base_url), _shape(r"^(dns\+)?https?://[^/\s]+")]
HostName = Annotated[str, AfterValidator(_host_name), _shape(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Name = Annotated[str, AfterValidator(_name), _shape(r"^[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?$")]
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
