"""The two key-encryption keys of a home, wherever they come from: made, opened, rotated, exported and brought back.

`image` wraps the study keys and the quarantine's; it can be rotated. `identity` is what pseudonyms are derived from; it cannot,
because every pseudonym would change. The environment is handed in: rooms do not read it themselves.
"""

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs.model.errors import ConfigurationError
from pacs.store import providers
from pacs.store.providers import FileKeyProvider, GivenKeyProvider, LocalKeys, PassphraseKeyProvider, siblings, sync_folder
from pacs.store.wardens import AwsKms, VaultTransit, Warded, WardedKeyProvider, Warden

NAMES = ("image", "identity")
PROVIDERS = ("file", "env", "passphrase", "systemd", "aws-kms", "vault")
SERVICES = ("aws-kms", "vault")
VARIABLES = {"image": "PACS_KEYS_IMAGE", "image.next": "PACS_KEYS_IMAGE_NEXT", "identity": "PACS_KEYS_IDENTITY"}
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

    def path(self, name: str) -> Path:
        """Return where the key of this name lies, or would lie."""
        return self._folder / f"{name}.key"

    def missing(self) -> list[str]:
        """Return what would have to be there before the keys can be opened: names of files or variables."""
        if self.kept_here:
            return [self.path(name).name for name in NAMES if not self.path(name).exists()]
        return [self._given_from(name) for name in NAMES if not self._given(name)]

    def create(self, name: str) -> None:
        """Make a new random key. Raises `ConfigurationError` if there is one, or if keys are given from outside."""
        if self._provider == "file":
            FileKeyProvider.create(self.path(name))
        elif self._provider == "passphrase":
            PassphraseKeyProvider.make(self.path(name), self._passphrase())
        elif self._provider in SERVICES:
            providers.write_key_file(self.path(name), self._text(secrets.token_bytes(providers.KEY_BYTES)))
        else:
            raise ConfigurationError(
                f"{self._given_from(name)} is missing; `pacs keys generate` prints a new key, which you must keep"
            )

    def open(self, name: str) -> LocalKeys:
        """Open the key of this name. Raises `ConfigurationError`, which says what to do."""
        if self._provider == "file":
            return FileKeyProvider.open(self.path(name))
        if self._provider == "passphrase":
            return PassphraseKeyProvider.unlock(self.path(name), self._passphrase())
        if self._provider in SERVICES:
            return WardedKeyProvider.unseal(self.path(name), self._service().parse)
        text = self._given(name)
        if not text:
            raise ConfigurationError(f"{self._given_from(name)} is missing; bring the key back from where you keep it")
        return GivenKeyProvider.parse(text, self._given_from(name), next_text=self._given(f"{name}.next"))

    # --- rotation of the image key ---------------------------------------------------------------------------------------

    def next_key(self) -> str:
        """Return the name of the key to rotate to; made here if it is not there yet. Raises `ConfigurationError`."""
        if self.kept_here:
            following = siblings(self.path("image"))[1]
            if not following.exists():
                providers.write_key_file(following, self._text(secrets.token_bytes(providers.KEY_BYTES)))
            return providers.key_id_of(self._parse(following))
        text = self._given("image.next")
        if not text:
            raise ConfigurationError(
                f"give the new key as {self._given_from('image.next')} beside the present one; `pacs keys generate` prints one"
            )
        return providers.key_id_of(providers.parse_given(text, self._given_from("image.next")))

    def only_the_end_is_left(self) -> bool:
        """Tell whether a rotation was cut short after its new key was put in force."""
        _, following, old = siblings(self.path("image"))
        return self.kept_here and old.exists() and not following.exists()

    def rotation_begun(self) -> bool:
        """Tell whether a rotation was begun and has not ended."""
        return self.kept_here and any(path.exists() for path in siblings(self.path("image"))[1:])

    def swap(self) -> None:
        """Put the next key in force, and keep the old one beside it. Repeatable after a crash at any point."""
        here, following, old = siblings(self.path("image"))
        if not following.exists():
            return
        # A link first: at no moment is there no key, and the rename replaces the name in one step.
        with contextlib.suppress(FileExistsError):
            os.link(here, old)
        following.rename(here)
        sync_folder(self._folder)

    def destroy_old(self) -> str:
        """Overwrite and remove the key that was rotated away; returns its name, "" if there was none."""
        _, _, old = siblings(self.path("image"))
        key_id = ""
        if old.exists():
            key_id = providers.key_id_of(self._parse(old))
            # Out of the way first: half overwritten it would be a key file that nobody can read.
            old.rename(old.with_suffix(".gone"))
            sync_folder(self._folder)
        for gone in self._folder.glob("*.gone"):
            with gone.open("r+b") as file:
                file.write(bytes(gone.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            gone.unlink()
            sync_folder(self._folder)
        return key_id

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
        """Return both keys as text to be kept apart; `mark_exported` notes that it was."""
        return _EXPORT_HEAD + "".join(f"[{name}]\n{providers.key_file(self.open(name).reveal())}" for name in NAMES)

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

        Nothing is replaced, and nothing is written unless the image key opens this home's key ring, if there is one. Raises
        `ConfigurationError`.
        """
        if not self.kept_here:
            raise ConfigurationError(f"keys.provider = {self._provider}: the keys are given from outside; put them there")
        keys = self._sections(text)
        written = []
        for name, key in keys.items():
            path = self.path(name)
            if path.exists():
                if self.open(name).key_id != providers.key_id_of(key):
                    raise ConfigurationError(f"{path} holds another key; a key is never replaced")
                continue
            if name == "image":
                self._check_ring(key)
            written.append(name)
        for name in written:
            providers.write_key_file(self.path(name), self._text(keys[name]))
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
        if not found or not found.keys() <= set(NAMES):
            raise ConfigurationError("this is not a key export of mini-pacs")
        return {
            name: providers.parse_key_file("\n".join(lines).encode("utf-8", "replace"), Path(f"the export's {name} key"))
            for name, lines in found.items()
        }

    def _check_ring(self, key: bytes) -> None:
        ring = self._folder / "study-keys.db"
        if not ring.exists():
            return
        try:
            with contextlib.closing(sqlite3.connect(f"file:{ring}?mode=ro", uri=True)) as connection:
                row = connection.execute("SELECT key_id FROM ring").fetchone()
        except sqlite3.Error as error:
            raise ConfigurationError(f"{ring} is not a key ring; bring it back from its backup") from error
        if row is None or row[0] != providers.key_id_of(key):
            raise ConfigurationError(
                f"this home's key ring is wrapped with the key {row[0] if row else '?'}, the export holds "
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

    def _parse(self, path: Path) -> bytes:
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

    def _given(self, name: str) -> str:
        if self._provider == "env":
            return self._environment.get(VARIABLES.get(name, ""), "")
        return self._credential(f"{name}.key")

    def _given_from(self, name: str) -> str:
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
