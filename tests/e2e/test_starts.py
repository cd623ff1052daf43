"""What the log of a real start is read as, and that it is what the plan says.

Starts that cannot work are in test_failing_starts.py, and the tool's own handling of processes, on the fake engine, in
tests/loadtests/test_starts.py.
"""

from __future__ import annotations

from loadtests.starts import make_case
from loadtests.starts_engine import Seen
from tests.e2e.endpoint import PROFILE, Endpoint


def test_a_start_that_works(served: Endpoint) -> None:
    """By the log of the engine that is up anyway: a start of its own would take half a minute to say the same."""
    seen, predicted = Seen(), make_case(PROFILE, "as it is", ()).predicted()
    log = served.state_dir / served.name / "logs" / "engine-0.log"
    assert seen.read(log.read_text().splitlines())
    assert (predicted["verdict"], predicted["kv_tokens"]) == ("fits", seen.facts["kv_tokens"])
