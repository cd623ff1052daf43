"""The turns of one engine's life that users meet, one by one."""

from __future__ import annotations

import pytest

from launcher.supervise import state
from launcher.supervise.restart import RestartPolicy, recent_crashes, restart_delay_s, restarts_left
from launcher.supervise.state import EngineState, Phase, transition

POLICY = RestartPolicy(backoff_s=1, max_backoff_s=60, budget=3, window_s=600)


def run(
    *events: state.Event, start: EngineState | None = None, now: float = 0.0
) -> tuple[EngineState, list[state.Action]]:
    current, done = start or EngineState(), []
    for event in events:
        current, actions = transition(current, event, now, POLICY)
        done += actions
    return current, done


READY = (state.Start(), state.Healthy(), state.Warmed())


def test_a_good_start() -> None:
    after, actions = run(*READY)
    assert repr(after) == "<Engine ready attempt=1 crashes=0>"
    assert actions == [state.Spawn(), state.WarmUp(), state.AnnounceReady()]


def test_not_ready_before_warm() -> None:
    assert run(state.Start(), state.Warmed())[0].phase is Phase.STARTING
    assert run(state.Start(), state.Healthy())[0].phase is Phase.WARMING


def test_an_unasked_exit_is_a_failure_and_is_restarted() -> None:
    after, actions = run(*READY, state.Exited("exited with code 0"), now=5.0)
    assert repr(after) == "<Engine backoff attempt=1 crashes=1 (exited with code 0)>"
    assert actions[-2:] == [state.AnnounceDown("exited with code 0"), state.WakeAt(6.0)]
    assert run(state.BackoffOver(), start=after)[1] == [state.Spawn()]


def test_a_hung_engine_is_killed_before_it_is_restarted() -> None:
    hung, actions = run(*READY, state.Failed("hung"))
    assert hung.phase is Phase.KILLING
    assert actions[-2:] == [state.AnnounceDown("hung"), state.Kill()]
    after, actions = run(state.Exited("killed by SIGKILL"), start=hung)
    assert (after.phase, after.reason) == (Phase.BACKOFF, "hung")  # not what the log says of our own kill
    assert actions == [state.WakeAt(1.0)]


def test_a_fault_of_the_profile_is_not_retried() -> None:
    after, actions = run(state.Start(), state.Exited("max_len is too long", "model.max_len: 2048", retry_helps=False))
    assert (after.phase, after.remedy) == (Phase.FAILED, "model.max_len: 2048")
    assert actions[-1] == state.GiveUp()


def test_what_once_worked_is_retried_whatever_its_log_says() -> None:
    after, _ = run(*READY, state.Exited("out of memory", retry_helps=False))
    assert after.phase is Phase.BACKOFF


def test_the_budget_ends_restarts() -> None:
    current, _ = run(*READY)
    for crash in range(POLICY.budget):
        current, _ = run(state.Exited("died"), state.BackoffOver(), start=current, now=crash)
        assert current.phase is Phase.STARTING
    current, actions = run(state.Exited("died"), start=current, now=10)
    assert repr(current) == "<Engine failed attempt=4 crashes=4 (died)>"
    assert actions == [state.AnnounceDown("died"), state.GiveUp()]


def test_a_start_is_not_drained_but_killed_on_stop() -> None:
    assert run(state.Start(), state.Stop())[1][-1] == state.Kill()
    assert run(*READY, state.Stop())[1][-1] == state.Terminate()


def test_stop_during_backoff_needs_no_process() -> None:
    waiting, _ = run(*READY, state.Exited("died"))
    after, actions = run(state.Stop(), start=waiting)
    assert (after.phase, actions) == (Phase.STOPPED, [])
    assert run(state.BackoffOver(), start=after)[1] == []


@pytest.mark.parametrize(("crashes", "delay_s"), [(1, 1), (2, 2), (3, 4), (4, None)])
def test_backoff_doubles_within_the_budget(crashes: int, delay_s: float | None) -> None:
    assert restart_delay_s([0.0] * crashes, POLICY) == delay_s


def test_backoff_has_a_ceiling() -> None:
    assert restart_delay_s([0.0] * 50, RestartPolicy(1, 60, 100, 600)) == 60


def test_old_crashes_are_forgotten() -> None:
    assert recent_crashes([0.0, 500.0, 1000.0], now=1100.0, policy=POLICY) == (1000.0,)


HUNG = state.Failed("hung: no token for 30 s", is_hung=True)


@pytest.mark.parametrize(
    ("before", "event", "cause"),
    [
        (READY, state.Exited("died"), "exited"),
        (READY, HUNG, "hung"),
        (READY, state.Failed("another host fell"), "exited"),
        (READY[:1], state.Exited("died"), "start"),
        (READY[:1], state.Failed("overdue"), "start"),
        (READY[:2], state.Failed("a wrong canary"), "start"),
        (READY[:1], state.Healthy(), None),
        (READY, state.Stop(), None),
        ((*READY, state.Stop()), state.Exited("exited with code 0"), None),
        ((*READY, HUNG), state.Exited("killed"), None),
        ((*READY, state.Exited("died")), state.BackoffOver(), None),
    ],
)
def test_an_end_that_nobody_asked_for_has_a_cause(
    before: tuple[state.Event, ...], event: state.Event, cause: str | None
) -> None:
    current, _ = run(*before)
    after, _ = run(event, start=current)
    assert state.unasked_end(current.phase, after.phase, event) == cause


def test_the_budget_that_is_left_counts_recent_crashes() -> None:
    assert [restarts_left([0.0] * crashes, 10.0, POLICY) for crashes in range(5)] == [3, 2, 1, 0, 0]
    assert restarts_left([0.0, 900.0], 1000.0, POLICY) == 2
