"""What every key provider promises (`pacs.ports.KeyProvider`); a subclass says how its keys come to it."""

import base64
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from pacs.model.errors import ConfigurationError
from pacs.ports import KeyProvider
from pacs.store import providers
from pacs.store.keyhouse import KeyHouse

IMAGE, NEXT, IDENTITY = (bytes([number]) * 32 for number in (1, 2, 3))


class KeyProviderContract:
    """The promises."""

    def house(self, folder: Path, *, image: bytes = IMAGE, following: bytes | None = None) -> KeyHouse:
        """Return a house whose keys are these, over `folder`."""
        raise NotImplementedError

    def provider(self, folder: Path, *, image: bytes = IMAGE, following: bytes | None = None) -> KeyProvider:
        """Return the provider of the image key."""
        return self.house(folder, image=image, following=following).open("image")

    def test_what_is_wrapped_is_unwrapped(self, tmp_path: Path) -> None:
        """By another opening of the same key, under its name, in its context."""
        first, second = self.provider(tmp_path / "a"), self.provider(tmp_path / "b")

        key_id, wrapped = first.wrap_named(b"k" * 32, b"here")

        assert key_id == first.key_id == second.key_id == providers.key_id_of(IMAGE)
        assert second.unwrap(key_id, wrapped, b"here") == b"k" * 32
        assert second.unwrap(key_id, first.wrap(b"l" * 32, b"here"), b"here") == b"l" * 32
        assert b"k" * 8 not in wrapped
        assert first.wrap(b"k" * 32, b"here") != wrapped, "the same key is never wrapped to the same bytes"

    def test_another_context_key_or_byte_is_refused(self, tmp_path: Path) -> None:
        """What does not authenticate is never a key."""
        provider, other = self.provider(tmp_path / "a"), self.provider(tmp_path / "b", image=NEXT)
        wrapped = provider.wrap(b"k" * 32, b"here")

        for one, key_id, blob, context in (
            (provider, provider.key_id, wrapped, b"there"),
            (provider, provider.key_id, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"here"),
            (provider, provider.key_id, b"", b"here"),
            (provider, "0" * 16, wrapped, b"here"),
            (other, provider.key_id, wrapped, b"here"),
            (other, other.key_id, wrapped, b"here"),
        ):
            with pytest.raises(ConfigurationError):
                one.unwrap(key_id, blob, context)

    def test_derived_keys_follow_key_and_purpose(self, tmp_path: Path) -> None:
        """Equal for the same key and purpose, unlike for any other."""
        first, second = self.provider(tmp_path / "a"), self.provider(tmp_path / "b")

        assert first.derive("pseudonym") == second.derive("pseudonym")
        assert (
            len({first.derive("pseudonym"), first.derive("other"), self.provider(tmp_path / "c", image=NEXT).derive("other")})
            == 3
        )

    def test_two_keys_are_held_while_rotating(self, tmp_path: Path) -> None:
        """The next key unwraps at once, and wraps when told so; a key that is not held cannot be used."""
        provider = self.provider(tmp_path / "a", following=NEXT)
        wrapped = provider.wrap(b"k" * 32, b"here")

        assert provider.key_id == providers.key_id_of(IMAGE)
        provider.use(providers.key_id_of(NEXT))
        provider.refresh()

        assert provider.key_id == providers.key_id_of(NEXT)
        assert provider.unwrap(providers.key_id_of(IMAGE), wrapped, b"here") == b"k" * 32
        assert provider.wrap_named(b"k" * 32, b"here")[0] == providers.key_id_of(NEXT)
        with pytest.raises(ConfigurationError):
            provider.use("0" * 16)

    def test_no_key_shows(self, tmp_path: Path) -> None:
        """Neither repr nor name tells a key, and the two keys of a house are not one."""
        house = self.house(tmp_path)
        image, identity = house.open("image"), house.open("identity")

        for text in (repr(image), image.key_id, repr(house.states())):
            assert base64.b64encode(IMAGE).decode() not in text
            assert IMAGE.hex() not in text
        assert image.key_id != identity.key_id

    def test_a_missing_key_is_said_to_be_missing(self, tmp_path: Path) -> None:
        """The message names the file or variable, and nothing is made in its place."""
        house = self.nothing(tmp_path)

        assert len(house.missing()) == 2
        with pytest.raises(ConfigurationError, match=r"missing|set PACS_KEYS_PASSPHRASE"):
            house.open("image")
        assert not list(tmp_path.rglob("*.key"))

    def nothing(self, folder: Path) -> KeyHouse:
        """Return a house without any key."""
        raise NotImplementedError


class TestFile(KeyProviderContract):
    """Keys in files of their owner's."""

    def house(self, folder: Path, *, image: bytes = IMAGE, following: bytes | None = None) -> KeyHouse:
        return written(folder, "file", {}, image, following, providers.key_file)

    def nothing(self, folder: Path) -> KeyHouse:
        return KeyHouse(folder, "file", {})


