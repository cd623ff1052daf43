"""What went wrong with the hub, as a sentence and the next step. Reads exceptions by name: see `hub.py`."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from launcher.errors import PreconditionError

# Names of exceptions (of huggingface_hub and of the HTTP client below it, httpx or requests) for 'nothing answered'.
UNREACHABLE = (
    *("ConnectError", "ConnectTimeout", "ReadTimeout", "PoolTimeout", "ConnectionError", "NetworkError", "ReadError"),
    *("TimeoutException", "ProxyError", "RemoteProtocolError", "OfflineModeIsEnabled", "SSLError", "Timeout"),
)


def causes(problem: BaseException) -> list[BaseException]:
    """The exception and what it came from, outermost first."""
    chain: list[BaseException] = []
    at: BaseException | None = problem
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or at.__context__
    return chain


def names_of(problem: BaseException) -> set[str]:
    return {base.__name__ for cause in causes(problem) for base in type(cause).__mro__}


def is_unreachable(problem: BaseException) -> bool:
    """Whether nothing, or only a server error, answered: a copy on disk may then serve instead."""
    return bool(names_of(problem) & set(UNREACHABLE)) or (_status(problem) or 0) >= 500


def not_here(repo: str, snapshot: Path | None, cache: Path) -> PreconditionError:
    """Offline, and no complete copy on disk."""
    state = "only in part" if snapshot is not None else "not"
    return PreconditionError(
        f"model.id: {repo} is {state} in {cache}, and the network is off (HF_HUB_OFFLINE)",
        f"On a machine with a network: `hf download {repo}`, then copy its cache here and set HF_HOME to it; "
        "or copy the model folder and give it as model.path.",
    )


def hub_failure(
    problem: BaseException, repo: str, revision: str | None, cache: Path, endpoint: str
) -> PreconditionError:
    """The sentence for ``problem``, by the first that fits."""
    if isinstance(problem, PreconditionError):
        return problem
    names, status = names_of(problem), _status(problem)
    if "HFValidationError" in names or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repo):
        return PreconditionError(
            f"model.id: {repo!r} is not a hub id",
            "Write owner/name, such as zai-org/GLM-4.6V-Flash; for a folder on disk use model.path.",
        )
    if _is_disk_full(problem):
        return PreconditionError(
            f"model.id: the disk that holds {cache} is full, {repo} is there in part only",
            "Free some space, or set HF_HOME to a folder on a larger disk; files that have come are kept.",
        )
    if "GatedRepoError" in names:
        return PreconditionError(
            f"model.id: {repo} may only be downloaded once its licence is accepted",
            f"Accept it at {endpoint}/{repo} while logged in, then set HF_TOKEN to a token of that account "
            f"({endpoint}/settings/tokens).",
        )
    if "RevisionNotFoundError" in names:
        return PreconditionError(
            f"model.revision: {repo} has no branch, tag or commit {revision!r}",
            f"See {endpoint}/{repo}/commits/main for those that it has, or leave model.revision out.",
        )
    if "RepositoryNotFoundError" in names or status in (401, 403, 404):
        return PreconditionError(
            f"model.id: {endpoint} knows no repository {repo}, or it is private{_suggestion(repo, endpoint)}",
            "Check the spelling (letter case counts). For a private one set HF_TOKEN to a token that may read it; "
            "a token that has expired looks the same.",
        )
    return _broken(problem, repo, cache, endpoint, status)


def _broken(problem: BaseException, repo: str, cache: Path, endpoint: str, status: int | None) -> PreconditionError:
    if isinstance(problem, PermissionError) or "PermissionError" in names_of(problem):
        return PreconditionError(
            f"model.id: {cache} cannot be written: {_first_line(problem)}",
            "Make it yours (chown), or set HF_HOME to a folder that is.",
        )
    if is_unreachable(problem):
        answered = f"answers {status}" if status else f"cannot be reached ({_first_line(problem)})"
        return PreconditionError(
            f"model.id: {endpoint} {answered}, and {repo} is not on this machine in full",
            "With a network, start again: files that have come are kept. Behind a proxy set HTTPS_PROXY, for a "
            "mirror HF_ENDPOINT. Without a network, copy the model folder here and give it as model.path.",
        )
    return PreconditionError(
        f"model.id: the download of {repo} failed: {_first_line(problem)}",
        "Start again: files that have come are kept.",
    )


def _suggestion(repo: str, endpoint: str) -> str:
    """', did you mean x?' by the hub's own search; '' if that fails too."""
    import difflib

    import huggingface_hub

    try:
        found = huggingface_hub.HfApi(endpoint=endpoint).list_models(search=repo.rpartition("/")[2], limit=20)
        ids = {model.id.lower(): model.id for model in found if model.id != repo}
    except Exception:  # a hint is not worth a second failure
        return ""
    near = difflib.get_close_matches(repo.lower(), list(ids), n=1, cutoff=0.6)
    return f", did you mean {ids[near[0]]}?" if near else ""


def _status(problem: BaseException) -> int | None:
    for cause in causes(problem):
        code = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(code, int):
            return code
    return None


def _is_disk_full(problem: BaseException) -> bool:
    return any(
        getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(cause)
        for cause in causes(problem)
    )


def _first_line(problem: BaseException) -> str:
    text = str(causes(problem)[-1]).strip() or str(problem).strip()
    return text.splitlines()[0] if text else type(problem).__name__
