"""The schema file is current, agrees with the model, and every key is explained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from launcher.profile import model as model_module
from launcher.profile.faults import ProfileFaults
from launcher.profile.keys import keys_below, markdown_table, profile_keys
from launcher.profile.load import load_profile
from launcher.profile.schema import build_schema, packaged_schema, schema_text

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "profiles").glob("*.yaml"))
README = ROOT / "README.md"


def test_the_file_is_current() -> None:
    assert packaged_schema() == schema_text(), "write it anew: python -m launcher.profile.schema"


def test_it_is_a_schema_of_its_dialect() -> None:
    schema = json.loads(packaged_schema())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)


def test_defaults_are_in_the_profiles_own_notation() -> None:
    gateway = build_schema()["$defs"]["gateway_section"]["properties"]
    assert gateway["head_timeout"]["default"] == "10s"
    assert gateway["max_body"]["default"] == "64MiB"
    assert "default" not in build_schema()["properties"]["gateway"]


def test_defaults_are_valid() -> None:
    def walk(schema: dict[str, Any]) -> None:
        for name, field in schema["properties"].items():
            if "default" in field:
                full = field | {"$defs": build_schema()["$defs"]}
                jsonschema.validate(field["default"], full)
            assert name

    for section in (build_schema(), *build_schema()["$defs"].values()):
        walk(section)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
class TestShipped:
    def test_loads(self, path: Path) -> None:
        loaded = load_profile(path, env={})
        assert loaded.profile.name == path.stem
        assert loaded.profile.description

    def test_passes_the_schema(self, path: Path) -> None:
        jsonschema.validate(yaml.safe_load(path.read_text()), build_schema())

    def test_editors_find_the_schema(self, path: Path) -> None:
        first = path.read_text().splitlines()[0]
        match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert match
        assert json.loads((path.parent / match[1]).read_text()) == build_schema()

    def test_names_no_key_that_does_not_exist(self, path: Path) -> None:
        """Keys in comments, such as `# revision: <commit>`, are real ones."""
        commented = re.findall(r"^ +# ([a-z_]+): ", path.read_text(), re.MULTILINE)
        known = {part for key in profile_keys() for part in key.path.split(".")}
        assert set(commented) - {"path"} <= known


def test_all_eight_are_there() -> None:
    names = {path.stem for path in SHIPPED}
    assert names == {
        "cpu-smollm2",
        "2x4090",
        "2x4090-replicas",
        "1x3090",
        "1x4090",
        "1x3060",
        "1xh200",
        "external",
    }


BAD = [
    "name: x\nmodel: {id: a/b}\nengine: {replicass: 2}\n",
    "name: x\nmodel: {id: a/b}\nengine: {replicas: '2'}\n",
    "name: x\nmodel: {id: a/b}\nengine: {replicas: 0}\n",
    "name: x\nmodel: {id: a/b, dtype: half}\n",
    "name: x\nmodel: {id: a/b}\nengine: {kind: external, urls: ['http://h:1'], replicas: 2}\n",
    "name: x\nmodel: {id: a/b}\nengine: {urls: ['http://h:1']}\n",
    "name: x\nmodel: {id: a/b}\nengine: {kind: external, urls: []}\n",
    "name: x\nmodel: {id: a/b}\nengine: {kind: sglang}\n",
    "name: x\nmodel: {id: a/b}\nengine: {gpu_memory_utilization: 1.5}\n",
    "name: x\nmodel: {id: a/b}\nengine: {env: {A: 1}}\n",
    "name: x\nmodel: {id: a/b}\ngateway: {max_body: 10Mb}\n",
    "name: x\nmodel: {id: a/b}\ngateway: {head_timeout: 10}\n",
    "name: x\nmodel: {id: a/b}\nwarmup: {canary: {prompt: hi}}\n",
    "name: x\nmodel: {id: ''}\n",
    "name: x\nmodel: {id: a/b}\ngateway: null\n",
    "model: {id: a/b}\n",
    "name: My Model\nmodel: {id: a/b}\n",
    "name: x\nmodel: {id: a/b}\ngateway: {listen: localhost}\n",
    "name: x\nengine: {kind: external, urls: ['h:1']}\n",
    "name: x\nengine: {kind: external, urls: ['http://h:1'], health_path: health}\n",
]


@pytest.mark.parametrize("text", BAD)
def test_schema_and_loader_refuse_the_same(text: str, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ProfileFaults):
        load_profile(path, env={})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), build_schema())


def test_every_key_is_explained() -> None:
    for key in profile_keys():
        assert len(key.description) > 10, key.path
        assert key.description[-1] in ".…", key.path
        assert key.type, key.path


def test_the_table_of_keys_has_every_field() -> None:
    """Counted from the classes, not from the schema that the table is made of."""
    sections = [
        section
        for section in vars(model_module).values()
        if isinstance(section, type) and issubclass(section, model_module.Section)
    ]
    leaves = {
        name
        for section in sections
        for name, field in section.model_fields.items()
        if "Section" not in str(field.annotation) and "Canary" not in str(field.annotation)
    }
    assert leaves - {"template", "engine"} <= {key.path.rpartition(".")[2] for key in profile_keys()}
    assert keys_below(["warmup", "canary"]) == ["prompt", "contains", "max_tokens"]


def test_the_readme_has_the_table() -> None:
    """Where the README has the markers, what stands between them is what `launcher schema --markdown` prints."""
    text = README.read_text() if README.is_file() else ""
    match = re.search(r"<!-- settings -->\n(.*?)<!-- /settings -->", text, re.DOTALL)
    if match is None:
        pytest.skip("README.md has no <!-- settings --> marker yet")
    assert match[1].strip() == markdown_table(profile_keys()).strip(), "launcher schema --markdown prints it anew"
