"""The profile: every setting, its type, its default and what it means. Frozen; unknown keys are refused.

The descriptions here are the only ones: the JSON schema, ``launcher schema`` and the README's table are made from them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from launcher.profile.agreement import Disagreement, find_disagreements
from launcher.profile.images import ImagesSection
from launcher.profile.media import AudioSection, FetchSection, UploadsSection
from launcher.profile.section import Address, BaseUrl, HostName, Name, Positive, Section, Text, UrlPath
from launcher.profile.tracing import TracingSection
from launcher.profile.units import KIB, MIB, Duration, DurationOrZero, Size

PACKAGED_MODELS = ("smollm2-135m-instruct",)


class TemplatePolicy(Section):
    """How a chat becomes the text that the model was trained on, and what is taken out of its answers."""

    content_format: Literal["auto", "string", "openai"] = Field(
        "auto", description="How message content reaches the chat template (vLLM's --chat-template-content-format)."
    )
    image_first: bool = Field(
        False,
        description="Put the images of a message before its text, as GLM-4V was trained; the order among images is kept.",
    )
    number_images: bool = Field(
        False, description="Write 'Image 1:', 'Image 2:' before the images of a request that has several."
    )
    stop: tuple[Text, ...] = Field(
        (),
        description="Texts that end an answer, besides those that a request names; for training residue that a model goes on with.",
    )
    strip: tuple[str, ...] = Field(
        (),
        description="Training residue to take out of answers, streamed or not, such as </credit>. Nothing else is touched.",
    )


class ModelSection(Section):
    """Which model, from where, and how it is read. Exactly one of id, path and packaged."""

    id: Text | None = Field(None, description="The model's id on the Hugging Face hub, such as zai-org/GLM-4.6V-Flash.")
    revision: Text | None = Field(
        None, description="Branch, tag or commit on the hub; pin a commit for a start that repeats."
    )
    path: Text | None = Field(
        None, description="A local model folder, or a .gguf file. Relative to the profile's file."
    )
    packaged: Literal["smollm2-135m-instruct"] | None = Field(
        None, description="A model that comes as a Python package (its GGUF is turned into a model folder once)."
    )
    served_name: Text | None = Field(
        None, description="The name that clients put in 'model'. Default: the id, or the folder's name."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Precision of weights and activations. auto takes the checkpoint's own."
    )
    quantization: Text | None = Field(
        None,
        description="vLLM's --quantization: fp8 (made at load from 16-bit weights), awq_marlin, gptq_marlin, compressed-tensors, bitsandbytes…",
    )
    max_len: Positive | None = Field(
        None, description="Longest prompt plus answer, in tokens (--max-model-len). Default: the model's own."
    )
    hf_overrides: dict[str, Any] = Field({}, description="Changes to the model's config.json (--hf-overrides).")
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with the model. Only for a model that you trust."
    )
    chat_template: Text | None = Field(
        None, description="A Jinja file to use instead of the model's own. Relative to the profile's file."
    )
    chat_template_kwargs: dict[str, Any] = Field(
        {},
        description="Default arguments of the chat template, such as enable_thinking: false (--default-chat-template-kwargs).",
    )
    reasoning_parser: Text | None = Field(
        None, description="vLLM's parser that parts reasoning from the answer, such as glm45."
    )
    tool_parser: Text | None = Field(
        None, description="vLLM's parser for tool calls, such as glm45; also allows automatic tool choice."
    )
    images_per_prompt: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Most images in one prompt (--limit-mm-per-prompt). 0 turns images off; with videos off too, the vision encoder is not loaded.",
    )
    videos_per_prompt: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Most videos in one prompt (--limit-mm-per-prompt). 0 turns video off, and vLLM reserves no memory for the longest one.",
    )
    image_longest_edge: Positive | None = Field(
        None,
        description="Most pixels (an area, times 2) of an image as the model sees it: the 'longest_edge' of the GLM-4.xV and Qwen-VL processors.",
    )
    load_format: Literal["auto", "safetensors", "dummy", "gguf", "runai_streamer", "tensorizer"] = Field(
        "auto",
        description="How weights are read (--load-format). dummy fills them at random: for measuring, not for answers.",
    )
    template: TemplatePolicy = Field(TemplatePolicy(), description="How a chat is laid out for this model.")

    @property
    def source(self) -> str | None:
        """What the model is called where it comes from: hub id, path or package name; None for an external engine."""
        return self.id or self.path or self.packaged

    @property
    def public_name(self) -> str | None:
        """The name that clients use."""
        return (
            self.served_name
            or self.id
            or self.packaged
            or (self.path.rstrip("/").rsplit("/", 1)[-1] if self.path else None)
        )


class HardwareSection(Section):
    """The machine that this profile expects. The plan is made for it; `doctor` and `up` compare it with what is there."""

    device: Literal["cuda", "cpu"] = Field("cuda", description="Where the engines run.")
    gpu: Text | None = Field(
        None, description="The card, such as RTX 4090; `launcher plan` lists those it knows the memory of."
    )
    gpus: Annotated[int, Field(ge=1, le=1024)] = Field(1, description="How many of them, on one machine.")
    gpu_memory: Size | None = Field(
        None,
        description="Memory of one card as the driver reports it, where the card's name does not tell or tells wrong.",
    )
    peer_to_peer: bool | None = Field(
        None,
        description="Whether the cards reach each other's memory directly. Default: what the card's name tells (RTX 4090 and 3090: no).",
    )
    memory: Size | None = Field(None, description="Main memory that the engines may use; for device: cpu.")


class VllmEngine(Section):
    """vLLM servers that the launcher starts and supervises."""

    kind: Literal["vllm"] = Field(
        "vllm", description="vllm: started here. external: already running elsewhere, see urls."
    )
    replicas: Positive = Field(1, description="How many engines with the whole model; requests are spread over them.")
    tensor_parallel: Positive = Field(
        1, description="Cards that share each layer of one replica (--tensor-parallel-size)."
    )
    pipeline_parallel: Positive = Field(
        1, description="Groups of cards that hold consecutive layers (--pipeline-parallel-size)."
    )
    nodes: Positive = Field(
        1, description="Hosts that the cards of one replica are spread over, evenly; hardware.gpus counts those of one."
    )
    distributed: Literal["mp", "ray"] = Field(
        "mp",
        description="How several hosts work together. mp: vLLM's own way, a launcher on each host. ray: a Ray cluster that runs already.",
    )
    max_num_batched_tokens: Positive | None = Field(
        None,
        description="Batch token budget: most tokens in one engine step. Smaller: steadier streams; larger: faster prefill.",
    )
    max_num_seqs: Positive | None = Field(None, description="Most sequences in one engine step.")
    chunked_prefill: bool | None = Field(
        None, description="Split long prompts over steps so that they do not stop the streams of others."
    )
    prefix_caching: bool | None = Field(None, description="Reuse the KV cache of prompts that begin alike.")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Share of each card's memory that vLLM may use, all in all. Not together with kv_cache_memory.",
    )
    kv_cache_memory: Size | None = Field(
        None, description="KV cache of one card, or of one replica on device: cpu, given outright."
    )
    kv_cache_dtype: Literal["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] = Field(
        "auto", description="Precision of the KV cache. fp8 halves its bytes."
    )
    compile: Literal["auto", "eager", "full"] = Field(
        "auto",
        description="eager: no compilation, no CUDA graphs (quick start, slower steps). full: all of vLLM's optimisations. auto: vLLM's default.",
    )
    env: dict[str, str] = Field({}, description="Environment of the engine's process, such as NCCL_P2P_DISABLE: '1'.")
    extra_args: tuple[str, ...] = Field(
        (),
        description="More of vLLM's own arguments, one item each; checked against the installed vLLM before the start.",
    )
    python: Text | None = Field(
        None, description="The Python that has vLLM, if it is not the launcher's own. Relative to the profile's file."
    )


class ExternalEngine(Section):
    """OpenAI-compatible servers that run already: vLLM elsewhere, SGLang, TensorRT-LLM. They are watched, not started."""

    kind: Literal["external"] = Field(description="external: already running elsewhere, see urls.")
    urls: Annotated[tuple[BaseUrl, ...], Field(min_length=1)] = Field(
        description="One base URL a replica, without /v1, such as http://10.0.0.5:30000. dns+http://name:port: one at each address behind a name."
    )
    health_path: UrlPath = Field("/health", description="A path that answers 200 while the server is well.")
    api_key_env: Text | None = Field(
        None, description="Environment variable that holds the key which the servers ask for."
    )


def _engine_kind(value: Any) -> str:
    kind = value.get("kind", "vllm") if isinstance(value, dict) else getattr(value, "kind", "vllm")
    return "external" if kind == "external" else "vllm"


Engine = Annotated[
    Annotated[VllmEngine, Tag("vllm")] | Annotated[ExternalEngine, Tag("external")], Discriminator(_engine_kind)
]


class GatewaySection(Section):
    """The OpenAI-compatible server in front of the engines."""

    listen: Address = Field(
        "127.0.0.1:8000", description="Address and port. 0.0.0.0:8000 for every interface; port 0 takes a free one."
    )
    max_body: Size = Field(64 * MIB, description="Largest request body; more is refused with 413.")
    max_head: Size = Field(64 * KIB, description="Largest request line with headers; more is refused with 431.")
    max_connections: Positive = Field(
        16384,
        description="Most client connections at once. One more closes the longest unused ones; if all are in use, it gets 503.",
    )
    head_timeout: Duration = Field(10.0, description="Time for a client to send its headers.")
    body_timeout: Duration = Field(60.0, description="Longest pause within a request's body.")
    idle_timeout: Duration = Field(75.0, description="Time that an unused connection stays open.")
    write_timeout: Duration = Field(
        60.0, description="Longest time in which a client reads nothing of its answer; then it is cut off."
    )
    peers: HostName | None = Field(
        None,
        description="A name whose addresses are the gateways in front of the same engines, this one among them: each takes its share of every cap.",
    )
    tls_cert: Text | None = Field(
        None,
        description="Certificate chain (PEM) to serve HTTPS with. Relative to the profile's file. Goes with tls_key.",
    )
    tls_key: Text | None = Field(None, description="Private key (PEM) of tls_cert. Relative to the profile's file.")
    auth: Literal["auto", "none", "keys"] = Field(
        "auto",
        description="keys: every request needs an API key. none: nobody does. auto: keys, unless there are none and listen is on loopback.",
    )
    keys_file: Text | None = Field(
        None,
        description="File of API keys (hashes), written by `launcher key`. Default: in the state folder. Relative to the profile's file.",
    )
    images: ImagesSection = Field(
        ImagesSection(),
        description="Pictures: what is let in, and what they are made into before the engine sees them.",
    )
    audio: AudioSection = Field(AudioSection(), description="Clips of sound, for models that take them.")
    fetch: FetchSection = Field(FetchSection(), description="What may be named by URL.")
    uploads: UploadsSection = Field(UploadsSection(), description="Pictures that are sent ahead.")
    tracing: TracingSection | None = Field(None, description="Where traces of requests go. Default: there are none.")


class AdmissionSection(Section):
    """What is let in, in which order, and how long it may wait. Keys that are not given follow from the mode."""

    mode: Literal["low-latency", "balanced", "high-throughput"] = Field(
        "balanced",
        description="Preset of the keys below; also `launcher mode` while running, or X-Mode for one request.",
    )
    deadline: Duration | None = Field(
        None,
        description="Longest wait in the queue; then 429, or 503 if no engine is ready. Default: by mode and priority, 200ms for normal in balanced.",
    )
    deadline_per_1k: DurationOrZero | None = Field(
        None,
        description="Added to the deadline for each 1,000 prompt tokens beyond the first 1,000 that the engine has to compute. Default: by mode.",
    )
    window: DurationOrZero | None = Field(
        None, description="How long a full engine's next group may be collected. Default: by mode, 50ms at most."
    )
    window_when: Literal["when_saturated", "always", "never"] | None = Field(
        None,
        description="When the window holds. An idle engine never waits, except with always, which is there for comparison.",
    )
    max_prefill: Positive | None = Field(
        None,
        description="Most prompt tokens a replica has in hand before their first token. Default: by mode, about one engine.max_num_batched_tokens.",
    )
    burst: Annotated[float, Field(ge=1, le=16)] = Field(
        1.0,
        description="How many times max_prefill an arrival may use while nobody waits. 4: light load passes as if nothing were in front.",
    )
    max_in_flight: Positive | None = Field(
        None,
        description="Most sequences that one replica works on at once; the rest wait here. Default: engine.max_num_seqs, or 256.",
    )
    max_queued: Annotated[int, Field(ge=0)] = Field(
        1024, description="Most requests that wait; one more is refused with 429."
    )
    max_queued_tokens: Positive | None = Field(
        None,
        description="Most tokens (prompts and expected answers) that wait. Default: 64 times max_prefill for each replica.",
    )
    ageing: Duration = Field(
        10.0,
        description="After so long in the queue the work of one batch token budget ranks like none. Shorter: nearer to first come, first served.",
    )
    adaptive: bool = Field(
        False, description="Let max_prefill and max_in_flight move, within half and twice, by what TTFT and ITL show."
    )
    counting: Literal["estimate", "exact"] = Field(
        "estimate",
        description="How text is priced: by a learnt ratio of bytes to tokens, or with the model's own tokenizer in a thread.",
    )
    prefix_affinity: bool = Field(
        True, description="Prefer the replica that has a prompt's beginning in its prefix cache, where that wins."
    )
    hold: DurationOrZero = Field(
        0.0,
        description="How long requests wait while no engine is ready at all, as while one is woken from zero; then 503. 0: refused at once.",
    )
    restart_wait: DurationOrZero = Field(
        120.0,
        description="How long a request whose engine died waits for another one, or for its restart, to take it over.",
    )
    resume_streams: bool = Field(
        True, description="Continue a broken stream from another replica, or the restarted one, where that is exact."
    )


class Canary(Section):
    """A question whose answer is known: asked before ready, so that an engine which talks nonsense never serves."""

    prompt: Text = Field(description="The question.")
    contains: Text = Field(description="What the answer must contain; letter case does not matter.")
    max_tokens: Positive = Field(32, description="Longest answer.")


class WarmupSection(Section):
    """What each engine is asked before it counts as ready."""

    system_prompt: Text | None = Field(
        None, description="Sent with every warm-up request, so that its prefix is in the cache."
    )
    prompts: tuple[str, ...] = Field(("Hello",), description="Text prompts.")
    image: Text = Field(
        "auto",
        description="auto: a made picture if the model sees images. none: no picture. Else a file, relative to the profile's.",
    )
    max_tokens: Positive = Field(16, description="Length of each warm-up answer.")
    canary: Canary | None = Field(None, description="A question whose answer is known.")


class LoggingSection(Section):
    """Where logs go. Engines write to files of their own; `launcher logs` shows them."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The launcher's own log level.")
    dir: Text | None = Field(
        None, description="Folder for log files. Default: in the run directory. Relative to the profile's file."
    )
    access: bool = Field(
        True, description="Write access.log: one line of JSON for each request, without what was said in it."
    )
    max_size: Size = Field(20 * MIB, description="A log file is rotated at this size.")
    keep: Annotated[int, Field(ge=0, le=100)] = Field(3, description="How many rotated files are kept.")


