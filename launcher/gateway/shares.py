"""Each key's fair share of the engines: who has been given how much, and where one begins that comes back. Pure."""

from __future__ import annotations

from launcher.gateway.order import NOBODY, Account, Ranked


class Shares:
    """Opens and closes the accounts. Called by the dispatcher alone, the one writer of accounts.

    ``credit_tokens``: how far a key of weight 1 may be behind the one that was given most.
    """

    __slots__ = ("_active", "_anonymous", "_credit", "_level")

    def __init__(self, credit_tokens: float) -> None:
        self._credit = credit_tokens
        self._anonymous = Account("")  # shared by all tickets that are nobody's
        self._active: set[Account] = set()
        self._level = 0.0  # where the last one stood that became idle: who comes to an idle endpoint starts there

    def open(self, ticket: Ranked) -> None:
        """The ticket's account has one more; one that comes back from a pause starts level with those that are there."""
        if ticket.account is NOBODY:
            ticket.account = self._anonymous
        account, active = ticket.account, self._active
        if not account.active:
            floor = min([other.served for other in active]) if active else self._level
            account.served = max(account.served, floor)
            active.add(account)
        if len(active) > 1:  # nor does one save up that always has a little on its way while others do much
            most = max([other.served for other in active])
            account.served = max(account.served, most - self._credit / account.weight)
        account.active += 1

    def close(self, ticket: Ranked) -> None:
        """The ticket has ended."""
        account = ticket.account
        account.active -= 1
        if not account.active:
            self._active.discard(account)
            self._level = max(self._level, account.served)

    def __repr__(self) -> str:
        return f"<Shares active={len(self._active)}>"
