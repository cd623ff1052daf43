"""Checks vLLM arguments against what the installed vLLM's own parser knows, before anything starts.

The parser is asked once for each installed vLLM (about ten seconds); later checks read the kept answer.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.errors import PreconditionError
from launcher.probe.cache import cache_dir
from launcher.probe.vllm_build import VllmBuild

ASK_TIMEOUT_S = 180.0
FORMAT = 1  # raise it when the shape of what parser_dump.py writes changes


@dataclass(frozen=True)
class Flag:
    """One of vLLM's flags; ``names`` holds every spelling, the ``--no-`` form included."""

    names: tuple[str, ...]
    dest: str
    nargs: int | str | None
    choices: tuple[str, ...] | None
    kind: str  # switch | text | json | size | float | int


@dataclass(frozen=True)
class KnownArguments:
    """What one installed vLLM knows. The lists may be empty where that version keeps them elsewhere."""

    flags: Mapping[str, Flag]  # by each spelling
    reasoning_parsers: tuple[str, ...] = ()
    tool_parsers: tuple[str, ...] = ()
    quantizations: tuple[str, ...] = ()
    load_formats: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> KnownArguments:
        flags: dict[str, Flag] = {}
        for row in facts["flags"]:
            # Some choices are not the parser's but checked later, at the start: they are as good a reason to stop now.
            listed = row["choices"] or facts.get(_LATE_CHOICES.get(row["dest"], ""))
            choices = tuple(listed) if listed else None
            flag = Flag(tuple(row["names"]), row["dest"], row["nargs"], choices, row["kind"])
            flags.update(dict.fromkeys(flag.names, flag))
        lists = {
            key: tuple(facts.get(key, ()))
            for key in ("reasoning_parsers", "tool_parsers", "quantizations", "load_formats", "env", "architectures")
        }
        return cls(flags, **lists)


_LATE_CHOICES = {
    "reasoning_parser": "reasoning_parsers",
    "tool_call_parser": "tool_parsers",
    "quantization": "quantizations",
    "load_format": "load_formats",
}


@dataclass(frozen=True)
class Group:
    """One flag as written, with the values up to the next flag. ``flag`` is '' for values before the first flag."""

    written: str
    flag: str  # dashes for underscores, without =value
    key: str  # what follows the first dot in --json-flag.key
    values: tuple[str, ...]
    inline: bool  # --flag=value: takes that one value and no more


def known_arguments(build: VllmBuild, *, cache: Path | None = None) -> KnownArguments:
    """What ``build``'s parser knows; asked in a process of ``build.python`` and kept in ``cache``.

    Raises PreconditionError if vLLM cannot be imported there.
    """
    kept = (cache or cache_dir()) / f"vllm-arguments-{_fingerprint(build)}.json"
    try:
        return KnownArguments.from_json(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not asked yet, or the file is damaged: ask (again)
    facts = _ask(build)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(facts), encoding="utf-8")
        part.replace(kept)
    except OSError:
        pass  # a cache that cannot be written costs ten seconds at the next start, nothing else
    return KnownArguments.from_json(facts)


def check_arguments(build: VllmBuild, argv: Sequence[str], *, cache: Path | None = None) -> list[str]:
    """Faults in ``argv`` as sentences; [] if ``build`` would take it.

    ``argv`` is a whole command (``python -m vllm… [serve MODEL] …``) or only the flags and values of one.
    """
    argv = own_arguments(argv)
    known = known_arguments(build, cache=cache)
    if any(group.flag.endswith("-parser-plugin") for group in groups(argv)):
        # A plug-in file brings parsers of its own, which the kept list cannot hold.
        flags = {
            name: replace(flag, choices=None) if flag.dest in ("reasoning_parser", "tool_call_parser") else flag
            for name, flag in known.flags.items()
        }
        known = replace(known, flags=flags)
    return [fault for group in groups(argv) for fault in _faults(group, known, str(build))]


def own_arguments(argv: Sequence[str]) -> Sequence[str]:
    """What vLLM's parser reads of a whole command; ``argv`` itself where it is only that already."""
    if len(argv) > 2 and argv[1] == "-m" and argv[2].startswith("vllm."):
        return argv[5:] if argv[3:4] == ["serve"] or argv[3:4] == ("serve",) else argv[3:]
    return argv


def groups(argv: Sequence[str]) -> Iterator[Group]:
    """Splits arguments at the flags, the way vLLM's parser reads them: ``--a_b=1``, ``--a-b 1``, ``-O3``, ``--json.key 1``."""
    written, values = "", list[str]()
    for item in argv:
        if not is_flag(item):
            values.append(item)
            continue
        if written or values:
            yield _group(written, values)
        written, values = item, []
    if written or values:
        yield _group(written, values)


def is_flag(item: str) -> bool:
    """``-tp`` and ``--port`` are flags, ``-1`` and ``-0.5`` are numbers (as argparse has it)."""
    return item.startswith("-") and item != "-" and re.fullmatch(r"-\d+|-\d*\.\d+", item) is None


def resolve(name: str, names: Mapping[str, Any]) -> list[str]:
    """The spellings that ``name`` can mean: itself, or all that it abbreviates (argparse takes a unique beginning)."""
    if name in names or not name.startswith("--"):
        return [name] if name in names else []
    return sorted(known for known in names if known.startswith(name))


