"""Run by the engine's Python, not by the launcher: writes what the installed vLLM's own parser knows as JSON to argv[1].

It stands alone (no import from this package), since the engine may live in an environment without the launcher. It takes
about ten seconds, nearly all of it vLLM's import of torch and transformers, so `arguments.py` keeps the result.
"""

import importlib
import json
import sys
from typing import Any

# make_arg_parser moved twice: 0.24 to 0.28, 0.29 to 0.32, 0.33.
PARSER_MODULES = (
    "vllm.entrypoints.common.cli_args",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.entrypoints.openai.cli_args",
)
# What a value of each kind looks like, most permissive first: the first sample that a flag's type takes tells its kind.
SAMPLES = (
    ("text", "no number"),
    ("json", '{"a": 1}'),
    ("json", "{}"),
    ("size", "1k"),
    ("float", "1.5"),
    ("int", "12"),
)


def make_parser() -> Any:
    flexible = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    for name in PARSER_MODULES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        return module.make_arg_parser(flexible())
    raise SystemExit("no make_arg_parser found in " + ", ".join(PARSER_MODULES))


def accepts(kind: Any, sample: str) -> bool:
    try:
        kind(sample)
    except Exception:
        return False
    return True


def kind_of(action: Any) -> str:
    """What the flag's type takes; 'text' where nothing can be told from samples (it is then not checked)."""
    if action.nargs == 0 or type(action).__name__ == "BooleanOptionalAction":
        return "switch"
    if action.type is None or action.type is str:
        return "text"
    for kind, sample in SAMPLES:
        if accepts(action.type, sample):
            return kind
    return "text"


def describe(action: Any) -> dict[str, Any]:
    choices = None if action.choices is None else [str(choice) for choice in action.choices]
    return {
        "names": list(action.option_strings),
        "dest": action.dest,
        "nargs": action.nargs,
        "choices": choices,
        "kind": kind_of(action),
    }


def names_from(module_name: str, read: Any) -> list[str]:
    """A list that helps but that the checks can do without: an empty one where this version has it elsewhere."""
    try:
        return sorted(read(importlib.import_module(module_name)))
    except Exception as problem:
        sys.stderr.write(f"{module_name}: {type(problem).__name__}: {problem}\n")
        return []


def main(target: str) -> None:
    parser = make_parser()
    # Plug-ins add parsers, quantization methods and models, just as they will when the engine starts.
    names_from("vllm.plugins", lambda m: m.load_general_plugins() or ())
    facts = {
        "flags": [describe(action) for action in parser._actions if action.option_strings],
        "reasoning_parsers": names_from("vllm.reasoning", lambda m: m.ReasoningParserManager.list_registered()),
        "tool_parsers": names_from("vllm.tool_parsers", lambda m: m.ToolParserManager.list_registered()),
        "quantizations": names_from("vllm.model_executor.layers.quantization", lambda m: m.QUANTIZATION_METHODS),
        "load_formats": names_from("vllm.model_executor.model_loader", lambda m: m._LOAD_FORMAT_TO_MODEL_LOADER),
        "env": names_from("vllm.envs", lambda m: m.environment_variables),
        "architectures": names_from(
            "vllm.model_executor.models.registry", lambda m: m.ModelRegistry.get_supported_archs()
        ),
    }
    with open(target, "w", encoding="utf-8") as out:
        json.dump(facts, out)


if __name__ == "__main__":
    main(sys.argv[1])
