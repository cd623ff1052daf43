"""A gateway in front of a fake engine, for clients as their users install them."""

from __future__ import annotations

from tests.gateway.conftest import desk, engine, pytest_asyncio_loop_factories, shared_engine

__all__ = ["desk", "engine", "pytest_asyncio_loop_factories", "shared_engine"]
