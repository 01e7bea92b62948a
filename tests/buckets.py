"""Object stores for tests beside moto's S3 server, where the machine has one: Microsoft's Azurite, and any that is named.

Azurite does not come as a wheel, so it is no duty: `npm install azurite` somewhere, and its program `azurite-blob` is found on
PATH or named by PACS_TEST_AZURITE. PACS_TEST_BUCKET_URL names a bucket and prefix of any provider, with credentials in the
usual variables (docs/looking-after.md); whatever the tests create there they delete.
"""

import base64
import hmac
import os
import shutil
import socket
import urllib.request
import uuid
from dataclasses import dataclass
from email.utils import formatdate
from functools import cache
from hashlib import sha256

import pytest
from services import _answers, _folder, _start, _wait

_ACCOUNT, _CONTAINER, _KEY = "testing", "records", base64.b64encode(b"secret of the tests" * 4).decode("ascii")


@dataclass(frozen=True)
class Azure:
    """An Azure Blob server with one container; `environment` is what a client needs to find it and be let in."""

    environment: dict[str, str]

    def new_prefix(self) -> str:
        """Return the URL of a prefix that is empty."""
        return f"az://{_CONTAINER}/{uuid.uuid4().hex}"


@pytest.fixture
def azure() -> Azure:
    """This test process's own Azurite."""
    program = os.environ.get("PACS_TEST_AZURITE") or shutil.which("azurite-blob")
    if not program:
        pytest.skip("azurite-blob is not on PATH, and PACS_TEST_AZURITE does not name it (npm install azurite)")
    return azure_server(program)


@cache
def azure_server(program: str) -> Azure:
    """Start Azurite on loopback, once; its objects are in its memory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = _folder("az-")
    options = ["--blobPort", str(port), "--inMemoryPersistence", "--silent", "--disableTelemetry"]
    # Clients may speak a newer version of the protocol than the emulator has heard of.
    account = ["/usr/bin/env", f"AZURITE_ACCOUNTS={_ACCOUNT}:{_KEY}"]
    _start(folder, [*account, program, *options, "--skipApiVersionCheck"], as_nobody=False)
    _wait(lambda: _answers(port), folder, "Azurite")
    _create_container(port)
    return Azure(
        {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
            "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_ACCOUNT}",
        }
    )


def _create_container(port: int) -> None:
    """Ask for the container, as the Blob service's "Authorize with Shared Key" signs it."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    said = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    signed = f"PUT{12 * chr(10)}{said}/{_ACCOUNT}/{_ACCOUNT}/{_CONTAINER}\nrestype:container".encode()
    signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), signed, sha256)).decode("ascii")
    headers |= {"Authorization": f"SharedKey {_ACCOUNT}:{signature}", "Content-Length": "0"}
    url = f"http://127.0.0.1:{port}/{_ACCOUNT}/{_CONTAINER}?restype=container"
    with urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=10) as answer:
        assert answer.status == 201


@pytest.fixture
def named_bucket() -> str:
    """The URL of an empty prefix in the bucket that PACS_TEST_BUCKET_URL names."""
    url = os.environ.get("PACS_TEST_BUCKET_URL", "")
    if not url:
        pytest.skip("PACS_TEST_BUCKET_URL names no bucket")
    return f"{url.rstrip('/')}/{uuid.uuid4().hex}"
