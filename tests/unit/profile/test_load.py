"""What a good profile becomes: values, the order of overrides, where each value came from, paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.profile.faults import ProfileFaults
from launcher.profile.load import LoadedProfile, load_profile
from launcher.profile.model import ExternalEngine, VllmEngine

TEXT = """\
name: x
model:
  id: a/b
engine:
  replicas: 2
  max_num_seqs: 8
  env:
    A: "1"
    B: "2"
  extra_args: [--seed, "1"]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(TEXT)


def load(*sets: str, **env: str) -> LoadedProfile:
    return load_profile(Path("p.yaml"), sets=sets, env=env)


def engine(loaded: LoadedProfile) -> VllmEngine:
    assert isinstance(loaded.profile.engine, VllmEngine)
    return loaded.profile.engine


def refusal(*sets: str, **env: str) -> list[str]:
    with pytest.raises(ProfileFaults) as caught:
        load(*sets, **env)
    return caught.value.message.split("\n")


class TestOrder:
    def test_file_over_default(self) -> None:
        loaded = load()
        assert engine(loaded).replicas == 2
        assert loaded.origins["engine.replicas"] == "p.yaml:5"
        assert loaded.origins["engine.tensor_parallel"] == "default"

    def test_environment_over_file(self) -> None:
        loaded = load(LAUNCHER__ENGINE__REPLICAS="3")
        assert engine(loaded).replicas == 3
        assert loaded.origins["engine.replicas"] == "env LAUNCHER__ENGINE__REPLICAS"

    def test_set_over_environment(self) -> None:
        loaded = load("engine.replicas=4", LAUNCHER__ENGINE__REPLICAS="3")
        assert engine(loaded).replicas == 4
        assert loaded.origins["engine.replicas"] == "--set engine.replicas=4"

    def test_of_two_sets_the_later(self) -> None:
        loaded = load("engine.replicas=4", "engine.replicas=5")
        assert engine(loaded).replicas == 5
        assert loaded.origins["engine.replicas"] == "--set engine.replicas=5"

    def test_the_process_environment_counts_where_none_is_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAUNCHER__ENGINE__REPLICAS", "6")
        assert engine(load_profile(Path("p.yaml"))).replicas == 6

    def test_an_override_mends_the_fault_that_it_hides(self) -> None:
        Path("p.yaml").write_text("name: x\nmodel: {id: a/b}\nengine: {replicas: yes}\n")
        assert engine(load("engine.replicas=2")).replicas == 2


class TestOverrides:
    def test_a_section_that_the_file_lacks(self) -> None:
        loaded = load("admission.deadline=5s", "warmup.canary={prompt: hi, contains: ho}")
        assert loaded.profile.admission.deadline == 5.0
        assert loaded.profile.warmup.canary is not None
        assert loaded.origins["warmup.canary.contains"] == "--set warmup.canary={prompt: hi, contains: ho}"

    def test_a_list_and_a_mapping_replace_the_whole(self) -> None:
        loaded = load("engine.extra_args=[--enforce-eager]", "engine.env={C: '3'}")
        assert engine(loaded).extra_args == ("--enforce-eager",)
        assert engine(loaded).env == {"C": "3"}

    def test_one_name_of_a_mapping(self) -> None:
        loaded = load("engine.env.C=3")
        assert engine(loaded).env == {"A": "1", "B": "2", "C": "3"}
        assert loaded.origins["engine.env.A"] == "p.yaml:8"
        # Such a value may be a secret, so it is not shown.
        assert loaded.origins["engine.env.C"] == "--set engine.env.C"

    @pytest.mark.parametrize("text", ["1", "0123", "yes", "1e5", "2026-01-02", "a: b", "null?", "[", "*x"])
    def test_text_is_taken_as_written(self, text: str) -> None:
        assert engine(load(f"engine.env.C={text}")).env["C"] == text
        assert load(f"model.revision={text}").profile.model.revision == text

    def test_text_in_quotes_loses_them(self) -> None:
        assert load('model.revision="null"').profile.model.revision == "null"

    def test_null_takes_a_value_away(self) -> None:
        assert engine(load("engine.max_num_seqs=null")).max_num_seqs is None

    def test_equals_signs_in_the_value(self) -> None:
        assert engine(load("engine.env.C=a=b")).env["C"] == "a=b"

    def test_environment_folds_case_but_for_names_of_the_users(self) -> None:
        loaded = load(
            LAUNCHER__Engine__Max_Num_Seqs="4",
            LAUNCHER__ENGINE__ENV__NCCL_P2P_DISABLE="1",
            LAUNCHER__ENGINE__ENV__A__B="2",
            LAUNCHER__MODEL__HF_OVERRIDES__Some_Key="3",
        )
        assert engine(loaded).max_num_seqs == 4
        assert engine(loaded).env["NCCL_P2P_DISABLE"] == "1"
        assert engine(loaded).env["A__B"] == "2"
        assert loaded.profile.model.hf_overrides == {"Some_Key": 3}

    def test_other_variables_are_none_of_ours(self) -> None:
        assert engine(load(LAUNCHER_STATE_DIR="/x", REPLICAS="9")).replicas == 2

    def test_the_kind_of_engine(self) -> None:
        loaded = load("engine={kind: external, urls: [http://h:1/]}", "model.id=null")
        assert loaded.profile.engine == ExternalEngine(kind="external", urls=("http://h:1",))

    def test_faults_name_the_override(self) -> None:
        assert refusal(
            "engine.replicass=2",
            "engine.replicas",
            "engine.replicas=two",
            "engine.extra_args.0=x",
            "gateway.max_body=",
            "model.hf_overrides=[a",
            LAUNCHER__ENGINE__MAX_NUM_SEQSS="2",
            LAUNCHER__NAM="y",
        ) == [
            "--set engine.extra_args.0=x: engine.extra_args.0: engine.extra_args is a list: give all of it, such as "
            "engine.extra_args=[a, b]",
            "--set engine.replicas: write key=value, such as --set engine.replicas=2",
            '--set engine.replicas=two: engine.replicas: "two" is text, but a whole number is wanted',
            '--set engine.replicass=2: engine.replicass: there is no such key; did you mean "replicas"?',
            "--set gateway.max_body=: gateway.max_body: has no value: write one, or null for none",
            "--set model.hf_overrides=[a: model.hf_overrides: '[a' is not a YAML value: a quote or bracket is not closed, or "
            "a comma is missing; put it in quotes",
            'env LAUNCHER__ENGINE__MAX_NUM_SEQSS: engine.max_num_seqss: there is no such key; did you mean "max_num_seqs"?',
            'env LAUNCHER__NAM: nam: there is no such key; did you mean "name"?',
        ]

    def test_a_rule_names_the_override(self) -> None:
        assert refusal("model.path=./b") == [
            "--set model.path=./b: model.path: the model is already named by model.id: give exactly one of id, path and packaged"
        ]

    def test_below_a_value_that_is_no_section(self) -> None:
        Path("p.yaml").write_text("name: x\nmodel: {id: a/b}\nengine: 3\n")
        assert refusal("engine.replicas=2") == [
            "p.yaml:3:9: engine: 3 is a number, but a section is wanted: keys with values, indented below it"
        ]


