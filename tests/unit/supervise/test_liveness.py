"""When an engine counts as hung, and when only as slow."""

from __future__ import annotations

from launcher.profile.model import TimeoutsSection
from launcher.supervise.liveness import Pulse, Verdict, judge, tick_s

TIMEOUTS = TimeoutsSection.model_validate({"stall": "60s", "probe_interval": "10s"})


def test_idle_is_probed_now_and_then() -> None:
    pulse = Pulse(progress_at=100.0)
    assert judge(pulse, 109.0, TIMEOUTS) is Verdict.ALIVE
    assert judge(pulse, 110.0, TIMEOUTS) is Verdict.PROBE
    assert judge(pulse.answered(110.0), 111.0, TIMEOUTS) is Verdict.ALIVE


def test_work_without_tokens_is_hung_in_the_end() -> None:
    pulse = Pulse(progress_at=0.0).seen(100.0, in_flight=3, last_byte_at=None)
    assert judge(pulse, 129.0, TIMEOUTS) is Verdict.ALIVE  # counted from when the work came, not from the last token
    assert judge(pulse, 130.0, TIMEOUTS) is Verdict.LOOK_CLOSER
    assert judge(pulse, 160.0, TIMEOUTS) is Verdict.HUNG


def test_a_byte_to_anybody_is_a_sign_of_life() -> None:
    pulse = Pulse(progress_at=0.0).seen(100.0, 3, None).seen(155.0, 3, last_byte_at=154.0)
    assert judge(pulse, 160.0, TIMEOUTS) is Verdict.ALIVE
    assert judge(pulse, 214.0, TIMEOUTS) is Verdict.HUNG


def test_the_engines_own_counters_save_a_long_unstreamed_answer() -> None:
    pulse = Pulse(progress_at=0.0).seen(100.0, 1, None).counted(130.0, 1000.0).counted(150.0, 1400.0)
    assert judge(pulse, 165.0, TIMEOUTS) is Verdict.ALIVE
    still = pulse.counted(180.0, 1400.0).counted(211.0, 1400.0)
    assert judge(still, 211.0, TIMEOUTS) is Verdict.HUNG


def test_counters_that_cannot_be_read_prove_nothing() -> None:
    pulse = Pulse(progress_at=0.0).seen(100.0, 1, None).counted(130.0, None)
    assert judge(pulse, 160.0, TIMEOUTS) is Verdict.HUNG


def test_the_clock_starts_anew_with_each_spell_of_work() -> None:
    pulse = Pulse(progress_at=0.0).seen(10.0, 1, None).seen(20.0, 0, None).seen(500.0, 1, None)
    assert judge(pulse, 510.0, TIMEOUTS) is Verdict.ALIVE


def test_judged_often_enough() -> None:
    assert tick_s(TIMEOUTS) == 5.0
    assert tick_s(TimeoutsSection.model_validate({"stall": "2s", "probe_interval": "1s"})) == 0.25
