"""Any profile, dumped and loaded again, is the same profile."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.profile.load import load_profile
from launcher.profile.model import Profile

TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters="\x7f\x85\xa0"), min_size=1)
AWKWARD = st.sampled_from(
    ["yes", "no", "0123", "1e5", "1:30", "null", "~", "2026-01-02", "- a", "a: b", "#", "'", "*x"]
)
WORDS = TEXT | AWKWARD
SECONDS = st.floats(min_value=0.001, max_value=86400)
BYTES = st.integers(min_value=1, max_value=2**44)
COUNT = st.integers(min_value=1, max_value=10**6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e6, 1e6) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


def section(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


VLLM = section(
    replicas=COUNT,
    tensor_parallel=COUNT,
    max_num_batched_tokens=st.integers(2**20, 2**21),
    max_num_seqs=COUNT,
    chunked_prefill=st.booleans(),
    kv_cache_dtype=st.sampled_from(["auto", "fp8"]),
    gpu_memory_utilization=st.floats(0.01, 1),
    env=st.dictionaries(WORDS, WORDS, max_size=3),
    extra_args=st.lists(WORDS, max_size=3).map(tuple),
)
TIMES = ("start", "warmup", "stall", "probe_interval", "probe", "drain", "stop")
DATA = st.fixed_dictionaries(
    {
        "name": st.from_regex(r"[a-z0-9]([a-z0-9-]{0,50}[a-z0-9])?", fullmatch=True),
        "model": st.fixed_dictionaries(
            {"id": WORDS},
            optional={
                "revision": WORDS,
                "max_len": COUNT,
                "hf_overrides": st.dictionaries(WORDS, JSON, max_size=3),
                "trust_remote_code": st.booleans(),
            },
        ),
    },
    optional={
        "engine": VLLM,
        "description": st.just("") | WORDS,
        "timeouts": section(**dict.fromkeys(TIMES, SECONDS)),
        "gateway": section(max_body=BYTES, idle_timeout=SECONDS),
        "warmup": section(
            prompts=st.lists(WORDS, max_size=3).map(tuple),
            canary=st.fixed_dictionaries({"prompt": WORDS, "contains": WORDS}),
        ),
    },
)


def units(data: dict[str, Any]) -> dict[str, Any]:
    """Seconds and bytes as a profile writes them, exactly."""
    timed = {name: {k: f"{v!r}s" for k, v in data.get(name, {}).items()} for name in ("timeouts",) if name in data}
    gateway = {
        key: f"{value}B" if key == "max_body" else f"{value!r}s" if key == "idle_timeout" else value
        for key, value in data.get("gateway", {}).items()
    }
    return data | timed | ({"gateway": gateway} if "gateway" in data else {})


class QuotingDumper(yaml.SafeDumper):
    """Texts in quotes, since PyYAML leaves 1e5 bare, which YAML 1.2 takes for a number and we refuse."""


QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@given(DATA)
@settings(max_examples=100, deadline=None)
def test_dumped_and_loaded_is_the_same(data: dict[str, Any]) -> None:
    profile = Profile.model_validate(units(data))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "p.yaml")
        path.write_text(
            yaml.dump(profile.model_dump(mode="json"), Dumper=QuotingDumper, allow_unicode=True), encoding="utf-8"
        )
        loaded = load_profile(path, env={})
    assert loaded.profile == profile
    assert loaded.origins["gateway.max_body"] != "default"


@given(DATA)
@settings(max_examples=30, deadline=None)
def test_the_schema_takes_what_the_loader_takes(data: dict[str, Any]) -> None:
    import jsonschema

    from launcher.profile.schema import build_schema

    jsonschema.validate(Profile.model_validate(units(data)).model_dump(mode="json"), build_schema())
