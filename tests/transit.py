"""A small server that speaks as the transit engine of HashiCorp Vault does: encrypt, decrypt, rotate, tokens, sealed or not.

Statuses and texts are those of its HTTP API. The real one is in no package registry that the tests may use.
"""

import base64
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TOKEN = "s.of-the-tests"


class Transit:
    """What a server holds: versions of keys by name, whether it is sealed, and what it was asked."""

    def __init__(self) -> None:
        self.keys: dict[str, list[bytes]] = {"mini-pacs": [secrets.token_bytes(32)], "other": [secrets.token_bytes(32)]}
        self.sealed = 0
        """How many more requests are answered as by a sealed server; -1 for all."""
        self.asked: list[str] = []
        self.url = ""

    def rotate(self, name: str) -> None:
        """Add a version to a key, as `vault write -f transit/keys/NAME/rotate` does."""
        self.keys[name].append(secrets.token_bytes(32))

    def answer(self, path: str, token: str, body: dict[str, str]) -> tuple[int, dict[str, object]]:
        """Return status and body of an answer."""
        self.asked.append(path)
        if self.sealed:
            self.sealed -= self.sealed > 0
            return 503, {"errors": ["Vault is sealed"]}
        if token != TOKEN:
            return 403, {"errors": ["permission denied"]}
        parts = path.strip("/").split("/")
        if parts[:2] != ["v1", "transit"] or len(parts) != 4:
            return 404, {"errors": [f'no handler for route "{path}". route entry not found.']}
        _, _, action, name = parts
        versions = self.keys.get(name)
        if versions is None:
            return 400, {"errors": ["encryption key not found"]}
        try:
            if action == "encrypt":
                nonce = secrets.token_bytes(12)
                sealed = nonce + AESGCM(versions[-1]).encrypt(nonce, base64.b64decode(body["plaintext"]), None)
                return 200, {"data": {"ciphertext": f"vault:v{len(versions)}:{base64.b64encode(sealed).decode()}"}}
            prefix, version, text = body["ciphertext"].split(":", 2)
            if prefix != "vault" or not 1 <= int(version[1:]) <= len(versions):
                return 400, {"errors": ["invalid ciphertext: no prefix"]}
            sealed = base64.b64decode(text)
            plain = AESGCM(versions[int(version[1:]) - 1]).decrypt(sealed[:12], sealed[12:], None)
        except (InvalidTag, ValueError, KeyError):
            return 400, {"errors": ["cipher: message authentication failed"]}
        return 200, {"data": {"plaintext": base64.b64encode(plain).decode()}}


@contextmanager
def transit() -> Iterator[Transit]:
    """Serve one on loopback for a `with` block."""
    held = Transit()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, answer = held.answer(self.path, self.headers.get("X-Vault-Token", ""), body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        held.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield held
        finally:
            server.shutdown()
            thread.join()
