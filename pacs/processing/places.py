"""Where things stand in a rules file: TOML's parser keeps no lines, and a message without one sends people searching."""

import re

_QUIET = re.compile(
    r'"""(?:\\.|[^\\])*?"""' r"|'''.*?'''" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'" r"|#[^\n]*",
    re.DOTALL,
)
_RULE = re.compile(r"^\s*\[\[\s*rule\s*\]\]", re.MULTILINE)


class Places:
    """Lines (from 1) of the rules in a text and of the keys in them."""

    def __init__(self, text: str) -> None:
        # What is quoted or said in a comment is no key; its place is kept.
        self._bare = _QUIET.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
        self._starts = [found.end() for found in _RULE.finditer(self._bare)]

    def line(self, rule: int, *keys: str, nth: int = 0) -> int:
        """Return the line of a key within the `rule`-th rule, each of `keys` looked for after the one before it.

        `nth` counts occurrences of the last key. What cannot be found answers with the nearest that could be.
        """
        if rule >= len(self._starts):
            return 1
        at = self._starts[rule]
        end = self._starts[rule + 1] if rule + 1 < len(self._starts) else len(self._bare)
        for number, key in enumerate(keys):
            pattern = re.compile(rf"(?<![\w-]){re.escape(key)}\s*(?:=|\.|\])")
            for _ in range(nth + 1 if number == len(keys) - 1 else 1):
                found = pattern.search(self._bare, at, end)
                if found is None:
                    break
                at = found.end()
        return self._bare.count("\n", 0, at) + 1
