"""One key-encryption key giving way to the next: the files beside it, each step repeatable after a crash (docs/adr/0016, 0028).

`image.next.key` is made, then things are wrapped anew (`pacs.upkeep.rotate`), then the next key takes the name of the present
one, which lies beside it as `image.old.key` until nothing needs it. Keys from outside are changed by whoever gives them.
"""

import contextlib
import os
from typing import TYPE_CHECKING

from pacs.model.errors import ConfigurationError
from pacs.store import providers
from pacs.store.providers import siblings, sync_folder

if TYPE_CHECKING:
    from pacs.store.keyhouse import KeyHouse


class KeyChange:
    """The change of one key of a house."""

    def __init__(self, house: "KeyHouse", name: str) -> None:
        """Change the key of this name, `image` or `identity`."""
        self._house = house
        self._name = name
        self._here, self._following, self._old = siblings(house.path(name))

    def next_key(self) -> str:
        """Return the name of the key to rotate to; made here if it is not there yet. Raises `ConfigurationError`."""
        house, name = self._house, f"{self._name}.next"
        if house.kept_here:
            if not self._following.exists():
                providers.write_key_file(self._following, house.new_text())
            return providers.key_id_of(house.parse(self._following))
        text = house.given(name)
        if not text:
            raise ConfigurationError(
                f"give the new key as {house.given_from(name)} beside the present one; `pacs keys generate` prints one"
            )
        return providers.key_id_of(providers.parse_given(text, house.given_from(name)))

    def only_the_end_is_left(self) -> bool:
        """Tell whether a rotation was cut short after its new key was put in force."""
        return self._house.kept_here and self._old.exists() and not self._following.exists()

    def begun(self) -> bool:
        """Tell whether a rotation was begun and has not ended."""
        return self._house.kept_here and (self._following.exists() or self._old.exists())

    def swap(self) -> None:
        """Put the next key in force, and keep the old one beside it. Repeatable after a crash at any point."""
        if not self._following.exists():
            return
        # A link first: at no moment is there no key, and the rename replaces the name in one step.
        with contextlib.suppress(FileExistsError):
            os.link(self._here, self._old)
        self._following.rename(self._here)
        sync_folder(self._here.parent)

    def destroy_old(self) -> str:
        """Overwrite and remove the key that was rotated away; returns its name, "" if there was none."""
        key_id = ""
        if self._old.exists():
            key_id = providers.key_id_of(self._house.parse(self._old))
            # Out of the way first: half overwritten it would be a key file that nobody can read.
            self._old.rename(self._old.with_suffix(".gone"))
            sync_folder(self._here.parent)
        for gone in self._here.parent.glob("*.gone"):
            with gone.open("r+b") as file:
                file.write(bytes(gone.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            gone.unlink()
            sync_folder(self._here.parent)
        return key_id
