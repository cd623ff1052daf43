"""The profile's JSON Schema (draft 2020-12), for editors: made from the model, kept in ``schema.json`` beside it.

``python -m launcher.profile.schema`` writes the file anew; a test checks that it is current.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "launcher profile"


@cache
def build_schema() -> dict[str, Any]:
    """The schema as data. Defaults are in the profile's notation (``10s``), sections have none of their own."""
    from launcher.profile.model import Profile

    schema = _plain(Profile.model_json_schema(ref_template="#/$defs/{model}"))
    defs = schema.pop("$defs")
    for name, model in _sections().items():
        _write_defaults(defs[name], model)
    _write_defaults(schema, Profile)
    # Two named branches instead of oneOf, so that an editor tells what is wrong in the branch that is meant.
    schema["properties"]["engine"] = {
        "description": schema["properties"]["engine"]["description"],
        "type": "object",
        "if": {"properties": {"kind": {"const": "external"}}, "required": ["kind"]},
        "then": {"$ref": "#/$defs/ExternalEngine"},
        "else": {"$ref": "#/$defs/VllmEngine"},
    }
    text = json.dumps(schema | {"$defs": defs})
    for name in defs:
        text = text.replace(f'"{name}"', f'"{_snake(name)}"').replace(f"#/$defs/{name}", f"#/$defs/{_snake(name)}")
    head = {"$schema": DIALECT, "title": TITLE}
    built: dict[str, Any] = head | {k: v for k, v in json.loads(text).items() if k not in head}
    return built


def schema_text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(build_schema(), indent=2, ensure_ascii=False) + "\n"


def packaged_schema() -> str:
    """The text of ``schema.json`` as installed; needs no import of the model."""
    return files("launcher.profile").joinpath("schema.json").read_text(encoding="utf-8")


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _sections() -> dict[str, Any]:
    from launcher.profile.model import Profile
    from launcher.profile.section import Section

    return {section.__name__: section for section in Section.__subclasses__() if section is not Profile}


def _plain(schema: Any) -> Any:
    """Without the titles that pydantic makes of field names, which tell nothing."""
    if isinstance(schema, dict):
        named = "properties" in schema or "type" in schema or "anyOf" in schema or "$ref" in schema or "const" in schema
        return {key: _plain(value) for key, value in schema.items() if not (key == "title" and named)}
    return [_plain(item) for item in schema] if isinstance(schema, list) else schema


def _write_defaults(schema: dict[str, Any], section: Any) -> None:
    from pydantic import TypeAdapter

    for name, field in section.model_fields.items():
        shown = schema["properties"][name]
        shown.pop("default", None)
        if field.is_required() or "$ref" in shown or "oneOf" in shown:
            continue
        annotated: Any = TypeAdapter(_annotation(field))
        shown["default"] = annotated.dump_python(field.default, mode="json")


def _annotation(field: Any) -> Any:
    from typing import Annotated

    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


if __name__ == "__main__":
    Path(__file__).with_name("schema.json").write_text(schema_text(), encoding="utf-8")
