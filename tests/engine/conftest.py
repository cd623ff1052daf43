"""What the checks against a real vLLM share; they are skipped where none is installed."""

from __future__ import annotations

import pytest

from launcher.probe.vllm_build import VllmBuild, find_vllm


@pytest.fixture(scope="session")
def build() -> VllmBuild:
    found = find_vllm()
    if found is None:
        pytest.skip("no vLLM is installed here")
    return found
