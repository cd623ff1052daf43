"""Whatever stands in the file, the answer is a profile or sentences: never a traceback, never pydantic's or YAML's words."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from launcher.errors import ProfileError
from launcher.profile.load import load_profile

ROOT = Path(__file__).parents[3]
PIECES = ["\t", "- ", ": ", "[", "]", "{", "}", "&a ", "*a", "!!str ", "null", "~", "yes", "1e5", "0x1", "''", '"', "#"]
PIECES += [
    "\n",
    "  ",
    "<<: ",
    "|",
    "> ",
    "%",
    "@",
    "? ",
    "---\n",
    "-1",
    "9" * 20,
    "é",
    "\u2028",
    "\0",
    "\\ud800",
    '"\\ud800"',
]
SETS = [
    "engine.replicas=2",
    "a.b.c=1",
    "engine=3",
    "model=[",
    "model.path=",
    "=",
    "x",
    "name={a: 1}",
    "model.id=\ud800",
]
NOT_OURS = ("not valid YAML", "Input should", "Invalid JSON", "{text}", "Traceback")


def texts() -> list[str]:
    """The shipped profiles without their comments."""
    lines = [path.read_text().splitlines() for path in sorted((ROOT / "profiles").glob("*.yaml"))]
    return ["\n".join(line for line in text if not line.strip().startswith("#")) for text in lines]


@pytest.mark.parametrize("seed", range(10))
def test_spoilt_profiles(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    path = tmp_path / "p.yaml"
    said: list[str] = []
    for _ in range(30):
        text = chance.choice(texts())
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice([*PIECES, ""]) + text[at + chance.choice([0, 0, 1, 3, 6]) :]
        path.write_text(text)
        sets = [chance.choice(SETS)] if chance.random() < 0.3 else []
        try:
            load_profile(path, sets=sets, env={})
        except ProfileError as error:
            said.append(error.message)
    assert len(said) > 5
    assert all(said)
    assert not [message for message in said if any(words in message for words in NOT_OURS)]
