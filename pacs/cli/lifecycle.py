"""How long what is kept: `pacs protect`, `pacs label`, `pacs retention`, `pacs quotas`."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pacs.cli.console import Json, emit, err, fail, open_archive, out, show
from pacs.model.lifecycle import COMMITTED, PROTECTED

if TYPE_CHECKING:
    from pacs.upkeep.retention import Due

app = typer.Typer(help="Rules by which studies are forgotten (store.retain).", no_args_is_help=True)
_Study = Annotated[str, typer.Argument(metavar="STUDY", help="The archive's own UID of a study; without it, all that are so.")]
_Remove = Annotated[bool, typer.Option("--remove", help="Take it away again.")]
_Rule = Annotated[str, typer.Option("--rule", metavar="NAME", help="Only the rule of this name.")]
_DUE = {
    "rule": "Rule",
    "study_instance_uid": "Study",
    "arrived_at": "Arrived",
    "study_date": "Study date",
    "size_bytes": "Bytes",
    "kept_by": "Kept, because",
}


def protect(
    study: _Study = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; it is said wherever forgetting is refused.")] = "",
    remove: _Remove = False,
    as_json: Json = False,
) -> None:
    """Keep a study from every retention rule and from `pacs forget`, until it is taken away again."""
    if study and not remove and not reason.strip():
        raise fail("say why: --reason TEXT", 2)
    _mark(study, PROTECTED, reason, remove, as_json)


def label(
    study: _Study = "",
    name: Annotated[str, typer.Argument(metavar="LABEL", help="A word that rules can ask for.")] = "",
    remove: _Remove = False,
    as_json: Json = False,
) -> None:
    """Give a study a label that retention rules can ask for, or list all labels."""
    if study and not name.strip():
        raise fail("say which label", 2)
    if name == PROTECTED or (name == COMMITTED and not remove):
        raise fail(f"{name} is not given so: `pacs protect` protects, storage commitment commits", 2)
    _mark(study, name, "", remove, as_json)


def _mark(study: str, name: str, reason: str, remove: bool, as_json: bool) -> None:
    with open_archive("cli") as (_, archive):
        lifecycle = archive.index.lifecycle
        if study and remove and not lifecycle.unlabel(study, name):
            raise fail(f"the study is not {name}")
        if study and not remove:
            lifecycle.label(study, name, reason)
        found = lifecycle.labels([study] if study else None)
    rows = [
        {"study_instance_uid": uid, "label": one, "reason": why}
        for uid, borne in found.items()
        for one, why in borne.items()
        if study or not name or one == name
    ]
    show(rows, columns={"study_instance_uid": "Study", "label": "Label", "reason": "Why"}, as_json=as_json, empty="None.")


@app.command("test")
def test_rules(rule: _Rule = "", as_json: Json = False) -> None:
    """List what the rules would forget now, and what keeps some of it; nothing is changed."""
    from pacs.upkeep import retention

    with open_archive("cli") as (_, archive):
        _known(archive.settings.store.retain, rule)
        found = retention.due(archive, rule=rule)
    _show_due(found, as_json)


@app.command("run")
def run_rules(
    rule: _Rule = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only what would go is listed.")] = False,
    as_json: Json = False,
) -> None:
    """Forget what the rules name: lists it, and goes on with --yes. Rules with automatic = true run in `pacs serve`."""
    from pacs.upkeep import retention

    with open_archive("cli") as (_, archive):
        _known(archive.settings.store.retain, rule)
        found = retention.due(archive, rule=rule)
        if not yes:
            _show_due(found, as_json)
            err.print("Nothing was done. With --yes these are forgotten for good, but for those that are kept.")
            return
        paths = retention.run(archive, found)
    if as_json:
        emit([{"certificate": str(path)} for path in paths])
    else:
        out.print(f"{sum(not one.kept_by for one in found)} studies were due; certificates: {len(paths)}")
        for path in paths:
            out.print(str(path), soft_wrap=True, highlight=False)


def quotas(as_json: Json = False) -> None:
    """Show what of each quota is in use (store.quota_gb, store.quotas)."""
    with open_archive("cli") as (_, archive):
        state = archive.quotas.state()
    rows = [
        {"quota": one.name, "used_bytes": used, "limit_bytes": one.size_bytes, "warning": warning}
        for one, used, warning in state
    ]
    columns = {"quota": "Quota", "used_bytes": "Used", "limit_bytes": "Of", "warning": "Warning"}
    show(rows, columns=columns, as_json=as_json, empty="There are no quotas; the disk is the limit.")


def _known(tables: Sequence[Mapping[str, Any]], rule: str) -> None:
    if not tables:
        raise fail("there are no rules: write [[store.retain]] in pacs.toml, see docs/looking-after.md")
    if rule and rule not in {table.get("name") for table in tables}:
        raise fail(f"there is no rule {rule}")


def _show_due(found: "Sequence[Due]", as_json: bool) -> None:
    rows = [
        {
            "rule": one.rule,
            "study_instance_uid": one.study.study_instance_uid,
            "arrived_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one.study.arrived_at)),
            "study_date": one.study.study_date,
            "size_bytes": one.study.size_bytes,
            "labels": sorted(one.study.labels),
            "kept_by": one.kept_by,
        }
        for one in found
    ]
    show(rows, columns=_DUE, as_json=as_json, empty="No study is due.")
