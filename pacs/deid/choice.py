"""Which policy is for an arriving object: by what it is, by who sent it, by the door, or the one for everything else.

Rules look at the attributes of the object as it came, in the order in which they are written; the first that holds decides.
They are read once, at start, so that a mistake stops the start and not an arrival.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from pacs.deid.policy import Policy
from pacs.dicom import conditions, values
from pacs.model.errors import ConfigurationError
from pacs.model.instance import Element, Origin, Received


@dataclass(frozen=True, slots=True)
class Rule:
    """Conditions on attributes and, where `source` is not empty, on who sent it; and the policy where all hold."""

    policy: Policy
    where: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def holds(self, received: Received, attributes: Mapping[str, str]) -> bool:
        """Say whether it is for this object."""
        sent = not self.source or _is_from(received, self.source)
        return sent and conditions.matches(self.where, attributes)


class Choice:
    """Chooses among `policies`.

    Parameters
    ----------
    policy : str
        What holds where nothing else does.
    by_source : mapping of str to str
        A calling AE title or whatever `Received.source` says, with * and ? as in file names, or a door ("storage-scu", "stow",
        "import"), to a policy. A source goes before a pattern, a pattern before a door.
    rules : iterable of mapping
        Tables of `where` (see `pacs.dicom.conditions`), `source` (as above) and `policy`; they go before `by_source`.

    Raises
    ------
    ConfigurationError
        A policy that there is not, or a rule that is none; the message names the setting.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        policy: str,
        by_source: Mapping[str, str] | None = None,
        rules: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._policies = policies
        self._by_source = dict(by_source or {})
        self.default = self._named(policy, "deid.policy")
        for key, name in self._by_source.items():
            self._named(name, f"deid.by_source.{key}")
        self._rules = tuple(self._rule(table, f"deid.rules, entry {number}") for number, table in enumerate(rules, 1))
        self._keywords = tuple({keyword for rule in self._rules for keyword in rule.where})

    @property
    def possible(self) -> frozenset[Policy]:
        """Every policy that an object may get."""
        by_source = (self._policies[name] for name in self._by_source.values())
        return frozenset((self.default, *by_source, *(rule.policy for rule in self._rules)))

    def of(self, received: Received, elements: Sequence[Element]) -> Policy:
        """Return the policy for an object, given its elements as they came."""
        if self._rules:
            attributes = values.attributes(elements, self._keywords)
            for rule in self._rules:
                if rule.holds(received, attributes):
                    return rule.policy
        return self.by_source(received.source, received.origin)

    def by_source(self, source: str, origin: Origin) -> Policy:
        """Return the policy for what comes from `source` by the door `origin`, where no rule holds."""
        if not self._by_source:
            return self.default
        name = self._by_source.get(source)
        if name is None:
            name = next((name for key, name in self._by_source.items() if fnmatchcase(source, key)), None)
        return self._policies[name or self._by_source.get(origin.value, self.default.name)]

    def _named(self, name: Any, setting: str) -> Policy:
        if not isinstance(name, str) or name not in self._policies:
            raise ConfigurationError(f"{setting} must be one of {', '.join(sorted(self._policies))}")
        return self._policies[name]

    def _rule(self, table: Mapping[str, Any], setting: str) -> Rule:
        unknown = table.keys() - {"where", "source", "policy"}
        if unknown:
            raise ConfigurationError(f"{setting}: unknown key {sorted(unknown)[0]}; a rule has where, source and policy")
        where, source = table.get("where", {}), table.get("source", "")
        if not isinstance(where, dict) or not isinstance(source, str) or not (where or source):
            raise ConfigurationError(f"{setting}: where must be a table of attributes, source a text, and one of them given")
        try:
            for keyword, condition in where.items():
                conditions.check(keyword, condition)
        except ValueError as error:
            raise ConfigurationError(f"{setting}: {error}") from error
        return Rule(self._named(table.get("policy"), f"{setting}: policy"), where, source)


def _is_from(received: Received, source: str) -> bool:
    return fnmatchcase(received.source, source) or received.origin.value == source
