"""What every key provider promises (`pacs.ports.KeyProvider`); a subclass says how its keys come to it."""

import base64
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import making
import pytest
import services
from transit import TOKEN, transit

from pacs.ingest import ingest
from pacs.model.errors import ConfigurationError, Unavailable
from pacs.ports import KeyProvider
from pacs.store import identity_keys, providers
from pacs.store.identity_keys import IdentityKeys
from pacs.store.keyhouse import KeyHouse
from pacs.store.keys import KeyRing
from pacs.store.providers import LocalKeys
from pacs.store.wardens import Warded
from pacs.upkeep.rotate import rotate

IMAGE, NEXT, IDENTITY, OTHER = (bytes([number]) * 32 for number in (1, 2, 3, 4))


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

    def test_the_identity_key_gives_way_and_what_it_wraps_stays(self, tmp_path: Path) -> None:
        """The next one opens both secrets, and names and seals are as before; the old one opens nothing, and goes."""
        house = self.house(tmp_path, following=NEXT)
        KeyRing.create(house.ring, house.open("image")).close()
        held = IdentityKeys.fresh()
        held.keep(house.ring, house.open("identity"))
        sealed = held.wrap(b"row", b"here")

        change = house.change("identity")
        new = change.next_key()
        assert identity_keys.rewrap(house.ring, house.open("identity"), new) == 2
        change.swap()
        destroyed = change.destroy_old()

        assert identity_keys.wrapped_with(house.ring) == {new: 2}
        assert new != providers.key_id_of(IDENTITY) and (house.kept_here is bool(destroyed))
        after = IdentityKeys.open(house.ring, house.open("identity"))
        assert after.unwrap(held.key_id, sealed, b"here") == b"row"
        assert after.derive("pseudonym") == held.derive("pseudonym")
        with pytest.raises(ConfigurationError):
            IdentityKeys.open(house.ring, LocalKeys(IDENTITY))
        assert identity_keys.rewrap(house.ring, house.open("identity"), new) == 0

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
        if following:
            environment |= {"PACS_KEYS_IMAGE_NEXT": encoded(following), "PACS_KEYS_IDENTITY_NEXT": encoded(OTHER)}
        return KeyHouse(folder, "env", environment)

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
            (folder / "identity.next.key").write_text(encoded(OTHER))
        return self.nothing(folder)

    def nothing(self, folder: Path) -> KeyHouse:
        return KeyHouse(folder / "keys", "systemd", {"CREDENTIALS_DIRECTORY": str(folder)})


class SealedContract(KeyProviderContract):
    """Keys in files that a service seals; what every such service is held to beyond the contract."""

    other: dict[str, str]
    """What of the house must be changed to name another key of the same service."""
    absent: dict[str, str]
    """The same, for a key that there is not."""
    away: dict[str, str]
    """The same, for a service that does not answer."""

    def arguments(self) -> dict[str, Any]:
        """Return what a house needs beyond its folder."""
        raise NotImplementedError

    def named(self, folder: Path, **changes: str) -> KeyHouse:
        """Return a house over `folder` that names another key, or another server."""
        return KeyHouse(folder, **{**self.arguments(), **changes})

    def house(self, folder: Path, *, image: bytes = IMAGE, following: bytes | None = None) -> KeyHouse:
        house = self.named(folder)
        written(folder, "file", {}, image, following, house._service().text)
        return house

    def nothing(self, folder: Path) -> KeyHouse:
        return self.named(folder)

    def test_the_key_is_in_no_file(self, tmp_path: Path) -> None:
        """What lies in the home is sealed, and only its owner may read it."""
        self.house(tmp_path)
        content = (tmp_path / "image.key").read_bytes()
        assert IMAGE not in content and base64.b64encode(IMAGE) not in content
        assert stat.S_IMODE((tmp_path / "image.key").stat().st_mode) == 0o600

    def test_a_wrong_or_missing_key_of_the_service_is_refused(self, tmp_path: Path) -> None:
        """At once, saying who refused; and nothing is made in the place of what cannot be opened."""
        self.house(tmp_path)
        before = (tmp_path / "image.key").read_bytes()
        for change in (self.other, self.absent):
            with pytest.raises(ConfigurationError, match="refuses"):
                self.named(tmp_path, **change).open("image")
        assert (tmp_path / "image.key").read_bytes() == before
        with pytest.raises(ConfigurationError, match="not a mini-pacs key"):
            KeyHouse(tmp_path, "file").open("image")

    def test_every_changed_character_is_refused(self, tmp_path: Path) -> None:
        """A file with any one character changed is never taken for a key, and most are not even shown to the service."""
        house = self.house(tmp_path)
        text = (tmp_path / "image.key").read_text()
        for position in range(0, len(text), 7):
            if text[position] not in "\n ":
                other = "0" if text[position] != "0" else "1"
                with pytest.raises(ConfigurationError):
                    house._service().parse((text[:position] + other + text[position + 1 :]).encode(), Path("image.key"))

    def test_a_service_that_is_away_is_waited_for(self, tmp_path: Path) -> None:
        """A start asks again and again, then says who does not answer."""
        self.house(tmp_path)
        waited: list[float] = []
        house = self.named(tmp_path, **self.away)
        house._held = Warded(house._warden(), waits_s=(1.0, 2.0), sleep=waited.append)

        with pytest.raises(Unavailable, match=r"AWS KMS|Vault"):
            house.open("image")

        assert waited == [1.0, 2.0]

    def test_keys_come_from_files_and_go_back_to_them(self, tmp_path: Path) -> None:
        """By an export, both ways: the same keys, sealed here and plain there."""
        files = written(tmp_path / "files", "file", {}, IMAGE, None, providers.key_file)
        sealed, back = self.named(tmp_path / "sealed"), KeyHouse(tmp_path / "back", "file")

        assert sealed.bring_back(files.export()) == ["image", "identity"]
        assert back.bring_back(sealed.export()) == ["image", "identity"]

        for name in ("image", "identity"):
            assert files.open(name).key_id == sealed.open(name).key_id == back.open(name).key_id
            assert sealed.path(name).read_bytes() != files.path(name).read_bytes() == back.path(name).read_bytes()

    def test_a_home_opens_once_and_goes_on_without_the_service(self, tmp_path: Path) -> None:
        """An archive made, rotated and exported under the service; its keys are asked for once a process."""
        home = tmp_path / "home"
        given = self.arguments()
        name = {"aws-kms": "keys__kms_key", "vault": "keys__vault_key"}[given["provider"]]
        tree = {
            "keys__provider": given["provider"],
            name: given["service_key"],
            "keys__vault_url": given.get("service_url", ""),
        }
        with making.archive(home, **tree) as archive:
            stored = ingest(archive, making.received(making.dataset()))
            done = rotate(archive)
            assert done.destroyed and archive.keys.unexported() == ["image", "identity"]
            self.stop()
            assert archive.keys.open("image").key_id == done.key_id
            assert archive.sealer.open(
                archive.index.locate(sop_instance_uids=[stored.key.sop_instance_uid])[0], archive.objects
            )
            exported = archive.keys.export()
        assert done.key_id in exported

    def stop(self) -> None:
        """Take the service away."""