class TestYaml:
    """What YAML offers that profiles may use."""

    def test_anchors_and_merged_mappings(self) -> None:
        Path("p.yaml").write_text(
            "name: x\nmodel: {id: a/b, hf_overrides: &o {p: 1, q: 2}, chat_template_kwargs: {<<: *o, q: 3}}\n"
        )
        loaded = load()
        assert loaded.profile.model.chat_template_kwargs == {"p": 1, "q": 3}
        assert loaded.origins["model.chat_template_kwargs.q"] == "p.yaml:2"

    def test_aliases_cannot_multiply_without_end(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
        Path("p.yaml").write_text("\n".join(lines))
        assert refusal() == ["p.yaml:1:34: more than 20000 values, counting what aliases (*name) repeat: write it out"]

    def test_nesting_has_an_end(self) -> None:
        Path("p.yaml").write_text("name: " + "[" * 5000)
        assert refusal() == ["p.yaml:1:1: lists or mappings are nested too deeply: a profile needs five levels"]

    def test_plain_words_stay_words(self) -> None:
        Path("p.yaml").write_text("name: x\nmodel: {id: a/b, revision: v1.2, served_name: 'yes'}\n")
        assert load().profile.model.revision == "v1.2"
        assert load().profile.model.served_name == "yes"

    def test_numbers(self) -> None:
        Path("p.yaml").write_text("name: x\nmodel: {id: a/b, hf_overrides: {a: 1, b: -2, c: 1.5, d: 1.0e-5, e: .5}}\n")
        assert load().profile.model.hf_overrides == {"a": 1, "b": -2, "c": 1.5, "d": 1e-5, "e": 0.5}

    def test_a_whole_number_is_a_number_too(self) -> None:
        Path("p.yaml").write_text("name: x\nmodel: {id: a/b}\nengine: {gpu_memory_utilization: 1}\n")
        assert engine(load()).gpu_memory_utilization == 1.0


def test_every_leaf_has_an_origin() -> None:
    loaded = load()

    def leaves(data: object, path: str) -> list[str]:
        if isinstance(data, dict) and data:
            return [leaf for key, inner in data.items() for leaf in leaves(inner, f"{path}.{key}" if path else key)]
        return [path]

    assert set(leaves(loaded.profile.model_dump(mode="json"), "")) <= set(loaded.origins)
    assert {origin for origin in loaded.origins.values() if not origin.startswith("p.yaml:")} == {"default"}


def test_paths_start_at_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sub").mkdir()
    Path("sub/p.yaml").write_text(TEXT)
    loaded = load_profile(Path("sub/p.yaml"), env={})
    monkeypatch.chdir("/")
    assert loaded.base_dir == tmp_path / "sub"
    assert loaded.resolve("../models/m") == tmp_path / "sub" / "../models/m"
    assert loaded.resolve("/abs") == Path("/abs")
    assert loaded.resolve("~/m") == Path.home() / "m"


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().profile.name = "y"  # type: ignore[misc]
