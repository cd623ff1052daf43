"""What can go wrong, as sentences: every error carries a message, the next step to take and an exit code."""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILURE = 1  # something failed while running
EXIT_USAGE = 2  # click's own: the command line is wrong
EXIT_PROFILE = 3  # the profile is not valid
EXIT_PRECONDITION = 4  # does not fit, or the machine lacks something (GPU, package, free port)
EXIT_ENGINE = 5  # an engine would not start, or its crash budget is spent
EXIT_TIMEOUT = 6  # not ready within the time allowed
EXIT_INTERRUPTED = 130  # Ctrl+C, the second time: stopped at once

EXIT_CODES: dict[int, str] = {
    EXIT_OK: "success",
    EXIT_FAILURE: "something failed while running",
    EXIT_USAGE: "the command line is wrong",
    EXIT_PROFILE: "the profile is not valid",
    EXIT_PRECONDITION: "the plan does not fit, or the machine lacks something (a GPU, a package, a free port)",
    EXIT_ENGINE: "an engine would not start, or its crash budget is spent",
    EXIT_TIMEOUT: "not ready within the time allowed",
    EXIT_INTERRUPTED: "stopped at once by a second Ctrl+C",
}


class LauncherError(Exception):
    """A failure that a user can act on.

    ``message`` says what is wrong (path, value, choices), ``hint`` what to do next; the command line prints both and
    exits with ``exit_code``.
    """

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class ProfileError(LauncherError):
    """The profile is not valid; the message lists every fault, one a line, as file:line:column."""

    exit_code = EXIT_PROFILE


class PreconditionError(LauncherError):
    """Nothing was started: the plan does not fit or the machine lacks something."""

    exit_code = EXIT_PRECONDITION


class EngineError(LauncherError):
    """An engine would not start or kept dying; the message carries the diagnosis from its log."""

    exit_code = EXIT_ENGINE


class StartTimeout(LauncherError):
    """The endpoint was not ready within the time allowed."""

    exit_code = EXIT_TIMEOUT
