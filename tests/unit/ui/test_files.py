"""The web page's files: what is not ours is unchanged, what is asked for is there, every text is in both languages."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import launcher.ui

UI = Path(launcher.ui.__file__).parent
VENDOR = UI / "vendor"
OURS = sorted(path for path in UI.rglob("*.js") if VENDOR not in path.parents)
PAGES = ("index.html", "ops.html")
IMPORT = re.compile(r"^(?:import|export) [^;]*?from '([^']+)'|^import '([^']+)'", re.M)
ASKED = re.compile(r'(?:src|href)="/ui/([^"]+)"')


@pytest.mark.parametrize("row", json.loads((VENDOR / "versions.json").read_text()), ids=lambda row: row["file"])
def test_what_is_not_ours_is_unchanged_and_has_its_licence(row: dict[str, str]) -> None:
    assert hashlib.sha256((VENDOR / row["file"]).read_bytes()).hexdigest() == row["sha256"]
    assert all((VENDOR / name).stat().st_size > 500 for name in row["license_files"])
    assert row["file"] in (VENDOR / "LICENSES.md").read_text()


def test_no_file_of_others_is_left_out_of_the_list() -> None:
    named = {row["file"] for row in json.loads((VENDOR / "versions.json").read_text())}
    assert {path.name for path in VENDOR.iterdir() if path.suffix in (".js", ".css")} == named


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_asks_for_is_there_and_small(page: str) -> None:
    """All of it, with what its modules import: at most 110 kB on the wire, a picture's size."""
    needed = set(needed_by(UI / page))
    assert needed
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in needed) < 110_000


def needed_by(page: Path) -> Iterator[Path]:
    waiting, seen = [UI / name for name in ASKED.findall(page.read_text())], set()
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            yield path
            if path.suffix == ".js" and path in OURS:
                waiting += imports(path)


def imports(path: Path) -> list[Path]:
    found = [one or other for one, other in IMPORT.findall(path.read_text())]
    assert all(name.startswith(".") for name in found), f"{path}: {found}"
    return [(path.parent / name).resolve() for name in found]


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(UI)))
def test_a_module_imports_files_that_are_there_and_names_no_other_host(path: Path) -> None:
    assert all(found.is_file() for found in imports(path))
    assert not re.findall(
        r"https?://(?!www\.w3\.org)[a-z]", re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.S)
    )


ENTRY = re.compile(r"^\s*'?([\w.-]+)'?: \{ en: (['\"].*?['\"]), zh: (['\"].*?['\"]) \},?$", re.M)


def table(path: Path) -> dict[str, tuple[str, str]]:
    return {key: (en, zh) for key, en, zh in ENTRY.findall(path.read_text())}


def test_every_text_is_in_both_languages_with_the_same_places() -> None:
    found = table(UI / "chat" / "words.js")
    assert len(found) > 100
    for key, (en, zh) in found.items():
        assert set(re.findall(r"\{\w+\}", en)) == set(re.findall(r"\{\w+\}", zh)), key


def test_every_text_that_the_chat_page_names_exists_and_is_used() -> None:
    found = table(UI / "chat" / "words.js")
    code = "".join(path.read_text() for path in (UI / "chat").glob("*.js") if path.name != "words.js")
    named = set(re.findall(r"\bt\('([\w.-]+)'", code))
    assert named <= set(found)
    words = set(re.findall(r"'([\w.-]+)'", code))
    by_pattern = re.compile(r".*\.(why|words)$").fullmatch
    stages = set(re.findall(r"'([\w-]+)'", re.search(r"STAGES = \[(.*?)\]", code).group(1)))  # type: ignore[union-attr]
    modes = {"low-latency", "balanced", "high-throughput", "total"}
    assert {key for key in found if key not in words and not by_pattern(key)} <= stages | modes
    assert {f"{stage}.why" for stage in stages | {"total"}} | {f"{mode}.words" for mode in modes - {"total"}} <= set(
        found
    )
