"""What a rule comes to for a series or a study: the jobs it asks for, or the first thing that stands against it.

One answer for all who ask: the scheduler, which makes the jobs, and `pacs rules`, which tells people. It reads the index; only
where a rule names an attribute that the index does not keep is a header opened. What is told names conditions, never values.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pacs.dicom import conditions
from pacs.dicom.values import INDEXED
from pacs.index.database import Index
from pacs.model.instance import Stored
from pacs.model.job import Job, JobState, NewJob, SettledSeries
from pacs.processing.api import Spec
from pacs.processing.rules import Rule, Use, Wanted

Headers = Callable[[Stored, Sequence[str]], Mapping[str, str]]
"""Reads attributes of a stored instance by keyword path, several values joined by a backslash."""

_COUNTED = ("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances")
_UNDER_WAY = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rule says of a subject. `why` is empty where it fires; `line` is where what stands against it is written."""

    rule: Rule
    subject: SettledSeries
    jobs: tuple[NewJob, ...] = ()
    why: str = ""
    line: int = 0
    processors: tuple[str, ...] = field(default_factory=tuple)

    @property
    def fires(self) -> bool:
        """Whether it asks for a job."""
        return bool(self.jobs)


class Planner:
    """Asks rules about what is there."""

    def __init__(self, index: Index, registry: Mapping[str, Spec], headers: Headers | None = None) -> None:
        self._index = index
        self._registry = registry
        self._headers = headers

    def plan(self, rules: Sequence[Rule], subject: SettledSeries) -> list[NewJob]:
        """Return the jobs of a subject that has come to rest; two rules that ask for the same get it once."""
        asked = [rule for rule in rules if not rule.after or not subject.series_instance_uid]
        return _once(self.decide(rule, subject, settled=True) for rule in asked)

    def follow(self, rules: Sequence[Rule], ended: Job) -> list[NewJob]:
        """Return the jobs of the rules that come after the rule of a job that has ended."""
        following = [rule for rule in rules if ended.rule in rule.after]
        decisions = []
        for rule in following:
            series = ended.subject if rule.on == "series" else ""
            for subject in self._index.subjects(study_instance_uid=ended.study_instance_uid, series_instance_uid=series):
                if subject.series_instance_uid == series:
                    decisions.append(self.decide(rule, replace(subject, completion=f"after {ended.rule}")))
        return _once(decisions)

    def decide(self, rule: Rule, subject: SettledSeries, *, settled: bool = False) -> Decision:
        """Return what a rule says of a subject, whatever was made of it before; `settled` where it has just come to rest."""
        level = "series" if subject.series_instance_uid else "study"
        if rule.on != level:
            return Decision(rule, subject, why=f"it works on a {rule.on}" if rule.on != "manual" else "only when asked for")
        failed = conditions.first_failing(rule.where, self._attributes(rule, subject))
        if failed is not None:
            return Decision(rule, subject, why=f"{failed}: {_said(rule.where[failed])}", line=rule.line(f"where.{failed}"))
        if rule.after:
            return self._decide_after(rule, subject, settled)
        jobs = [job for use in rule.run for job in self._jobs(rule, use, subject, self._sources(use, subject), ())]
        return self._decided(rule, subject, jobs)

    def _decided(self, rule: Rule, subject: SettledSeries, jobs: Sequence[NewJob]) -> Decision:
        names = tuple(dict.fromkeys(job.processor for job in jobs))
        if jobs:
            return Decision(rule, subject, tuple(jobs), processors=names)
        told = "; ".join(f"{use.processor} is for {_words(self._registry[use.processor].when)}" for use in rule.run)
        return Decision(rule, subject, why=told, line=rule.line("take" if rule.take else "run"))

    # --- what comes after others ---------------------------------------------------------------------------------------

    def _decide_after(self, rule: Rule, subject: SettledSeries, settled: bool) -> Decision:
        parents: list[Job] = []
        for name in rule.after:
            found = [
                job
                for job in self._index.chains.of_rule(name, subject.study_instance_uid)
                if not subject.series_instance_uid or job.subject == subject.series_instance_uid
            ]
            if any(job.state in _UNDER_WAY for job in found):
                return Decision(rule, subject, why=f"waits for {name}", line=rule.line("after"))
            succeeded = [job for job in found if job.state is JobState.SUCCEEDED]
            if not succeeded:
                ends = ", ".join(sorted({f"{job.processor} {job.state}" for job in found})) or "it made no job"
                return Decision(rule, subject, why=f"no result of {name}: {ends}", line=rule.line("after"))
            parents += succeeded
        at_rest = settled or subject.series_instance_uid or self._index.study_at_rest(subject.study_instance_uid)
        if not at_rest:
            return Decision(rule, subject, why="waits for the rest of the study", line=rule.line("after"))
        findings = self._index.chains.findings([job.job_id for job in parents])
        for number, wanted in enumerate(rule.results):
            of_rules = [job for job in parents if not wanted.rule or job.rule == wanted.rule]
            if not any(_says(wanted, one) for job in of_rules for one in findings.get(job.job_id, [])):
                told = f"no result says {_wanted_words(wanted)}"
                return Decision(rule, subject, why=told, line=rule.line(f"results.{number}"))
        candidates = self._candidates(rule, subject, parents)
        ids = tuple(sorted(job.job_id for job in parents))
        jobs = [job for use in rule.run for job in self._following_jobs(rule, use, subject, candidates, ids)]
        return self._decided(rule, subject, jobs)

    def _candidates(self, rule: Rule, subject: SettledSeries, parents: Sequence[Job]) -> list[tuple[str, dict[str, str]]]:
        """The series that a rule with `after` may take, with their attributes."""
        wanted: dict[str, None] = {}
        if rule.input != "results":
            for job in parents:
                wanted |= dict.fromkeys(
                    [subject.series_instance_uid] if subject.series_instance_uid else job.series_instance_uids
                )
        if rule.input != "source":
            wanted |= dict.fromkeys(uid for job in parents for uid in job.output_series_instance_uids)
        found = []
        for uid, instances in _by_series(self._index, subject.study_instance_uid, list(wanted)).items():
            attributes = _of_series(instances)
            more = [path for path in rule.take if _is_unknown(path)]
            if more:
                attributes |= self._read(instances, more)
            if conditions.matches(rule.take, attributes):
                found.append((uid, attributes))
        return found

    def _following_jobs(
        self,
        rule: Rule,
        use: Use,
        subject: SettledSeries,
        candidates: Sequence[tuple[str, Mapping[str, str]]],
        parents: tuple[str, ...],
    ) -> list[NewJob]:
        spec = self._registry[use.processor]
        fitting = [uid for uid, attributes in candidates if conditions.matches(spec.when, attributes)]
        if not fitting:
            return []
        groups = [tuple(sorted(fitting))] if spec.level == "study" else [(uid,) for uid in sorted(fitting)]
        return [job for inputs in groups for job in self._jobs(rule, use, subject, inputs, parents)]

    # --- jobs and their inputs -----------------------------------------------------------------------------------------

    def _sources(self, use: Use, subject: SettledSeries) -> tuple[str, ...]:
        spec = self._registry[use.processor]
        if not subject.series_instance_uid:
            return study_inputs(self._index, spec, subject.study_instance_uid)
        return (subject.series_instance_uid,) if conditions.matches(spec.when, subject.attributes) else ()

    def _jobs(
        self, rule: Rule, use: Use, subject: SettledSeries, inputs: tuple[str, ...], parents: tuple[str, ...]
    ) -> list[NewJob]:
        if not inputs:
            return []
        job = new_job(
            self._index,
            self._registry[use.processor],
            use.parameters,
            subject.study_instance_uid,
            inputs,
            rule=rule.name,
            completion=subject.completion,
        )
        return [
            replace(
                job,
                rule_digest=rule.digest,
                step=use.step,
                subject=subject.series_instance_uid,
                priority=rule.priority,
                parents=parents,
            )
        ]

    # --- attributes ----------------------------------------------------------------------------------------------------

    def _attributes(self, rule: Rule, subject: SettledSeries) -> dict[str, str]:
        """What the rule names of the subject: of the index, and of a header where the index does not keep it.

        Of a study, an attribute of its series has the values of all of them.
        """
        attributes = dict(subject.attributes)
        missing = [path for path in rule.where if path not in attributes]
        if not missing:
            return attributes
        study, series = subject.study_instance_uid, subject.series_instance_uid
        if series and any(path in _COUNTED for path in missing):
            whole = self._index.subjects(study_instance_uid=study)
            attributes |= {
                path: one.attributes[path]
                for one in whole
                if not one.series_instance_uid
                for path in missing
                if path in _COUNTED
            }
        unknown = [path for path in missing if _is_unknown(path)]
        if series and not unknown:
            return attributes
        derived = set() if series else _made_here(self._index, study)
        several: dict[str, list[str]] = {}
        for uid, instances in _by_series(self._index, study, [series] if series else []).items():
            if uid not in derived:
                found = _of_series(instances) | (self._read(instances, unknown) if unknown else {})
                for path in missing:
                    several.setdefault(path, []).extend(conditions.values_of(found.get(path, "")))
        return attributes | {path: "\\".join(dict.fromkeys(values)) for path, values in several.items() if values}

    def _read(self, instances: Sequence[Stored], paths: Sequence[str]) -> dict[str, str]:
        if self._headers is None or not instances:
            return {}
        return dict(self._headers(instances[len(instances) // 2], paths))


def _is_unknown(path: str) -> bool:
    return path not in INDEXED and path not in _COUNTED and path != "NumberOfSeriesRelatedInstances"


def _by_series(index: Index, study_instance_uid: str, series_instance_uids: Sequence[str]) -> dict[str, list[Stored]]:
    series: dict[str, list[Stored]] = {}
    for stored in index.locate(study_instance_uids=[study_instance_uid], series_instance_uids=series_instance_uids):
        series.setdefault(stored.key.series_instance_uid, []).append(stored)
    return series


def _of_series(instances: Sequence[Stored]) -> dict[str, str]:
    """The attributes of the instance in the middle stand for its series'."""
    return {**instances[len(instances) // 2].attributes, "NumberOfSeriesRelatedInstances": str(len(instances))}


def _made_here(index: Index, study_instance_uid: str) -> set[str]:
    return {one.series_instance_uid for one in index.series_of(study_instance_uid) if one.derived}


def _once(decisions: Any) -> list[NewJob]:
    planned: dict[str, NewJob] = {}
    for decision in decisions:
        for job in decision.jobs:
            planned.setdefault(job.job_key, job)
    return list(planned.values())


def _says(wanted: Wanted, finding: Mapping[str, Any]) -> bool:
    """Whether one finding is what a rule wants; names and answers match by code value or by meaning."""
    if wanted.measured is not ("value" in finding):
        return False
    if wanted.name.casefold() not in {str(one).casefold() for one in finding["name"]}:
        return False
    asked: list[tuple[Any, list[str]]]
    if wanted.measured:
        asked = [(wanted.value, [str(finding["value"])]), (wanted.of, [str(finding.get("of", ""))])]
    else:
        certainty = finding.get("certainty")
        asked = [
            (wanted.answer, [str(one) for one in finding["answer"]]),
            (wanted.certainty, [] if certainty is None else [str(certainty)]),
        ]
    return all(condition is None or conditions.holds(condition, values) for condition, values in asked)


def _wanted_words(wanted: Wanted) -> str:
    parts = {"": wanted.answer, "certainty": wanted.certainty, "value": wanted.value, "of": wanted.of}
    return f"{wanted.name} " + ", ".join(f"{key} {_said(one)}".strip() for key, one in parts.items() if one is not None)


def _words(when: Mapping[str, Any]) -> str:
    return ", ".join(f"{keyword}: {_said(condition)}" for keyword, condition in when.items()) or "other input"


def _said(condition: Any) -> str:
    return condition if isinstance(condition, str) and condition else json.dumps(condition)


def job_key(spec: Spec, parameters: Mapping[str, Any], inputs_digest: str) -> str:
    """Return what makes a job unique: processor, version, canonical parameters and the contents of its inputs."""
    canonical = json.dumps([spec.name, spec.version, dict(parameters), inputs_digest], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def new_job(
    index: Index,
    spec: Spec,
    given: Mapping[str, Any],
    study_instance_uid: str,
    series_instance_uids: Sequence[str],
    *,
    rule: str,
    completion: str,
) -> NewJob:
    """Return the job for a processor on these inputs as they are now; raises `ParameterError`."""
    parameters = spec.bind(given)
    return NewJob(
        job_key=job_key(spec, parameters, index.inputs_digest(series_instance_uids)),
        processor=spec.name,
        version=spec.version,
        parameters=parameters,
        rule=rule,
        queue=spec.queue,
        study_instance_uid=study_instance_uid,
        series_instance_uids=tuple(series_instance_uids),
        completion=completion,
    )


def study_inputs(index: Index, spec: Spec, study_instance_uid: str) -> tuple[str, ...]:
    """The original series of a study that a study-level processor asks for by its `when`."""
    made_here = _made_here(index, study_instance_uid)
    series = _by_series(index, study_instance_uid, [])
    return tuple(
        sorted(
            uid
            for uid, instances in series.items()
            if uid not in made_here and conditions.matches(spec.when, _of_series(instances))
        )
    )