class TestAwsKms(SealedContract):
    """Keys that AWS KMS seals; against moto's server."""

    absent, away = {"service_key": "alias/nobody"}, {"service_url": "away"}

    @pytest.fixture(autouse=True)
    def service(self, monkeypatch: pytest.MonkeyPatch, s3: services.S3) -> None:
        """Two keys, and what boto3 needs to find them."""
        self.patch = monkeypatch
        for name, value in {**s3.environment, "AWS_DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(name, value)
        import boto3

        client = boto3.client("kms")
        self.key, other = (client.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
        self.other = {"service_key": other}

    def arguments(self) -> dict[str, Any]:
        return {"provider": "aws-kms", "service_key": self.key}

    def named(self, folder: Path, **changes: str) -> KeyHouse:
        if changes == self.away:
            self.stop()
        return super().named(folder, **changes)

    def stop(self) -> None:
        self.patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


class TestVault(SealedContract):
    """Keys that the transit engine of Vault seals."""

    other, absent, away = (
        {"service_key": "transit/other"},
        {"service_key": "transit/nobody"},
        {"service_url": "http://127.0.0.1:9"},
    )

    @pytest.fixture(autouse=True)
    def service(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """A server of its own."""
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        with transit() as self.server:
            yield

    def arguments(self) -> dict[str, Any]:
        return {
            "provider": "vault",
            "environment": {"VAULT_TOKEN": TOKEN},
            "service_key": "transit/mini-pacs",
            "service_url": self.server.url,
        }

    def stop(self) -> None:
        self.server.sealed = -1

    def test_a_sealed_server_is_waited_for_until_it_opens(self, tmp_path: Path) -> None:
        """503 is no refusal: the start goes on when somebody has unsealed it."""
        self.house(tmp_path)
        house, self.server.sealed = self.named(tmp_path), 2
        house._held = Warded(house._warden(), waits_s=(0.0, 0.0, 0.0), sleep=lambda _: None)
        assert house.open("image").key_id == providers.key_id_of(IMAGE)

    def test_a_key_that_was_rotated_there_opens_what_it_sealed_before(self, tmp_path: Path) -> None:
        """Both versions; and each file is opened once, however often it is asked for."""
        self.house(tmp_path / "a")
        self.server.rotate("mini-pacs")
        self.house(tmp_path / "b")
        for folder in ("a", "b"):
            house, before = self.named(tmp_path / folder), len(self.server.asked)
            assert {house.open("image").key_id for _ in range(3)} == {providers.key_id_of(IMAGE)}
            assert len(self.server.asked) == before + 1

    def test_a_token_that_may_not_is_said(self, tmp_path: Path) -> None:
        """Neither a wrong one nor none waits for anything, and none is shown."""
        self.house(tmp_path)
        for token, said in (("s.wrong", "403, permission denied"), ("", "VAULT_TOKEN")):
            with pytest.raises(ConfigurationError, match=said) as raised:
                self.named(tmp_path, environment={"VAULT_TOKEN": token}).open("image")  # type: ignore[arg-type]
            assert "s.wrong" not in str(raised.value)

    def test_a_key_goes_over_tls_only(self, tmp_path: Path) -> None:
        """A server elsewhere is not asked in the clear."""
        self.house(tmp_path)
        for url in ("http://vault.example:8200", "vault.example", ""):
            with pytest.raises(ConfigurationError, match="https"):
                self.named(tmp_path, service_url=url).open("image")


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
