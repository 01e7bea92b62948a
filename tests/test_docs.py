"""What the documents claim is so: commands exist, settings are documented, links lead somewhere, nothing private is named."""

import re
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from pacs.cli.app import app
from pacs.settings import as_toml, load, reference

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_named_exists(path: Path) -> None:
    """A reader who types what a document says gets no "no such command"."""
    root = get_command(app)
    for line in re.findall(r"(?:^|`|\s)(?:\./run|pacs) ([a-z][a-z -]*)", path.read_text(encoding="utf-8"), re.M):
        words = line.split()
        if words[0] == "test":
            continue
        commands = root.commands  # type: ignore[attr-defined]
        if words[0] in commands and hasattr(commands[words[0]], "commands") and words[1:] and words[1][0] != "-":
            assert words[1] in commands[words[0]].commands, f"{path.name}: pacs {line}"


@pytest.mark.parametrize("command", sorted(get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_has_help(command: str) -> None:
    """`pacs WORD --help` teaches: every command and every option says what it does."""
    found = get_command(app).commands[command]  # type: ignore[attr-defined]
    for one in getattr(found, "commands", {"": found}).values():
        assert one.help, command
        for parameter in one.params:
            assert parameter.param_type_name == "argument" or parameter.help, f"{command} --{parameter.name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    """Links within the repository point at files that are there."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_settings_are_documented() -> None:
    """docs/settings.md is what the code would write."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == reference()


def test_written_settings_read_back_as_the_defaults(tmp_path: Path) -> None:
    """The commented pacs.toml of a new home changes nothing, and with every # taken away it still changes nothing."""
    text = as_toml()
    for content in (text, re.sub(r"^# (?=\w+ = )", "", text, flags=re.M)):
        (tmp_path / "pacs.toml").write_text(content, encoding="utf-8")
        assert load(tmp_path, {}) == load(tmp_path / "absent", {}).__class__(home=tmp_path)


def test_run_is_executable_and_knows_its_words() -> None:
    """`./run` is what the README says: a POSIX script that explains itself."""
    for name in ("run", ".ci/run"):
        assert (ROOT / name).stat().st_mode & 0o111, f"{name} has no run bit"
    subprocess.run(["sh", "-n", str(ROOT / "run")], check=True)


def test_nothing_of_a_developers_machine_is_named() -> None:
    """No absolute home path and no address of a package index in what is committed."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"/root/|/home/(?!pacs)\w+/|pypi\.org|files\.pythonhosted")
    for name in listed.stdout.split():
        path = ROOT / name
        if (
            path.is_file()
            and path.suffix in {".py", ".md", ".toml", ".lock", ".yml", ".sh", ".html", ""}
            and path != Path(__file__)
        ):
            assert not pattern.search(path.read_text(encoding="utf-8", errors="replace")), name
