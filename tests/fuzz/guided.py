"""One target under atheris, Google's libFuzzer for Python, in a process of its own: a failure ends it.

``python -m tests.fuzz.guided MODULE TARGET PACKAGES FOLDER [options of libFuzzer]``, started by libfuzzer.py. In FOLDER are
made ``seeds/`` and ``words``, and on an exception ``failed/exception`` and ``error``, its traceback; libFuzzer itself puts
there what kills the process.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import atheris

from tests.fuzz.target import Failure, Target, failure_of

FAILED = 1  # exit code; libFuzzer has others


def main() -> None:
    module, name, packages, folder, *options = sys.argv[1:]
    with atheris.instrument_imports(include=packages.split(",")):  # what is first imported here, and only that
        target: Target = importlib.import_module(module).TARGETS[name]
    here = Path(folder)
    write_inputs(target, here)

    def one(data: bytes) -> None:
        failure = failure_of(target.run, data)
        if failure:
            give_up(failure, here)

    seeds_and_words = [str(here / "seeds"), f"-dict={here / 'words'}", f"-max_len={target.max_bytes}"]
    atheris.Setup([sys.argv[0], *options, *seeds_and_words], one)
    atheris.Fuzz()


def write_inputs(target: Target, folder: Path) -> None:
    """What libFuzzer begins with: a file for each seed, a line for each word."""
    (folder / "seeds").mkdir()
    for number, seed in enumerate(target.seeds):
        (folder / "seeds" / str(number)).write_bytes(seed)
    quoted = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words if word]
    (folder / "words").write_text("".join(quoted))


def give_up(failure: Failure, folder: Path) -> None:
    """Ends the process at once: left to libFuzzer, the input would be kept as it is, not as small as it can be."""
    (folder / "error").write_text(failure.error)
    (folder / "failed" / "exception").write_bytes(failure.data)
    os._exit(FAILED)


if __name__ == "__main__":
    main()