def did_you_mean(word: str, choices: Sequence[str]) -> str:
    """``', did you mean x?'`` for the nearest of ``choices``, or ''."""
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


def _group(written: str, values: list[str]) -> Group:
    if level := re.fullmatch(r"-O=?(\w+)", written):  # -O3 is short for --optimization-level 3
        return Group(written, "--optimization-level", "", (level[1], *values), True)
    name, equals, value = written.partition("=")
    head, _, key = name.partition(".")
    flag = "--" + head[2:].replace("_", "-") if head.startswith("--") else head
    return Group(name, flag, key, (value, *values) if equals else tuple(values), bool(equals))


def _faults(group: Group, known: KnownArguments, build: str) -> list[str]:
    if not group.written:
        return [f"{' '.join(group.values)!r} stands before any flag: begin with a flag, such as --seed"]
    if group.written == "-O":
        return []
    meant = {known.flags[name].dest: name for name in resolve(group.flag, known.flags)}
    if not meant:
        longest = [name for name in known.flags if name.startswith("--")]
        return [f"{group.written} is not an argument of {build}{did_you_mean(group.flag, longest) or '.'}"]
    if len(meant) > 1:
        return [f"{group.written} can mean {', '.join(sorted(meant.values()))}: write it in full"]
    flag = known.flags[next(iter(meant.values()))]
    return _count_faults(group, flag) or _value_faults(group, flag)


def _count_faults(group: Group, flag: Flag) -> list[str]:
    count, name = len(group.values), group.written
    if flag.kind == "switch":
        return [f"{name} takes no value, but {' '.join(group.values)!r} follows it"] if count else []
    if count == 0 and flag.nargs != "?":
        return [f"{name} needs a value" + (f": {', '.join(flag.choices)}" if flag.choices else "")]
    if count > 1 and (group.inline or flag.nargs not in ("+", "*")):
        extra = " ".join(group.values[1:])
        return [f"{name} takes one value, but {extra!r} follows it: give each argument as an item of its own"]
    return []


# kind → (whether a value is one, what it is called). A size is vLLM's: 4096, 4k (4,000) or 4K (4,096), auto and -1.
_NUMBERS: dict[str, tuple[Callable[[str], object], str]] = {
    "int": (int, "a whole number"),
    "float": (float, "a number"),
    "size": (
        lambda v: re.fullmatch(r"\d+|\d+(\.\d+)?[kmgt]|\d+[KMGT]|-1|auto", v) or int("x"),
        "a number of tokens or bytes",
    ),
    "json": (json.loads, "JSON"),
}


def _value_faults(group: Group, flag: Flag) -> list[str]:
    if group.key:  # --json-flag.key value: vLLM puts the JSON together
        wrong = flag.kind not in ("json", "text") or flag.choices is not None
        return [f"{group.written}: {group.flag} takes no keys after a dot"] if wrong else []
    faults = []
    for value in group.values:
        if flag.choices is not None:
            if value not in flag.choices:
                listed = ", ".join(flag.choices)
                faults.append(f"{group.written}: {value!r} is not one of {listed}{did_you_mean(value, flag.choices)}")
        elif flag.kind in _NUMBERS and value != "None":
            faults += _kind_faults(group.written, value, *_NUMBERS[flag.kind])
    return faults


def _kind_faults(name: str, value: str, convert: Callable[[str], object], called: str) -> list[str]:
    try:
        convert(value)
    except ValueError:
        return [f"{name}: {value!r} is not {called}"]
    return []


def _fingerprint(build: VllmBuild) -> str:
    key = f"{FORMAT} {build.distribution} {build.version} {build.python}"
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _ask(build: VllmBuild) -> dict[str, Any]:
    source = Path(__file__).with_name("parser_dump.py").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="launcher-") as scratch:
        answer = Path(scratch) / "arguments.json"
        try:
            # Run as -c from / so that no folder of ours or of the caller shadows one of vLLM's imports.
            done = subprocess.run(
                [build.python, "-c", source, str(answer)],
                cwd="/",
                capture_output=True,
                text=True,
                timeout=ASK_TIMEOUT_S,
            )
            said = done.stderr
            facts = json.loads(answer.read_text(encoding="utf-8")) if done.returncode == 0 else None
        except (OSError, ValueError, subprocess.SubprocessError) as problem:
            facts, said = None, f"{type(problem).__name__}: {problem}"
    if facts is None:
        raise _import_failure(build, said)
    return dict(facts)


def _import_failure(build: VllmBuild, said: str) -> PreconditionError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    cause = lines[-1] if lines else "it wrote nothing"
    companions = [name for name in ("torchvision", "torchaudio", "torchcodec") if any(name in line for line in lines)]
    hint = f'Try it by hand: {build.python} -c "import vllm.engine.arg_utils"'
    if companions:
        hint = (
            f"{' and '.join(companions)} does not fit this torch (a CUDA build beside a CPU torch, most often). "
            f"vLLM serves text without it: {build.python} -m pip uninstall -y torchvision torchaudio torchcodec"
        )
    return PreconditionError(f"{build} in {build.python} cannot be imported: {cause}", hint)
