"""Every way to get a profile wrong, with the exact words of the answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import EXIT_PROFILE, ProfileError
from launcher.profile.faults import ProfileFaults
from launcher.profile.load import load_profile

# A profile that is right in all but what the case adds.
OK = "name: x\nmodel: {id: a/b}\n"
CPU = "name: x\nmodel: {id: a/b}\nhardware: {device: cpu}\n"
EXTERNAL = "name: x\nengine: {kind: external, urls: ['http://h:1']}\n"
SIZE = "write a number and a unit (B, kB, MB, GB, KiB, MiB or GiB), such as 10MiB"
DURATION = "write a number and a unit (ms, s, m, h or d), such as 200ms or 10m"

CASES: dict[str, tuple[str, list[str]]] = {
    # Several hosts
    "hosts with unequal shares": (
        OK + "engine: {tensor_parallel: 3, nodes: 2}\n",
        [
            "p.yaml:3:37: engine.nodes: 2 hosts cannot have equal shares of tensor_parallel 3 × pipeline_parallel 1 = 3: "
            "make the product a multiple of 2"
        ],
    ),
    "several replicas over several hosts": (
        OK + "engine: {tensor_parallel: 2, nodes: 2, replicas: 2}\n",
        [
            "p.yaml:3:50: engine.replicas: a launcher runs one engine over several hosts, not 2: write 1, run each replica with "
            "`launcher engine` on hosts of its own, and before them `launcher gateway --engines URL,URL`"
        ],
    ),
    "Ray on the CPU": (
        CPU + "engine: {kv_cache_memory: 1GiB, distributed: ray}\n",
        [
            "p.yaml:4:46: engine.distributed: vLLM has no Ray on device: cpu: write mp, which is vLLM's own way over several "
            "hosts"
        ],
    ),
    "pipeline stages over several hosts on the CPU": (
        CPU + "engine: {kv_cache_memory: 1GiB, pipeline_parallel: 2, nodes: 2}\n",
        [
            "p.yaml:4:52: engine.pipeline_parallel: vLLM's CPU build starts with pipeline stages on several hosts, and dies at "
            "the first request (seen with 0.32): write 1, and divide each layer with tensor_parallel"
        ],
    ),
    "hosts of servers that run elsewhere": (
        "name: x\nengine: {kind: external, urls: ['http://h:1'], nodes: 2}\n",
        ["p.yaml:2:48: engine.nodes: belongs to engine.kind: vllm, but this engine's kind is external"],
    ),
    # Keys
    "slip": (
        OK + "engine:\n  replicass: 2\n",
        ['p.yaml:4:3: engine.replicass: there is no such key; did you mean "replicas"?'],
    ),
    "slip at the top": (
        OK + "enginee: {}\n",
        ['p.yaml:3:1: enginee: there is no such key; did you mean "engine"?'],
    ),
    "hyphens": (
        OK + "engine: {max-num-seqs: 2}\n",
        ['p.yaml:3:10: engine.max-num-seqs: there is no such key; did you mean "max_num_seqs"?'],
    ),
    "key of another section": (
        OK + "engine:\n  max_len: 4096\n",
        ["p.yaml:4:3: engine.max_len: there is no such key in engine; max_len belongs under model"],
    ),
    "key of two other sections": (
        OK + "restart: {max_tokens: 3}\n",
        [
            "p.yaml:3:11: restart.max_tokens: there is no such key in restart; max_tokens belongs under "
            "gateway.images.budget or gateway.audio.budget or warmup or warmup.canary"
        ],
    ),
    "slip of a key of another section": (
        OK + "engine: {reasoning_parserr: x}\n",
        [
            'p.yaml:3:10: engine.reasoning_parserr: there is no such key in engine; did you mean "model.reasoning_parser"?'
        ],
    ),
    "vLLM's name, in the right section": (
        OK + "engine: {enforce_eager: true}\n",
        ['p.yaml:3:10: engine.enforce_eager: there is no such key; did you mean "compile"?'],
    ),
    "vLLM's name, in the wrong section": (
        OK + "engine: {max_model_len: 4096}\n",
        ["p.yaml:3:10: engine.max_model_len: there is no such key; here it is model.max_len"],
    ),
    "unlike anything": (
        OK + "restart: {zzz: 1}\n",
        ["p.yaml:3:11: restart.zzz: there is no such key; restart has backoff, max_backoff, budget, window"],
    ),
    "nested": (
        "name: x\nmodel:\n  id: a/b\n  template:\n    image_frist: true\n",
        ['p.yaml:5:5: model.template.image_frist: there is no such key; did you mean "image_first"?'],
    ),
    "given twice": (
        "name: x\nmodel: {id: a/b}\nname: y\n",
        ["p.yaml:3:1: name: is given twice (first in line 1): keep one"],
    ),
    "key of the other kind of engine": (
        OK + "engine: {urls: ['http://h:1']}\n",
        ["p.yaml:3:10: engine.urls: belongs to engine.kind: external, but this engine's kind is vllm"],
    ),
    "and the other way round": (
        "name: x\nengine:\n  kind: external\n  urls: ['http://h:1']\n  replicas: 2\n",
        ["p.yaml:5:3: engine.replicas: belongs to engine.kind: vllm, but this engine's kind is external"],
    ),
    "name is missing": (
        "model: {id: a/b}\n",
        [
            "p.yaml:1:1: name: is missing: name of the deployment: lower-case letters, digits and hyphens",
        ],
    ),
    "a nested key is missing": (
        OK + "warmup:\n  canary: {prompt: hi}\n",
        [
            "p.yaml:4:3: warmup.canary.contains: is missing: what the answer must contain; letter case does not matter",
        ],
    ),
    # Types
    "text where a number is wanted": (
        "name: x\nmodel:\n  id: a/b\n  max_len: '8192'\n",
        ['p.yaml:4:12: model.max_len: "8192" is text, but a whole number is wanted: take the quotes away'],
    ),
    "a word where a number is wanted": (
        OK + "engine: {replicas: two}\n",
        ['p.yaml:3:20: engine.replicas: "two" is text, but a whole number is wanted'],
    ),
    "a fraction where a whole number is wanted": (
        OK + "engine: {replicas: 1.5}\n",
        ["p.yaml:3:20: engine.replicas: 1.5 is a number, but a whole number is wanted"],
    ),
    "a truth where a number is wanted": (
        OK + "engine: {replicas: true}\n",
        ["p.yaml:3:20: engine.replicas: true is a truth, but a whole number is wanted"],
    ),
    "a number where a truth is wanted": (
        OK + "engine: {chunked_prefill: 1}\n",
        ["p.yaml:3:27: engine.chunked_prefill: 1 is a number, but true or false is wanted"],
    ),
    "a number where text is wanted": (
        OK + "engine:\n  env: {NCCL_P2P_DISABLE: 1}\n",
        ['p.yaml:4:27: engine.env.NCCL_P2P_DISABLE: 1 is a number, but text is wanted: quote it: "1"'],
    ),
    "a truth where text is wanted": (
        OK + "engine:\n  env: {A: True}\n",
        ['p.yaml:4:12: engine.env.A: true is a truth, but text is wanted: quote it: "True"'],
    ),
    "a commit of digits only": (
        "name: x\nmodel: {id: a/b, revision: 1234567}\n",
        ['p.yaml:2:28: model.revision: 1234567 is a number, but text is wanted: quote it: "1234567"'],
    ),
    "one where a list is wanted": (
        OK + "engine: {extra_args: --seed}\n",
        ['p.yaml:3:22: engine.extra_args: "--seed" is text, but a list is wanted: write ["--seed"]'],
    ),
    "a number in a list of text": (
        OK + "engine: {extra_args: [--seed, 1]}\n",
        ['p.yaml:3:31: engine.extra_args.1: 1 is a number, but text is wanted: quote it: "1"'],
    ),
    "a value where a section is wanted": (
        OK + "gateway: 8000\n",
        [
            "p.yaml:3:10: gateway: 8000 is a number, but a section is wanted: keys with values, indented below it",
        ],
    ),
    "a list where a mapping is wanted": (
        OK + "engine: {env: [A=1]}\n",
        [
            'p.yaml:3:15: engine.env: ["A=1"] is a list, but a mapping is wanted: names with values, indented below the key'
        ],
    ),
    "null where a section is wanted": (
        OK + "gateway: null\n",
        [
            "p.yaml:3:10: gateway: null is no value for it: a section is wanted: keys with values, indented below it, "
            "or leave the key out",
        ],
    ),
    "no value": (
        OK + "gateway:\n",
        ["p.yaml:3:9: gateway: has no value: write one, or null for none"],
    ),
    # Values
    "choice": (
        "name: x\nmodel: {id: a/b, dtype: floot16}\n",
        [
            'p.yaml:2:25: model.dtype: "floot16" is not a choice: auto | bfloat16 | float16 | float32; '
            'did you mean "float16"?'
        ],
    ),
    "choice by another name": (
        "name: x\nmodel: {id: a/b, dtype: half}\n",
        [
            'p.yaml:2:25: model.dtype: "half" is not a choice: auto | bfloat16 | float16 | float32; '
            'did you mean "float16"?'
        ],
    ),
    "kind of engine": (
        OK + "engine: {kind: sglang}\n",
        ['p.yaml:3:16: engine.kind: "sglang" is not a choice: vllm | external'],
    ),
    "version": (
        OK + "version: 2\n",
        ["p.yaml:3:10: version: 2 is not a choice: 1"],
    ),
    "duration without a unit": (
        OK + "timeouts: {drain: 30}\n",
        [f"p.yaml:3:19: timeouts.drain: 30 is not a duration: {DURATION}"],
    ),
    "duration with a bad unit": (
        OK + "timeouts: {drain: 30sec}\n",
        [f"p.yaml:3:19: timeouts.drain: '30sec' is not a duration: {DURATION}"],
    ),
    "duration of nothing": (
        OK + "timeouts: {stall: 0s}\n",
        ["p.yaml:3:19: timeouts.stall: no time at all would never let anything through: give more than 0s"],
    ),
    "duration too long": (
        OK + "timeouts: {start: 9999d}\n",
        ["p.yaml:3:19: timeouts.start: '9999d' is too long: 365d at most"],
    ),
    "size without a unit": (
        OK + "gateway: {max_body: 1000000}\n",
        [f"p.yaml:3:21: gateway.max_body: 1000000 is not a size: {SIZE}"],
    ),
    "size with a bad unit": (
        OK + "gateway: {max_body: 10Mb}\n",
        [f"p.yaml:3:21: gateway.max_body: '10Mb' is not a size: {SIZE}"],
    ),
    "too small": (OK + "engine: {replicas: 0}\n", ["p.yaml:3:20: engine.replicas: 0 is too small: 1 or more"]),
    "too large": (
        OK + "engine: {gpu_memory_utilization: 1.5}\n",
        ["p.yaml:3:34: engine.gpu_memory_utilization: 1.5 is too large: 1 at most"],
    ),
    "not above zero": (
        OK + "engine: {gpu_memory_utilization: 0.0}\n",
        ["p.yaml:3:34: engine.gpu_memory_utilization: 0.0 is too small: more than 0"],
    ),
    "name": (
        "name: My Model\nmodel: {id: a/b}\n",
        [
            "p.yaml:1:7: name: 'My Model' is not a name: use lower-case letters, digits and hyphens, 52 at most, such as 2x4090"
        ],
    ),
    "address": (
        OK + "gateway: {listen: localhost}\n",
        [
            "p.yaml:3:19: gateway.listen: 'localhost' is not an address: write host:port, such as 127.0.0.1:8000",
        ],
    ),
    "URL": (
        "name: x\nengine: {kind: external, urls: ['h:1']}\n",
        [
            "p.yaml:2:33: engine.urls.0: 'h:1' is not a URL: it must begin with http:// or https://, "
            "such as http://127.0.0.1:30000, or with dns+http:// for all servers behind one name"
        ],
    ),
    "URL with /v1": (
        "name: x\nengine: {kind: external, urls: ['http://h:1/v1/']}\n",
        ["p.yaml:2:33: engine.urls.0: 'http://h:1/v1/' ends with /v1: leave that out, the gateway adds it"],
    ),
    "no URL": (
        "name: x\nengine: {kind: external, urls: []}\n",
        ["p.yaml:2:32: engine.urls: the list is empty: give 1 or more"],
    ),
    "empty text": (
        "name: x\nmodel: {id: ''}\n",
        ["p.yaml:2:13: model.id: is an empty text: write one, or leave the key out"],
    ),
    # Rules over several keys
    "no model": (
        "name: x\n",
        ["p.yaml:1:1: model: names no model: give one of id (hub), path (folder) and packaged (smollm2-135m-instruct)"],
    ),
    "two models": (
        "name: x\nmodel:\n  id: a/b\n  path: ./b\n",
        ["p.yaml:4:9: model.path: the model is already named by model.id: give exactly one of id, path and packaged"],
    ),
    "revision of a folder": (
        "name: x\nmodel: {path: ./b, revision: main}\n",
        ["p.yaml:2:30: model.revision: a revision belongs to model.id; model.path has none: take it out"],
    ),
    "no KV size on the CPU": (
        CPU,
        [
            "p.yaml:1:1: engine.kv_cache_memory: is missing: on device: cpu vLLM would claim nearly all memory; "
            "give a size, such as 2GiB"
        ],
    ),
    "cards on the CPU": (
        "name: x\nmodel: {id: a/b}\nhardware: {device: cpu, gpus: 2}\nengine: {kv_cache_memory: 1GiB}\n",
        ["p.yaml:3:31: hardware.gpus: device: cpu has no cards: take it out"],
    ),
    "two KV budgets": (
        OK + "engine: {gpu_memory_utilization: 0.9, kv_cache_memory: 1GiB}\n",
        [
            "p.yaml:3:34: engine.gpu_memory_utilization: kv_cache_memory is given too, and overrides it: give one of the two"
        ],
    ),
    "batch smaller than its sequences": (
        OK + "engine: {max_num_batched_tokens: 64, max_num_seqs: 128}\n",
        [
            "p.yaml:3:34: engine.max_num_batched_tokens: 64 is less than max_num_seqs 128, and every sequence needs a token "
            "in a step: give 128 or more"
        ],
    ),
    "prompts that fit no step": (
        "name: x\nmodel: {id: a/b, max_len: 8192}\nengine: {max_num_batched_tokens: 4096, chunked_prefill: false}\n",
        [
            "p.yaml:3:57: engine.chunked_prefill: without it a prompt must fit one step, but max_num_batched_tokens 4096 is "
            "less than model.max_len 8192: set it to true, or give 8192 tokens or more"
        ],
    ),
    "a key that an external engine cannot heed": (
        EXTERNAL + "model: {dtype: float16}\n",
        [
            "p.yaml:3:16: model.dtype: has no effect with engine.kind: external: set it where that server is started, "
            "and take it out here"
        ],
    ),
    "an image that may not be sent": (
        "name: x\nmodel: {id: a/b, images_per_prompt: 0}\nwarmup: {image: a.png}\n",
        [
            "p.yaml:3:17: warmup.image: model.images_per_prompt is 0, so no image can be sent: write none, or allow images",
        ],
    ),
    "back-off": (
        OK + "restart: {backoff: 2m}\n",
        [
            "p.yaml:3:1: restart.max_backoff: is shorter than restart.backoff, the first wait: make it as long or longer",
        ],
    ),
    "a certificate without its key": (
        OK + "gateway: {tls_cert: c.pem}\n",
        ["p.yaml:3:1: gateway.tls_key: is missing: HTTPS needs both; give it, or take gateway.tls_cert out"],
    ),
    "a key without its certificate": (
        OK + "gateway: {tls_key: k.pem}\n",
        ["p.yaml:3:1: gateway.tls_cert: is missing: HTTPS needs both; give it, or take gateway.tls_key out"],
    ),
    # YAML
    "empty file": (
        "# only a comment\n",
        ["p.yaml:1:1: the file is empty: a profile needs at least a name and a model"],
    ),
    "a list": ("- name: x\n", ["p.yaml:1:1: is not a mapping: begin with a key, such as name: my-model"]),
    "a tab": ("name: x\nmodel:\n\tid: a/b\n", ["p.yaml:3:1: a tab: indent with spaces"]),
    "a colon in a value": (
        "name: x\ndescription: this: that\n",
        ["p.yaml:2:18: a colon where no key can be: put a value that has ': ' in it in quotes"],
    ),
    "an open bracket": (
        OK + "engine: {extra_args: [a, b\n",
        ["p.yaml:4:1: a quote or bracket is not closed, or a comma is missing"],
    ),
    "no colon": (
        "name: x\nmodel\n",
        ["p.yaml:3:1: a line that is neither 'key: value' nor a list item: is a colon missing?"],
    ),
    "indentation": (
        "name: x\nmodel:\n    id: a/b\n  dtype: auto\n",
        ["p.yaml:4:3: the indentation does not match the lines above: keys of one section begin in one column"],
    ),
    "two documents": (
        OK + "---\nname: y\n",
        ["p.yaml:3:1: a second document begins here: a profile is one document, take out the ---"],
    ),
    "a Python object": (
        OK + "description: !!python/object/apply:os.system [ls]\n",
        [
            "p.yaml:3:14: description: the tag !!python/object/apply:os.system is not allowed in a profile: write the plain value"
        ],
    ),
    "an alias to itself": (
        "name: x\nmodel: {id: a/b, hf_overrides: &o {again: *o}}\n",
        ["p.yaml:2:32: model.hf_overrides.again: the alias points at what it is part of: write the value out"],
    ),
    "yes": (
        OK + "engine: {prefix_caching: yes}\n",
        [
            'p.yaml:3:26: engine.prefix_caching: yes is a truth in YAML 1.1 and a word in YAML 1.2: write true, or quote it: "yes"'
        ],
    ),
    "an octal commit": (
        "name: x\nmodel: {id: a/b, revision: 0123}\n",
        [
            "p.yaml:2:28: model.revision: YAML 1.1 reads 0123 as 83, YAML 1.2 does not: write a plain number, "
            'or quote it: "0123"'
        ],
    ),
    "a commit that is a number to some": (
        "name: x\nmodel: {id: a/b, revision: 1e5}\n",
        [
            "p.yaml:2:28: model.revision: YAML 1.2 reads 1e5 as a number, YAML 1.1 does not: write a plain number, "
            'or quote it: "1e5"'
        ],
    ),
    "minutes and seconds": (
        OK + "timeouts: {drain: 1:30}\n",
        [
            "p.yaml:3:19: timeouts.drain: YAML 1.1 reads 1:30 as 90, YAML 1.2 does not: write a plain number, "
            'or quote it: "1:30"'
        ],
    ),
    "a date": (
        "name: x\nmodel: {id: a/b, revision: 2026-01-02}\n",
        [
            'p.yaml:2:28: model.revision: 2026-01-02 is a date in YAML 1.1 and a word in YAML 1.2: quote it: "2026-01-02"'
        ],
    ),
    "infinity": (
        OK + "engine: {gpu_memory_utilization: .inf}\n",
        ["p.yaml:3:34: engine.gpu_memory_utilization: .inf is not a number that a setting can take"],
    ),
    # Several at once, in the order of the file; rules are told beside faults of other keys.
    "all at once": (
        "name: X\nmodel:\n  id: a/b\n  path: c\n  dtpye: auto\nengine:\n  replicas: 0\n  env: {A: 1}\nrestart: {backoff: 2m}\n",
        [
            "p.yaml:1:7: name: 'X' is not a name: use lower-case letters, digits and hyphens, 52 at most, such as 2x4090",
            "p.yaml:4:9: model.path: the model is already named by model.id: give exactly one of id, path and packaged",
            'p.yaml:5:3: model.dtpye: there is no such key; did you mean "dtype"?',
            "p.yaml:7:13: engine.replicas: 0 is too small: 1 or more",
            'p.yaml:8:12: engine.env.A: 1 is a number, but text is wanted: quote it: "1"',
            "p.yaml:9:1: restart.max_backoff: is shorter than restart.backoff, the first wait: make it as long or longer",
        ],
    ),
    "a rule about a faulty key is left out": (
        "name: x\nmodel: {id: 3, path: c}\n",
        ['p.yaml:2:13: model.id: 3 is a number, but text is wanted: quote it: "3"'],
    ),
    "YAML's surprises and faults of types together": (
        "name: x\nmodel: {id: a/b, max_len: 0x1F, revision: no}\nengine: {replicas: '2'}\n",
        [
            "p.yaml:2:27: model.max_len: YAML 1.1 reads 0x1F as 31, YAML 1.2 does not: write a plain number, "
            'or quote it: "0x1F"',
            'p.yaml:2:43: model.revision: no is a truth in YAML 1.1 and a word in YAML 1.2: write false, or quote it: "no"',
            'p.yaml:3:20: engine.replicas: "2" is text, but a whole number is wanted: take the quotes away',
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_says_exactly_what_is_wrong(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text, expected = CASES[case]
    Path("p.yaml").write_text(text)
    with pytest.raises(ProfileFaults) as caught:
        load_profile(Path("p.yaml"), env={})
    assert caught.value.message.split("\n") == expected
    assert "launcher validate p.yaml" in caught.value.hint
    assert caught.value.exit_code == EXIT_PROFILE


def test_there_are_at_least_25_cases() -> None:
    assert len(CASES) >= 25


class TestFiles:
    """What stands in the way before the YAML is read."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("profiles").mkdir()
        for name in ("2x4090.yaml", "external.yaml"):
            Path("profiles", name).write_text(OK)

    @staticmethod
    def refusal(path: Path) -> ProfileError:
        with pytest.raises(ProfileError) as caught:
            load_profile(path, env={})
        return caught.value

    def test_missing_with_another_ending(self) -> None:
        error = self.refusal(Path("profiles/2x4090.yml"))
        assert error.message == "profiles/2x4090.yml: there is no such file"
        assert error.hint == 'did you mean "profiles/2x4090.yaml"? profiles/ has 2x4090.yaml, external.yaml'

    def test_missing_with_a_slip(self) -> None:
        assert self.refusal(Path("profiles/2x4900.yaml")).hint.startswith('did you mean "profiles/2x4090.yaml"?')

    def test_missing_folder_lists_the_shipped_profiles(self) -> None:
        assert self.refusal(Path("nowhere/abc.yaml")).hint == "profiles/ has 2x4090.yaml, external.yaml"

    def test_name_only(self) -> None:
        assert self.refusal(Path("external")).hint.startswith('did you mean "profiles/external.yaml"?')

    def test_folder(self) -> None:
        error = self.refusal(Path("profiles"))
        assert error.message == "profiles: is a folder, not a profile"
        assert error.hint == "profiles/ has 2x4090.yaml, external.yaml"

    def test_a_whole_profile_in_the_place_of_its_path(self) -> None:
        error = self.refusal(Path("name: x\n" * 1000))
        assert error.message.endswith(": cannot be read: File name too long")

    def test_not_utf8(self) -> None:
        Path("latin.yaml").write_bytes(b"name: x\ndescription: caf\xe9\n")
        error = self.refusal(Path("latin.yaml"))
        assert (error.message, error.hint) == ("latin.yaml:2: is not UTF-8 text", "save the file as UTF-8")

    def test_huge(self) -> None:
        Path("model.yaml").write_bytes(b"x" * (2**20 + 1))
        assert self.refusal(Path("model.yaml")).message == "model.yaml: is larger than 1 MiB, so it is no profile"

    def test_unreadable(self) -> None:
        Path("loop.yaml").symlink_to("loop.yaml")
        assert self.refusal(Path("loop.yaml")).message == "loop.yaml: cannot be read: Too many levels of symbolic links"

    def test_byte_order_mark_and_windows_lines_are_fine(self) -> None:
        Path("w.yaml").write_bytes(b"\xef\xbb\xbfname: x\r\nmodel: {id: a/b}\r\n")
        assert load_profile(Path("w.yaml"), env={}).origins["name"] == "w.yaml:1"
