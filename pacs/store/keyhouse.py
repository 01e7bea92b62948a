"""The two key-encryption keys of a home, wherever they come from: made, opened, exported and brought back.

`image` wraps the study keys and the quarantine's, `identity` the two secrets that names are derived from and identities are
sealed with (`identity_keys.py`). Either gives way to a next one by `keychange.py`. The environment is handed in: rooms do not
read it themselves.
"""

import contextlib
import json
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs.model.errors import ConfigurationError
from pacs.store import identity_keys, providers
from pacs.store.identity_keys import IdentityKeys
from pacs.store.keychange import KeyChange
from pacs.store.keys import KeyRing
from pacs.store.providers import FileKeyProvider, GivenKeyProvider, LocalKeys, PassphraseKeyProvider, sync_folder
from pacs.store.wardens import AwsKms, VaultTransit, Warded, WardedKeyProvider, Warden

NAMES = ("image", "identity")
PROVIDERS = ("file", "env", "passphrase", "systemd", "aws-kms", "vault")
SERVICES = ("aws-kms", "vault")
VARIABLES = {
    "image": "PACS_KEYS_IMAGE",
    "image.next": "PACS_KEYS_IMAGE_NEXT",
    "identity": "PACS_KEYS_IDENTITY",
    "identity.next": "PACS_KEYS_IDENTITY_NEXT",
}
PASSPHRASE = "PACS_KEYS_PASSPHRASE"
SECRETS = frozenset({*VARIABLES.values(), PASSPHRASE})
"""Variables that carry secrets; they are no settings, so that no file and no listing holds them."""
_EXPORT_HEAD = "# mini-pacs key export: keep it apart from the data, and from who may not read them\n"


@dataclass(frozen=True, slots=True)
class KeyState:
    """What there is to say of a key without saying the key."""

    name: str
    key_id: str
    provider: str
    exported: bool


