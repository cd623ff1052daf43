"""What is said to be ahead of a ticket is what is served before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.order import NOBODY, SMALLEST_GROUP, Account, Ranked, Waiting, rank

AGEING = 819.2  # tokens a second: 8,192 in ten seconds


def ticket(work: int, at: float, lane: int = 1, account: Account = NOBODY) -> Ranked:
    one = Ranked()
    one.work_tokens = one.prefill_tokens = work
    one.rank, one.lane, one.account = rank(work, at * AGEING), lane, account
    return one


def queue(tickets: list[Ranked]) -> Waiting[Ranked]:
    waiting: Waiting[Ranked] = Waiting(1000.0)
    for number, one in enumerate(tickets):
        one.number = number
        waiting.add(one)
    return waiting


ASKED = st.tuples(st.integers(1, 9000), st.floats(0, 10), st.integers(0, 3))


@given(st.lists(ASKED, max_size=40), ASKED)
def test_it_is_right_to_one_step_of_the_rank(
    waiting: list[tuple[int, float, int]], coming: tuple[int, float, int]
) -> None:
    tickets, one = [ticket(*asked) for asked in waiting], ticket(*coming)
    tokens, count = queue(tickets).ahead(one, one.rank)
    surely = [t for t in tickets if t.lane < one.lane or (t.lane == one.lane and t.rank <= one.rank)]
    perhaps = [t for t in tickets if t.lane < one.lane or (t.lane == one.lane and t.rank <= one.rank + SMALLEST_GROUP)]
    assert len(surely) <= count <= len(perhaps)
    assert sum(t.prefill_tokens for t in surely) <= tokens <= sum(t.prefill_tokens for t in perhaps)


@given(st.lists(ASKED, max_size=20))
def test_who_leaves_is_counted_no_more(waiting: list[tuple[int, float, int]]) -> None:
    tickets = [ticket(*asked) for asked in waiting]
    line = queue(tickets)
    for one in tickets:
        line.remove(one)
    assert line.ahead(ticket(10**6, 10**6, lane=3), 1e12) == (0, 0)


def test_a_modest_key_waits_for_its_share_alone() -> None:
    greedy, modest = Account("greedy"), Account("modest")
    line = queue([ticket(100, 0.0, account=greedy) for _ in range(50)])
    assert line.ahead(ticket(100, 0.0, account=modest), 1e12) == (100, 1)
    assert line.ahead(ticket(100, 0.0, account=greedy), 1e12) == (5000, 50)
