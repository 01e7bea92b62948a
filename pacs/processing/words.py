"""Every word that processors here can write: what they are called, and the texts in their source.

De-identification keeps words of a fixed vocabulary; what processors say of their results is in no sender's hand, and
goes beyond it. Who judges objects (`pacs deid check`) takes these words for as harmless as the vocabulary: they are in the
source of what is installed, so they name nobody whom an image shows.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from pacs.deid.text import words_of
from pacs.processing.api import Spec


def words(specs: Iterable[Spec]) -> frozenset[str]:
    """Return the words, folded, of the processors, of their parameters (written with the results), and of those who write."""
    found: set[str] = set()
    paths = set(Path(__file__).parent.glob("*.py"))
    for spec in specs:
        paths.add(Path(spec.path))
        paths.update(Path(spec.path).parent.glob("*.py"))  # a processor may be in several modules
        texts = [spec.name, *(one.name for one in spec.parameters)]
        texts += [choice for one in spec.parameters for choice in one.choices if isinstance(choice, str)]
        found.update(*map(words_of, texts))
    for path in sorted(paths):
        found.update(*map(words_of, _texts(path)))
    return frozenset(found)


def _texts(path: Path) -> Iterator[str]:
    """Yield the texts in a source file that are no docstrings; nothing where there is none."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in said:
            yield node.value
