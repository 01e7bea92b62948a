"""docker-compose.yml and Dockerfile agree with the code: commands, settings, ports and health checks are real."""

import re
from pathlib import Path

import yaml
from typer.main import get_command

from pacs.cli.app import app
from pacs.settings import DicomSettings, WebSettings, environment_names

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
BUCKET = yaml.safe_load((ROOT / "docker-compose.s3.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
OURS = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def commands() -> set[str]:
    """Return every subcommand of `pacs`."""
    return set(get_command(app).commands)  # type: ignore[attr-defined]


def test_every_command_is_a_command_of_pacs() -> None:
    """No service starts something that does not exist."""
    for service in OURS.values():
        assert service["command"][0] == "pacs" and service["command"][1] in commands()
        assert service["healthcheck"]["test"][1:] == ["pacs", "health"]


def test_every_variable_is_a_setting() -> None:
    """A misspelt PACS_* variable would be refused at start; here it fails first."""
    named = {name for service in OURS.values() for name in service["environment"]}
    named |= set(re.findall(r"\b(PACS_[A-Z_]+)=", DOCKERFILE))

    assert named <= environment_names()


def test_the_bucket_s_file_adds_settings_and_credentials_only() -> None:
    """It changes services that there are, by settings of ours and variables of S3's own tools; no secret is in it."""
    for name, service in BUCKET["services"].items():
        assert name in OURS and service.keys() == {"environment"}
        ours = {key for key in service["environment"] if key.startswith("PACS_")}
        assert "PACS_STORE_URL" in ours <= environment_names()
        assert all(key.startswith("AWS_") for key in service["environment"].keys() - ours)
        assert all("${" in service["environment"][key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))


def test_ports_are_the_defaults() -> None:
    """What is published is what the server listens on unless told otherwise."""
    published = {port.rsplit(":", 1)[1] for service in OURS.values() for port in service["ports"]}

    assert published == {str(DicomSettings().port), str(WebSettings().port)}
    assert set(re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.M)[0].split()) == published


def test_services_restart_and_do_not_run_as_root() -> None:
    """Every service restarts, has a health check and a pinned image; ours runs as an ordinary user."""
    for service in COMPOSE["services"].values():
        assert service["restart"] == "unless-stopped" and service["healthcheck"]
        assert re.search(r":\d", service["image"])
    assert all(service["user"] not in ("", "0", "root") for service in OURS.values())
    assert re.search(r"^USER (?!0|root)\w+$", DOCKERFILE, re.M)


def test_the_image_is_built_as_run_sets_up() -> None:
    """The Dockerfile installs from the hash-pinned lock, and then our package without looking further."""
    installs = re.findall(r"pip install (.+)$", DOCKERFILE, re.M)

    assert [line for line in installs if "--require-hashes -r requirements.lock" in line]
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
