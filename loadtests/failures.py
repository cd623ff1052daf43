"""Why a measurement has no figures: what is raised, each with a sentence."""

from __future__ import annotations


class Failed(Exception):
    """The bench cannot go on; the message is a sentence."""


class Late(Failed):
    """The load generator could not keep up, so that this round does not count."""