class TestPassphrase(KeyProviderContract):
    """Keys in files that a passphrase seals."""

    environment: Mapping[str, str] = {"PACS_KEYS_PASSPHRASE": "correct horse"}

    def house(self, folder: Path, *, image: bytes = IMAGE, following: bytes | None = None) -> KeyHouse:
        return written(folder, "passphrase", self.environment, image, following, self.sealed)

    def nothing(self, folder: Path) -> KeyHouse:
        return KeyHouse(folder, "passphrase", self.environment)

    @staticmethod
    def sealed(key: bytes) -> str:
        """Seal with little work: the tests open many."""
        return providers.sealed_key_file(key, "correct horse", memory_kib=64, iterations=1, lanes=1)

    def test_a_wrong_passphrase_opens_nothing(self, tmp_path: Path) -> None:
        """Nor none at all; the file does not show the key."""
        self.house(tmp_path)
        for environment in ({"PACS_KEYS_PASSPHRASE": "wrong"}, {}):
            with pytest.raises(ConfigurationError, match="assphrase"):
                KeyHouse(tmp_path, "passphrase", environment).open("image")
        assert base64.b64encode(IMAGE) not in (tmp_path / "image.key").read_bytes()
        assert stat.S_IMODE((tmp_path / "image.key").stat().st_mode) == 0o600

    def test_every_changed_character_is_refused(self, tmp_path: Path) -> None:
        """A sealed key file with any one character changed is never taken for a key."""
        text = self.sealed(IMAGE)
        for position in range(len(text)):
            if text[position] in "\n ":
                continue
            other = "0" if text[position] != "0" else "1"
            with pytest.raises(ConfigurationError):
                changed = (text[:position] + other + text[position + 1 :]).encode()
                providers.parse_sealed_key_file(changed, Path("image.key"), "correct horse")

    def test_the_passphrase_may_come_as_a_credential(self, tmp_path: Path) -> None:
        """systemd's credential `passphrase` does as well as the variable, and a real key file is made with full strength."""
        (tmp_path / "credentials").mkdir()
        (tmp_path / "credentials" / "passphrase").write_text("correct horse\n")
        house = KeyHouse(tmp_path / "keys", "passphrase", {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})

        house.create("image")

        assert "argon2id 65536 3 4" in (tmp_path / "keys" / "image.key").read_text()
        assert house.open("image").key_id == KeyHouse(tmp_path / "keys", "passphrase", self.environment).open("image").key_id


class TestEnvironment(KeyProviderContract):
    """Keys in variables."""

    def house(self, folder: Path, *, image: bytes = IMAGE, following: bytes | None = None) -> KeyHouse:
        environment = {"PACS_KEYS_IMAGE": encoded(image), "PACS_KEYS_IDENTITY": encoded(IDENTITY)}
        return KeyHouse(folder, "env", environment | ({"PACS_KEYS_IMAGE_NEXT": encoded(following)} if following else {}))

    def nothing(self, folder: Path) -> KeyHouse:
        return KeyHouse(folder, "env", {})

    @pytest.mark.parametrize("text", ["short", "AAAA", base64.b64encode(bytes(33)).decode(), "é" * 44])
    def test_what_is_no_key_is_refused_without_being_said(self, tmp_path: Path, text: str) -> None:
        """The message says what a key looks like, and not what was given."""
        with pytest.raises(ConfigurationError, match="pacs keys generate") as raised:
            KeyHouse(tmp_path, "env", {"PACS_KEYS_IMAGE": text}).open("image")
        assert text not in str(raised.value)


class TestCredentials(KeyProviderContract):
    """Keys that systemd hands over (LoadCredential=), as base64 or as key files."""

    def house(self, folder: Path, *, image: bytes = IMAGE, following: bytes | None = None) -> KeyHouse:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "image.key").write_text(providers.key_file(image))
        (folder / "identity.key").write_text(encoded(IDENTITY) + "\n")
        if following:
            (folder / "image.next.key").write_text(encoded(following))
        return self.nothing(folder)

    def nothing(self, folder: Path) -> KeyHouse:
        return KeyHouse(folder / "keys", "systemd", {"CREDENTIALS_DIRECTORY": str(folder)})


def written(
    folder: Path, provider: str, environment: Mapping[str, str], image: bytes, following: bytes | None, text
) -> KeyHouse:  # type: ignore[no-untyped-def]
    """Write keys into files, and return the house over them."""
    providers.write_key_file(folder / "image.key", text(image))
    providers.write_key_file(folder / "identity.key", text(IDENTITY))
    if following:
        providers.write_key_file(folder / "image.next.key", text(following))
    return KeyHouse(folder, provider, environment)


def encoded(key: bytes) -> str:
    """Return a key as base64."""
    return base64.b64encode(key).decode("ascii")