class TimeoutsSection(Section):
    """How long each thing may take."""

    start: Duration = Field(
        900.0, description="From an engine's start to its first healthy answer: loading, compiling, capturing."
    )
    warmup: Duration = Field(300.0, description="For all warm-up requests together.")
    stall: Duration = Field(
        60.0, description="Work in flight and no token for so long: the engine counts as hung and is restarted."
    )
    probe_interval: Duration = Field(10.0, description="How often an idle engine is asked for one token.")
    probe: Duration = Field(20.0, description="How long that one token may take.")
    drain: DurationOrZero = Field(
        30.0, description="For running streams to finish on `down`; what is left then is cut off, and said so."
    )
    stop: DurationOrZero = Field(
        10.0, description="From the polite signal to an engine to the one that it cannot ignore."
    )


class RestartSection(Section):
    """What happens when an engine dies."""

    backoff: DurationOrZero = Field(1.0, description="Wait before the first restart; doubled for each further one.")
    max_backoff: DurationOrZero = Field(60.0, description="Longest wait before a restart.")
    budget: Annotated[int, Field(ge=0)] = Field(
        5, description="Restarts within the window after which the launcher gives up and explains."
    )
    window: Duration = Field(600.0, description="Crashes older than this are forgotten.")


class Profile(Section):
    """One deployment: a model, the hardware it is meant for, the engines and the gateway in front of them."""

    version: Literal[1] = Field(1, description="Version of this format.")
    name: Name = Field(description="Name of the deployment: lower-case letters, digits and hyphens.")
    description: str = Field("", description="A line for people.")
    model: ModelSection = Field(ModelSection(), description="Which model, and how it is read.")
    hardware: HardwareSection = Field(HardwareSection(), description="The machine that this profile expects.")
    engine: Engine = Field(VllmEngine(), description="The engines.")
    gateway: GatewaySection = Field(GatewaySection(), description="The server in front of them.")
    admission: AdmissionSection = Field(
        AdmissionSection(), description="What is let in, in which order, and how long it may wait."
    )
    warmup: WarmupSection = Field(WarmupSection(), description="What each engine is asked before it counts as ready.")
    logging: LoggingSection = Field(LoggingSection(), description="Where logs go.")
    timeouts: TimeoutsSection = Field(TimeoutsSection(), description="How long each thing may take.")
    restart: RestartSection = Field(RestartSection(), description="What happens when an engine dies.")

    @model_validator(mode="after")
    def _sections_agree(self) -> Profile:
        """Rules that span keys; see ``launcher.profile.agreement``."""
        if found := find_disagreements(self):
            raise Disagreement(found)
        return self
