"""Run by the engine's Python: turns a .gguf file into a model folder that vLLM reads (safetensors, config, tokenizer).

    python -m launcher.engine.convert_gguf FILE.gguf FOLDER

transformers reads a GGUF (dequantised) but will not save what it read, since it counts as quantised: its state dict goes
into a fresh model of the same config, in bfloat16, and that is saved. Standing alone (no import from this package), it
also runs where the engine's Python has no launcher. The exit code tells what went wrong: see FAILURES.
"""

import ctypes
import gc
import importlib
import signal
import sys
from pathlib import Path
from typing import Any

FAILURES = {
    20: "a package is missing",
    21: "transformers does not read this architecture",
    22: "the file is damaged or is no GGUF",
}


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def fail(code: int, detail: object) -> "SystemExit":
    say(f"convert_gguf: {FAILURES[code]}: {detail}")
    return SystemExit(code)


def load(source: Path) -> tuple[Any, Any]:
    """(model, tokenizer) as transformers reads them from the GGUF, in bfloat16."""
    try:
        torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
        importlib.import_module("gguf")
        importlib.import_module("accelerate")
    except ModuleNotFoundError as missing:
        raise fail(20, missing.name) from None
    where = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    try:
        say("reading the tokenizer")
        tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
        say("reading the weights")
        return transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.bfloat16), tokenizer
    except (ValueError, KeyError, OSError, IndexError, EOFError) as problem:
        unsupported = "architecture" in str(problem) and "not supported" in str(problem)
        raise fail(21 if unsupported else 22, problem) from None


def save(read: Any, tokenizer: Any, target: Path) -> None:
    """A fresh model of the same config takes the weights; tied embeddings stay tied, and are saved once."""
    config = read.config
    for trace in ("quantization_config", "_pre_quantization_dtype"):
        if hasattr(config, trace):
            delattr(config, trace)
    state = read.state_dict()
    tied = "lm_head.weight" not in state or state["lm_head.weight"].equal(read.get_input_embeddings().weight)
    config.tie_word_embeddings = bool(tied)
    dtype = read.dtype
    fresh = type(read)(config).to(dtype)
    missing, unexpected = fresh.load_state_dict(state, strict=False)
    left = [name for name in missing if not (tied and name == "lm_head.weight")]
    if left or unexpected:
        raise fail(22, f"weights do not match the config: missing {left[:3]}, not known {list(unexpected)[:3]}")
    del read, state
    gc.collect()
    fresh.tie_weights()
    say("writing the model folder")
    fresh.save_pretrained(target)
    tokenizer.save_pretrained(target)


def die_with_the_launcher() -> None:
    """PR_SET_PDEATHSIG: no half-minute of work for nobody once the launcher is killed. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main(source: str, target: str) -> None:
    die_with_the_launcher()
    save(*load(Path(source)), Path(target))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