class KeyHouse:
    """The key-encryption keys of one home."""

    def __init__(
        self,
        folder: Path,
        provider: str = "file",
        environment: Mapping[str, str] | None = None,
        *,
        service_key: str = "",
        service_url: str = "",
    ) -> None:
        """Use the keys of the folder `keys` of a home, or those that `environment` carries. Raises `ConfigurationError`.

        A service that seals key files is told by its own key's name and, where it needs one, its URL.
        """
        if provider not in PROVIDERS:
            raise ConfigurationError(f"keys.provider must be one of {', '.join(PROVIDERS)}")
        self._folder = folder
        self._provider = provider
        self._environment = environment or {}
        self._service_key, self._service_url = service_key, service_url
        self._held: Warded | None = None

    @property
    def provider(self) -> str:
        """Which provider this is, by the name of its setting."""
        return self._provider

    @property
    def kept_here(self) -> bool:
        """Whether the keys lie in this home; otherwise whoever gives them keeps them."""
        return self._provider in ("file", "passphrase", *SERVICES)

    @property
    def ring(self) -> Path:
        """Where the key ring lies, and beside it what the identity key wraps."""
        return self._folder / "study-keys.db"

    def path(self, name: str) -> Path:
        """Return where the key of this name lies, or would lie."""
        return self._folder / f"{name}.key"

    def missing(self) -> list[str]:
        """Return what would have to be there before the keys can be opened: names of files or variables."""
        if self.kept_here:
            return [self.path(name).name for name in NAMES if not self.path(name).exists()]
        return [self.given_from(name) for name in NAMES if not self.given(name)]

    def create(self, name: str) -> None:
        """Make a new random key. Raises `ConfigurationError` if there is one, or if keys are given from outside."""
        if self._provider == "file":
            FileKeyProvider.create(self.path(name))
        elif self._provider == "passphrase":
            PassphraseKeyProvider.make(self.path(name), self._passphrase())
        elif self._provider in SERVICES:
            providers.write_key_file(self.path(name), self.new_text())
        else:
            raise ConfigurationError(
                f"{self.given_from(name)} is missing; `pacs keys generate` prints a new key, which you must keep"
            )

    def open(self, name: str) -> LocalKeys:
        """Open the key of this name. Raises `ConfigurationError`, which says what to do."""
        if self._provider == "file":
            return FileKeyProvider.open(self.path(name))
        if self._provider == "passphrase":
            return PassphraseKeyProvider.unlock(self.path(name), self._passphrase())
        if self._provider in SERVICES:
            return WardedKeyProvider.unseal(self.path(name), self._service().parse)
        text = self.given(name)
        if not text:
            raise ConfigurationError(f"{self.given_from(name)} is missing; bring the key back from where you keep it")
        return GivenKeyProvider.parse(text, self.given_from(name), next_text=self.given(f"{name}.next"))

    def change(self, name: str) -> KeyChange:
        """Return the change of a key to the next one."""
        return KeyChange(self, name)

    # --- escrow ----------------------------------------------------------------------------------------------------------

    def states(self) -> list[KeyState]:
        """Return what there is to say of each key."""
        exported = self._exported()
        return [
            KeyState(name, key_id, self._provider, key_id in exported or not self.kept_here)
            for name, key_id in ((name, self.open(name).key_id) for name in NAMES)
        ]

    def unexported(self) -> list[str]:
        """Return the names of keys that exist nowhere but here: lose the disk, and all is lost."""
        return [state.name for state in self.states() if not state.exported] if self.kept_here else []

    def export(self) -> str:
        """Return both keys, and the secrets under the identity key, as text to be kept apart.

        `mark_exported` notes that it was.
        With the secrets a home that lost its key ring still opens its vault, and a new one gives the same pseudonyms.
        """
        found = {name: self.open(name).reveal() for name in NAMES}
        if self.ring.exists() and identity_keys.there(self.ring):
            found |= IdentityKeys.open(self.ring, self.open("identity")).secrets()
        return _EXPORT_HEAD + "".join(f"[{name}]\n{providers.key_file(key)}" for name, key in found.items())

    def mark_exported(self, at: float) -> None:
        """Note that the present keys were exported, so that nobody is warned any more."""
        noted = self._exported() | {self.open(name).key_id: at for name in NAMES}
        path = self._folder / "exported.json"
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(noted, indent=1) + "\n", encoding="ascii")
        temporary.chmod(0o600)
        temporary.replace(path)
        sync_folder(self._folder)

    def bring_back(self, text: str) -> list[str]:
        """Write the keys of an export that are missing here; returns their names.

        Nothing is replaced, and nothing is written unless the keys open this home's key ring, if there is one. Raises
        `ConfigurationError`.
        """
        if not self.kept_here:
            raise ConfigurationError(f"keys.provider = {self._provider}: the keys are given from outside; put them there")
        keys = self._sections(text)
        written = []
        held = [keys.pop(name, None) for name in ("names", "seals")]
        for name, key in keys.items():
            path = self.path(name)
            if path.exists():
                if self.open(name).key_id != providers.key_id_of(key):
                    raise ConfigurationError(f"{path} holds another key; a key is never replaced")
                continue
            self._check_ring(name, key)
            written.append(name)
        for name in written:
            providers.write_key_file(self.path(name), self._text(keys[name]))
        names, seals = held
        if names and seals and not self.missing():
            # Where a ring is there, it has its secrets; a new home begins with those of the export.
            KeyRing.create(self.ring, self.open("image")).close()
            IdentityKeys(names, seals).keep(self.ring, self.open("identity"))
        return written

    def _sections(self, text: str) -> dict[str, bytes]:
        found: dict[str, list[str]] = {}
        name = ""
        for line in text.splitlines():
            if line.startswith("[") and line.rstrip().endswith("]"):
                name = line.strip("[] \r")
                found[name] = []
            elif name:
                found[name].append(line)
        if not found or not found.keys() <= {*NAMES, "names", "seals"}:
            raise ConfigurationError("this is not a key export of mini-pacs")
        return {
            name: providers.parse_key_file("\n".join(lines).encode("utf-8", "replace"), Path(f"the export's {name} key"))
            for name, lines in found.items()
        }

    def _check_ring(self, name: str, key: bytes) -> None:
        if not self.ring.exists():
            return
        try:
            with contextlib.closing(sqlite3.connect(f"file:{self.ring}?mode=ro", uri=True)) as connection:
                in_force = {one for (one,) in connection.execute("SELECT key_id FROM ring")}
        except sqlite3.Error as error:
            raise ConfigurationError(f"{self.ring} is not a key ring; bring it back from its backup") from error
        if name == "identity":
            # Homes of older releases have nothing there that the identity key wraps.
            in_force = set(identity_keys.wrapped_with(self.ring)) or {providers.key_id_of(key)}
        if in_force != {providers.key_id_of(key)}:
            raise ConfigurationError(
                f"this home's key ring is wrapped with the key {', '.join(sorted(in_force)) or '?'}, the export holds "
                f"{providers.key_id_of(key)}: take the export made after the last rotation"
            )

    def _exported(self) -> dict[str, float]:
        try:
            noted = json.loads((self._folder / "exported.json").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def _text(self, key: bytes) -> str:
        if self._provider == "file":
            return providers.key_file(key)
        if self._provider in SERVICES:
            return self._service().text(key)
        return providers.sealed_key_file(key, self._passphrase())

    def new_text(self) -> str:
        """Return the text of a key file with a new random key."""
        return self._text(secrets.token_bytes(providers.KEY_BYTES))

    def parse(self, path: Path) -> bytes:
        """Return the key of a key file of this house. Raises `ConfigurationError`."""
        content = providers.read_key_file(path)
        if self._provider == "file":
            return providers.parse_key_file(content, path)
        if self._provider in SERVICES:
            return self._service().parse(content, path)
        return providers.parse_sealed_key_file(content, path, self._passphrase())

    def _service(self) -> Warded:
        if self._held is None:
            self._held = Warded(self._warden())
        return self._held

    def _warden(self) -> Warden:
        if self._provider == "aws-kms":
            return AwsKms(self._service_key)
        given = self._environment.get
        return VaultTransit(
            self._service_url,
            self._service_key,
            given("VAULT_TOKEN", "") or self._credential("vault-token").strip(),
            namespace=given("VAULT_NAMESPACE", ""),
            ca=given("VAULT_CACERT", ""),
        )

    def _passphrase(self) -> str:
        given = self._environment.get(PASSPHRASE, "") or self._credential("passphrase").rstrip("\n")
        if not given:
            raise ConfigurationError(f"keys.provider = passphrase: set {PASSPHRASE}, or give the credential `passphrase`")
        return given

    def given(self, name: str) -> str:
        """Return the key that is given from outside under this name, as text; "" if none is."""
        if self._provider == "env":
            return self._environment.get(VARIABLES.get(name, ""), "")
        return self._credential(f"{name}.key")

    def given_from(self, name: str) -> str:
        """Return where a key that is given would come from, in words."""
        return VARIABLES[name] if self._provider == "env" else f"the credential {name}.key"

    def _credential(self, name: str) -> str:
        # systemd.exec(5), LoadCredential=: files in a folder that only the service sees.
        folder = self._environment.get("CREDENTIALS_DIRECTORY", "")
        if not folder:
            return ""
        try:
            return (Path(folder) / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the credential {name}") from error
