"""Services that seal the key files of a home: AWS KMS, and the transit engine of HashiCorp Vault or OpenBao.

The service keeps one key that never leaves it; with it, it seals the two key-encryption keys, whose sealed form lies in the
home. It is asked once a key when a process starts, so the archive goes on while the service is away, and everything else
(rotation, export, derived keys) is as with key files. Whoever has the home and not the service has nothing.
Sources: AWS KMS API Reference 2014-11-01, Encrypt and Decrypt; Vault HTTP API, transit secrets engine.
"""

import base64
import binascii
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, ConfigurationError, Unavailable
from pacs.store.providers import KEY_BYTES, FileKeyProvider, checked_lines, key_id_of, read_with_siblings, values_of_lines

log = get_logger(__name__)
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""How long a start waits for a service that is away, before it gives up."""
_TIMEOUT_S = 10.0
_MISCONFIGURED = """
    AccessDeniedException NotFoundException DisabledException InvalidCiphertextException IncorrectKeyException
    KMSInvalidStateException InvalidKeyUsageException ValidationException UnrecognizedClientException InvalidArnException
    InvalidSignatureException ExpiredTokenException IncompleteSignature MissingAuthenticationToken InvalidClientTokenId
    """.split()


class Warden(Protocol):
    """Seals and opens keys with a key that it never gives away."""

    name: str

    def seal(self, key: bytes, context: str) -> bytes:
        """Seal a key. Raises `ConfigurationError` where the service refuses, `Unavailable` where it does not answer."""

    def open(self, sealed: bytes, context: str) -> bytes:
        """Open what was sealed. Raises as `seal`."""


class WardedKeyProvider(FileKeyProvider):
    """A key-encryption key in a file that a service has sealed."""

    def __init__(self, key: bytes, others: Iterable[bytes], *, path: Path, parse: Callable[[bytes, Path], bytes]) -> None:
        super().__init__(key, others, path=path)
        self._opened_by = parse

    @classmethod
    def unseal(cls, path: Path, parse: Callable[[bytes, Path], bytes]) -> "WardedKeyProvider":
        """Read the key at `path`, and what a rotation has put beside it; `parse` has the service open each."""
        key, others = read_with_siblings(path, parse)
        return cls(key, others, path=path, parse=parse)

    def _parse(self, content: bytes, path: Path) -> bytes:
        return self._opened_by(content, path)


class Warded:
    """Key files sealed by one service; what was opened once is not asked for again."""

    def __init__(
        self, warden: Warden, *, waits_s: Iterable[float] = WAITS_S, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._warden = warden
        self._waits_s = tuple(waits_s)
        self._sleep = sleep
        self._opened: dict[bytes, bytes] = {}

    def text(self, key: bytes) -> str:
        """Return the text of a key file that the service has sealed. Raises `ConfigurationError`, `Unavailable`."""
        key_id = key_id_of(key)
        wrapped = base64.b64encode(self._patiently(lambda: self._warden.seal(key, key_id))).decode()
        return checked_lines(f"mini-pacs-warded-key: 1\nkey-id: {key_id}\nservice: {self._warden.name}\nwrapped: {wrapped}\n")

    def parse(self, content: bytes, path: Path) -> bytes:
        """Return the key of such a file.

        Raises
        ------
        ConfigurationError
            The file was changed or is another service's, or the service does not open it: a wrong key, or no permission.
        Unavailable
            The service did not answer, however often it was asked.
        """
        problem = ConfigurationError(
            f"{path} is not a key sealed by a service, or it was changed; bring it back from its backup"
        )
        values = values_of_lines(content, ("mini-pacs-warded-key", "key-id", "service", "wrapped"), problem)
        if values["mini-pacs-warded-key"] != "1":
            raise ConfigurationError(f"{path} has a version that this release does not know")
        if values["service"] != self._warden.name:
            raise ConfigurationError(f"{path} was sealed by {values['service']}; keys.provider says {self._warden.name}")
        try:
            wrapped = base64.b64decode(values["wrapped"], validate=True)
        except (ValueError, binascii.Error) as error:
            raise problem from error
        key = self._opened.get(content)
        if key is None:
            key = self._patiently(lambda: self._warden.open(wrapped, values["key-id"]))
        if len(key) != KEY_BYTES or key_id_of(key) != values["key-id"]:
            raise ConfigurationError(f"{self._warden.name} opened {path} to another key than it holds; bring it back")
        self._opened[content] = key
        return key

    def _patiently(self, call: Callable[[], bytes]) -> bytes:
        for wait_s in self._waits_s:
            try:
                return call()
            except Unavailable as error:
                log.warning("key_service_waits", kind=self._warden.name, retry_in_s=wait_s, reason=str(error))
                self._sleep(wait_s)
        return call()


class AwsKms:
    """A symmetric key of AWS KMS. Credentials and region come as boto3 finds them (variables, profile, role of the machine)."""

    name = "aws-kms"

    def __init__(self, key: str) -> None:
        """Use the key of this ARN, id or alias. Raises `ConfigurationError`."""
        try:
            import boto3
            import botocore.exceptions as problems
            from botocore.config import Config
        except ImportError as error:
            raise ConfigurationError("keys.provider = aws-kms needs boto3: install mini-pacs[aws-kms]") from error
        if not key:
            raise ConfigurationError("keys.provider = aws-kms: say which key, keys.kms_key = its ARN or alias/NAME")
        self._key, self._problems = key, problems
        once = Config(connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"total_max_attempts": 1})
        try:
            self._client: Any = boto3.client("kms", config=once)
        except (problems.BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"AWS KMS cannot be asked: {error}") from error

    def seal(self, key: bytes, context: str) -> bytes:
        """Encrypt; the context is authenticated and appears in CloudTrail (it says nothing about the key)."""
        return self._asked("Encrypt", "CiphertextBlob", Plaintext=key, context=context)

    def open(self, sealed: bytes, context: str) -> bytes:
        """Decrypt, with this key and no other."""
        return self._asked("Decrypt", "Plaintext", CiphertextBlob=sealed, context=context)

    def _asked(self, action: str, wanted: str, *, context: str, **values: Any) -> bytes:
        problems = self._problems
        try:
            ask = getattr(self._client, action.lower())
            return bytes(ask(KeyId=self._key, EncryptionContext={"mini-pacs-key": context}, **values)[wanted])
        except problems.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "?")
            if code in _MISCONFIGURED:
                raise ConfigurationError(f"AWS KMS refuses {action} with the key {self._key}: {code}") from error
            raise Unavailable(f"AWS KMS does not answer {action} now: {code}") from error
        except (problems.NoCredentialsError, problems.PartialCredentialsError, problems.NoRegionError) as error:
            raise ConfigurationError(f"AWS KMS cannot be asked: {error}") from error
        except problems.BotoCoreError as error:
            raise Unavailable(f"AWS KMS cannot be reached ({type(error).__name__})") from error


class VaultTransit:
    """A key of the transit engine of HashiCorp Vault or OpenBao, over HTTP."""

    name = "vault"

    def __init__(self, url: str, key: str, token: str, *, namespace: str = "", ca: str = "") -> None:
        """Use `key`, as MOUNT/NAME, of the server at `url`. Raises `ConfigurationError`."""
        parts = urlsplit(url)
        self._mount, _, self._key = key.rpartition("/")
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ConfigurationError("keys.provider = vault: keys.vault_url must be https://HOST:PORT")
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ConfigurationError("keys.vault_url: keys go over TLS only, https://…, but to this machine itself")
        if not self._mount or not self._key:
            raise ConfigurationError("keys.provider = vault: keys.vault_key must be MOUNT/NAME, for example transit/mini-pacs")
        if not token:
            raise ConfigurationError("keys.provider = vault: set VAULT_TOKEN, or give the credential `vault-token`")
        self._url = url.rstrip("/")
        self._headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Content-Type": "application/json"}
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace
        try:
            handlers = [urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=ca or None)), _NoRedirect()]
        except OSError as error:
            raise ConfigurationError(f"VAULT_CACERT: cannot read {ca}") from error
        self._opener = urllib.request.build_opener(*handlers)

    def seal(self, key: bytes, context: str) -> bytes:
        """Have the newest version of the key encrypt."""
        answer = self._asked("encrypt", {"plaintext": base64.b64encode(key).decode()})
        return str(answer.get("ciphertext", "")).encode("ascii", "replace")

    def open(self, sealed: bytes, context: str) -> bytes:
        """Have the version that sealed it decrypt."""
        answer = self._asked("decrypt", {"ciphertext": sealed.decode("ascii", "replace")})
        try:
            return base64.b64decode(str(answer.get("plaintext", "")), validate=True)
        except (ValueError, binascii.Error) as error:
            raise Unavailable("Vault's answer is not understood") from error

    def _asked(self, action: str, body: Mapping[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._url}/v1/{self._mount}/{action}/{self._key}", json.dumps(body).encode(), self._headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                data = json.loads(response.read(1 << 20)).get("data")
        except urllib.error.HTTPError as error:
            raise self._refused(action, error) from error
        except ssl.SSLCertVerificationError as error:
            raise ConfigurationError(
                f"Vault's certificate is not trusted ({error.verify_message}); set VAULT_CACERT"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(reason := getattr(error, "reason", None), ssl.SSLCertVerificationError):
                said = f"Vault's certificate is not trusted ({reason.verify_message}); set VAULT_CACERT"
                raise ConfigurationError(said) from error
            raise Unavailable(f"Vault at {self._url} cannot be reached ({type(error).__name__})") from error
        except (ValueError, AttributeError) as error:
            raise Unavailable("Vault's answer is not understood") from error
        if not isinstance(data, dict):
            raise Unavailable("Vault's answer is not understood")
        return data

    def _refused(self, action: str, error: urllib.error.HTTPError) -> ArchiveError:
        """Return what a status means: Vault answers 4xx to what will not change, 412, 429, 472, 473 and 5xx to what may."""
        try:
            said = "; ".join(map(str, json.loads(error.read(1 << 16)).get("errors") or [])) or "no reason given"
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            said = "no reason given"
        if error.code in (400, 401, 403, 404, 405):
            hint = " (is the token valid, and may it?)" if error.code in (401, 403) else ""
            key = f"{self._mount}/{self._key}"
            return ConfigurationError(f"Vault refuses to {action} with the key {key}: {error.code}, {said}{hint}")
        return Unavailable(f"Vault does not {action} now: {error.code}, {said}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is given to whom the settings name, and to nobody else."""

    def redirect_request(self, *_: Any) -> None:
        return None
