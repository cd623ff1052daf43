"""A gateway in front of a fake engine, for clients as their users install them."""

from __future__ import annotations

from tests.gateway.conftest import desk, pytest_asyncio_loop_factories

__all__ = ["desk", "pytest_asyncio_loop_factories"]
