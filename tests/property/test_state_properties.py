"""Whatever happens to an engine, in whatever order: its state machine ends ready, stopped or explained."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.supervise import state
from launcher.supervise.restart import RestartPolicy
from launcher.supervise.state import FINAL, RUNNING, EngineState, Phase, transition

EVENTS = st.one_of(
    st.builds(state.Start),
    st.builds(state.Healthy),
    st.builds(state.Warmed),
    st.builds(state.Failed, st.sampled_from(["hung", "overdue"]), st.just(""), st.booleans()),
    st.builds(state.Exited, st.sampled_from(["died", "killed"]), st.just("fix it"), st.booleans()),
    st.builds(state.BackoffOver),
    st.builds(state.Stop),
)
HISTORIES = st.lists(st.tuples(EVENTS, st.floats(0, 100)), max_size=60)
POLICIES = st.builds(
    RestartPolicy,
    backoff_s=st.floats(0.1, 5),
    max_backoff_s=st.floats(5, 60),
    budget=st.integers(0, 4),
    window_s=st.floats(1, 600),
)


class World:
    """Follows the actions: what a supervisor would have running."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy, self.state, self.now = policy, EngineState(), 0.0
        self.process = False
        self.announced_ready = False
        self.spawns: list[float] = []

    def happen(self, event: state.Event, after_s: float = 0.0) -> None:
        if isinstance(event, state.Exited) and not self.process:
            return  # only a process can exit
        self.now += after_s
        self.process = self.process and not isinstance(event, state.Exited)
        self.state, actions = transition(self.state, event, self.now, self.policy)
        for action in actions:
            self.act(action)

    def act(self, action: state.Action) -> None:
        match action:
            case state.Spawn():
                assert not self.process, "a second process beside the first"
                self.process = True
                self.spawns.append(self.now)
            case state.AnnounceReady():
                self.announced_ready = True
            case state.AnnounceDown():
                self.announced_ready = False
            case state.WakeAt(at):
                assert at >= self.now
            case state.Kill() | state.Terminate():
                assert self.process, "nothing to end"


def world_after(history: list[tuple[state.Event, float]], policy: RestartPolicy) -> World:
    world = World(policy)
    for event, after_s in history:
        world.happen(event, after_s)
        assert world.announced_ready == (world.state.phase is Phase.READY)
        assert world.process == (world.state.phase in RUNNING | {Phase.KILLING, Phase.STOPPING})
        assert (world.state.restart_at is not None) == (world.state.phase is Phase.BACKOFF)
        if world.state.phase is Phase.FAILED:
            assert world.state.reason
    return world


@given(HISTORIES, POLICIES)
def test_no_second_process_and_the_gateway_hears_the_truth(
    history: list[tuple[state.Event, float]], policy: RestartPolicy
) -> None:
    world_after(history, policy)


@given(HISTORIES, POLICIES)
def test_stop_always_ends_it(history: list[tuple[state.Event, float]], policy: RestartPolicy) -> None:
    world = world_after(history, policy)
    world.happen(state.Stop())
    world.happen(state.Exited("stopped"))
    assert world.state.phase in FINAL
    assert not world.process


@given(HISTORIES, POLICIES)
def test_an_engine_that_only_crashes_is_given_up_and_explained(
    history: list[tuple[state.Event, float]], policy: RestartPolicy
) -> None:
    world = world_after(history, policy)
    world.happen(state.Start())
    for _ in range(policy.budget + 2):
        world.happen(state.Exited("died again"))
        if world.state.phase is Phase.BACKOFF:
            world.happen(state.BackoffOver())  # at once: all crashes fall into one window
    assert world.state.phase in FINAL
    assert world.state.phase is Phase.STOPPED or world.state.reason


@given(POLICIES, st.lists(st.floats(0, 700), min_size=30, max_size=60))
def test_restarts_within_a_window_never_exceed_the_budget(policy: RestartPolicy, lives: list[float]) -> None:
    world = World(policy)
    world.happen(state.Start())
    crashes: list[float] = []
    for life_s in lives:
        if world.state.phase is Phase.FAILED:
            break
        world.happen(state.Exited("died"), life_s)
        crashes.append(world.now)
        if world.state.phase is Phase.BACKOFF:
            assert sum(world.now - at < policy.window_s for at in crashes) <= policy.budget
            assert world.state.restart_at is not None
            world.happen(state.BackoffOver(), world.state.restart_at - world.now)


@given(HISTORIES, POLICIES)
def test_a_failure_that_no_restart_mends_is_final_before_the_first_ready(
    history: list[tuple[state.Event, float]], policy: RestartPolicy
) -> None:
    world = world_after(history, policy)
    ever_ready = world.state.ever_ready
    if world.state.phase in RUNNING and not ever_ready:
        world.happen(state.Exited("max_len is above the model's", "lower it", retry_helps=False))
        assert world.state.phase is Phase.FAILED
        assert world.state.remedy == "lower it"
