"""Commands and settings as they may be shown and kept: without API keys, tokens and passwords. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from launcher.cli.plan import SECRET

GONE = "…"
# Of a URL: ``name:password@``, or a token alone before the ``@``.
_IN_URL = re.compile(r"(://)(?:([^\s/?#@:]*):[^\s/?#@]*|[^\s/?#@:]+)@")
_ENV = "engine.env."
# Of a mapping in one line, such as ``engine.env={HF_TOKEN: abc}``.
_PAIR = re.compile(r"""(?P<name>\w+)(?P<between>["']?\s*:\s*)(?P<value>"[^"]*"|'[^']*'|[^,{}\s][^,{}]*)""")


def masked(parts: Sequence[str]) -> list[str]:
    """An argv, or ``KEY=VALUE`` settings, with … in place of each secret value.

    Those are: what follows ``--key`` (as argparse takes it: shorter, or with ``=``), variables of ``engine.env`` whose names say
    that they are secret (HF_TOKEN, by the rule of `launcher plan`), and the passwords of URLs.
    """
    told, is_next = [], False
    for part in parts:
        name, is_there, _ = part.partition("=")
        is_key = len(name) > 2 and "--key".startswith(name)
        if is_next:
            told.append(GONE)
            is_next = False
        else:
            told.append(f"{name}={GONE}" if is_key and is_there else _without_secret(part))
            is_next = is_key and not is_there
    return told


def _without_secret(part: str) -> str:
    """An argument that may be, or end with, a setting: ``engine.env.HF_TOKEN=…``, ``--set=engine.env.HF_TOKEN=…``."""
    start = part.find("=") + 1 if part.startswith("--") else 0
    option, setting = part[:start], part[start:]
    key, is_there, value = setting.partition("=")
    key_path = key.strip()
    if is_there and key_path.startswith(_ENV) and SECRET.search(key_path.removeprefix(_ENV)):
        return f"{option}{key}={GONE}"
    if is_there and key_path in ("engine", "engine.env"):
        value = _PAIR.sub(_pair_without_secret, value)
    return _IN_URL.sub(_url_without_secret, f"{option}{key}{is_there}{value}")


def _pair_without_secret(found: re.Match[str]) -> str:
    return f"{found['name']}{found['between']}{GONE}" if SECRET.search(found["name"]) else found[0]


def _url_without_secret(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}:{GONE}@" if found[2] is not None else f"{found[1]}{GONE}@"
