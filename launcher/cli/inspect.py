"""The verbs that look and start nothing: validate, schema, completion."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from launcher.cli.output import OUTPUT_OPTION, SET_OPTION, print_json, print_table, report, styled
from launcher.errors import EXIT_OK, EXIT_PROFILE, ProfileError

if TYPE_CHECKING:
    from launcher.profile.keys import Key


@click.command("validate", epilog="Example: launcher validate profiles/*.yaml")
@click.argument("paths", metavar="PROFILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@SET_OPTION
@OUTPUT_OPTION
def validate_command(paths: Sequence[Path], sets: Sequence[str], output: str) -> int:
    """Check profiles: every fault, with its place and remedy. Needs no GPU, no vLLM and no network.

    Overrides count here too (--set, then LAUNCHER__… in the environment). Exits with 3 if any profile is not valid.
    """
    results = [_validate(path, sets) for path in paths]
    valid = all(result["valid"] for result in results)
    if output == "json":
        print_json({"valid": valid, "profiles": results})
        return EXIT_OK if valid else EXIT_PROFILE
    for result in results:
        if result["valid"]:
            click.echo(f"{styled('ok', sys.stdout, fg='green')}  {result['path']}  {result['name']}  {result['model']}")
        else:
            _tell_faults(result)
    return EXIT_OK if valid else EXIT_PROFILE


def _validate(path: Path, sets: Sequence[str]) -> dict[str, Any]:
    from launcher.profile.faults import ProfileFaults, dotted
    from launcher.profile.load import load_profile

    try:
        profile = load_profile(path, sets=sets).profile
    except ProfileFaults as error:
        faults = [
            {
                "file": fault.place.source if fault.place.line else None,
                "line": fault.place.line or None,
                "column": fault.place.column or None,
                "source": str(fault.place),
                "key": dotted(fault.path) or None,
                "message": fault.sentence,
            }
            for fault in error.faults
        ]
        return {"path": str(path), "valid": False, "faults": faults, "hint": error.hint, "message": error.message}
    except ProfileError as error:
        return {"path": str(path), "valid": False, "faults": [], "hint": error.hint, "message": error.message}
    model = profile.model.source or profile.model.public_name or f"external, {len(getattr(profile.engine, 'urls', ()))}"
    return {"path": str(path), "valid": True, "name": profile.name, "model": model, "faults": []}


def _tell_faults(result: dict[str, Any]) -> None:
    """The faults to stderr, one a line as file:line:column, which editors and terminals make links of."""
    count = len(result["faults"])
    if not count:
        report(result["message"], result["hint"])
        return
    click.echo(result["message"], err=True)
    report(f"{result['path']} has {count} fault{'s' if count > 1 else ''}", result["hint"])


@click.command("schema", epilog="Example: launcher schema --key engine.compile")
@click.option("--keys", "as_table", is_flag=True, help="A table of every key: type, default and meaning.")
@click.option("--key", "wanted", metavar="KEY", help="Only this key, or the keys of this section.")
@click.option("--markdown", is_flag=True, help="The table as Markdown, as it stands in the README.")
@OUTPUT_OPTION
def schema_command(as_table: bool, wanted: str | None, markdown: bool, output: str) -> None:
    """Print the profile's JSON Schema, or a table of its keys.

    Editors take the schema from a profile's first line: # yaml-language-server: $schema=PATH
    """
    if not (as_table or wanted or markdown):
        from launcher.profile.schema import packaged_schema

        click.echo(packaged_schema(), nl=False)
        return
    from launcher.profile.keys import markdown_table

    keys = _choose_keys(wanted)
    if output == "json":
        print_json({"keys": [key._asdict() for key in keys]})
    elif markdown:
        click.echo(markdown_table(keys), nl=False)
    elif wanted and len(keys) == 1:
        _explain(keys[0])
    else:
        rows = [(key.path, key.type, key.default or "(required)", key.description) for key in keys]
        print_table(("KEY", "TYPE", "DEFAULT", "MEANING"), rows)


def _choose_keys(wanted: str | None) -> Sequence[Key]:
    from launcher.profile.faults import closest
    from launcher.profile.keys import profile_keys

    keys = profile_keys()
    if wanted is None:
        return keys
    found = [key for key in keys if key.path == wanted or key.path.startswith(f"{wanted}.")]
    if not found:
        last = {key.path.rpartition(".")[2]: key.path for key in reversed(keys)}
        near = last.get(wanted) or closest(wanted, [key.path for key in keys]) or last.get(closest(wanted, last) or "")
        raise click.UsageError(f'There is no key "{wanted}".' + (f' Did you mean "{near}"?' if near else ""))
    return found


def _explain(key: Key) -> None:
    click.echo(styled(key.path, sys.stdout, bold=True))
    click.echo(f"  {key.description}")
    click.echo(f"  type:    {key.type}")
    click.echo(f"  default: {key.default or '(none: it must be given)'}")
    if key.kind:
        click.echo(f"  only for engine.kind: {key.kind}")


# Where each shell looks for a script; shown on stderr, so that stdout can go straight into the file.
SCRIPT_PLACES = {
    "bash": "launcher completion bash > ~/.local/share/bash-completion/completions/launcher",
    "zsh": "launcher completion zsh > ~/.zfunc/_launcher      (with `fpath+=~/.zfunc` before compinit in ~/.zshrc)",
    "fish": "launcher completion fish > ~/.config/fish/completions/launcher.fish",
}


@click.command(
    "completion", epilog="Example: launcher completion bash > ~/.local/share/bash-completion/completions/launcher"
)
@click.argument("shell", type=click.Choice(tuple(SCRIPT_PLACES)))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print a completion script for bash, zsh or fish. Put it where the shell looks, and open a new one."""
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(ctx.find_root().command, {}, "launcher", "_LAUNCHER_COMPLETE").source())
    if sys.stdout.isatty():
        click.echo(f"# To install it: {SCRIPT_PLACES[shell]}", err=True)
