"""Sees what has come to rest, asks the rules, makes jobs, and rings the workers' bell.

Everything it needs to know is in rows, so it can be killed at any time: a generation is marked as scheduled in the transaction
that inserts its jobs, and a job that was rung but never claimed is rung again. A broker that is away costs time only. It opens
the index alone: scheduling needs no key and no record.
"""

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pacs.dicom.conditions import matches
from pacs.index.database import Index
from pacs.logs import get_logger
from pacs.model.errors import ConfigurationError, NotFound, Unavailable
from pacs.model.job import HeldSeries, NewJob, SettledSeries
from pacs.ports import Clock, Queue
from pacs.processing import rules as rules_file
from pacs.processing.api import Spec
from pacs.processing.cleaners import CLEANERS, first_of, processor_of
from pacs.processing.registry import discover
from pacs.processing.rules import Rule
from pacs.queue import CeleryQueue, broker_url
from pacs.settings import ProcessingSettings, Settings

log = get_logger(__name__)
TICK_S = 0.5
LARGEST_WAIT_S = 8.0
AT_ONCE = 200


def job_key(spec: Spec, parameters: Mapping[str, Any], inputs_digest: str) -> str:
    """Return what makes a job unique: processor, version, canonical parameters and the contents of its inputs."""
    canonical = json.dumps([spec.name, spec.version, dict(parameters), inputs_digest], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


class Scheduler:
    """One pass over what is due, again and again."""

    def __init__(
        self,
        index: Index,
        registry: Mapping[str, Spec],
        rules: Sequence[Rule],
        queue: Queue,
        settings: ProcessingSettings,
        clock: Clock = time.time,
    ) -> None:
        self._index = index
        self._registry = registry
        self.rules = tuple(rules)
        self._queue = queue
        self._settings = settings
        self._clock = clock

    def tick(self) -> int:
        """Make jobs of what has settled, ring for what is due; returns how many jobs were rung for.

        Raises `Unavailable` where the broker is away; the rows wait.
        """
        for held in self._index.settled_held(self._clock(), settle_s=self._settings.settle_s, quiet_s=self._settings.quiet_s):
            made = self._index.scheduled_held(held, cleaning_jobs(held))
            log.info(
                "cleaning_scheduled",
                study_instance_uid=held.study_instance_uid,
                series_instance_uid=held.series_instance_uid,
                generation=held.generation,
                evidence=held.completion,
                count=len(made),
            )
        settled = self._index.settled(
            self._clock(),
            settle_s=self._settings.settle_s,
            quiet_s=self._settings.quiet_s,
            study_settle_s=self._settings.study_settle_s,
        )
        for one in settled:
            made = self._index.scheduled(one, self.plan(one))
            log.info(
                "scheduled",
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
                generation=one.generation,
                evidence=one.completion,
                count=len(made),
            )
        return self._ring()

    def plan(self, settled: SettledSeries) -> list[NewJob]:
        """Return the jobs that the rules ask for; two rules that ask for the same get it once."""
        planned: dict[str, NewJob] = {}
        level = "series" if settled.series_instance_uid else "study"
        for rule in self.rules:
            if rule.on != level or not matches(rule.where, settled.attributes):
                continue
            for use in rule.run:
                spec = self._registry[use.processor]
                inputs = self._inputs(spec, settled)
                if not inputs:
                    continue
                job = self._job(spec, use.parameters, rule.name, settled, inputs)
                planned.setdefault(job.job_key, job)
        return list(planned.values())

    def _inputs(self, spec: Spec, settled: SettledSeries) -> tuple[str, ...]:
        if settled.series_instance_uid:
            fits = matches(spec.when, settled.attributes)
            return (settled.series_instance_uid,) if fits else ()
        return study_inputs(self._index, spec, settled.study_instance_uid)

    def _job(self, spec: Spec, given: Mapping[str, Any], rule: str, settled: SettledSeries, inputs: tuple[str, ...]) -> NewJob:
        return new_job(self._index, spec, given, settled.study_instance_uid, inputs, rule=rule, completion=settled.completion)

    def _ring(self) -> int:
        due = self._index.jobs.due(self._clock(), AT_ONCE, attempts=self._settings.attempts)
        rung: list[str] = []
        try:
            for job_id, queue in due:
                self._queue.ring(job_id, queue)
                rung.append(job_id)
        finally:
            if rung:
                self._index.jobs.dispatched(rung)
        return len(rung)


def cleaning_jobs(held: HeldSeries) -> list[NewJob]:
    """Return the job that cleans what a series holds; the next kind of cleaning follows when this one has ended."""
    name = first_of(held.pending)
    if not name:
        return []
    cleaning = CLEANERS[name]
    unique = [processor_of(name), cleaning.version, held.series_instance_uid, held.study_instance_uid, held.generation]
    return [
        NewJob(
            job_key=hashlib.sha256(json.dumps(unique).encode()).hexdigest(),
            processor=processor_of(name),
            version=cleaning.version,
            parameters={},
            rule="de-identification",
            queue=cleaning.queue,
            study_instance_uid=held.study_instance_uid,
            series_instance_uids=(held.series_instance_uid,),
            completion=held.completion,
        )
    ]


def study_inputs(index: Index, spec: Spec, study_instance_uid: str) -> tuple[str, ...]:
    """The original series of a study that a study-level processor asks for by its `when`."""
    made_here = {one.series_instance_uid for one in index.series_of(study_instance_uid) if one.derived}
    series: dict[str, list[Mapping[str, str]]] = {}
    for stored in index.locate(study_instance_uids=[study_instance_uid]):
        series.setdefault(stored.key.series_instance_uid, []).append(stored.attributes)
    chosen = []
    for uid, instances in series.items():
        attributes = {**instances[len(instances) // 2], "NumberOfSeriesRelatedInstances": str(len(instances))}
        if uid not in made_here and matches(spec.when, attributes):
            chosen.append(uid)
    return tuple(sorted(chosen))


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


def ask(
    index: Index,
    spec: Spec,
    given: Mapping[str, Any],
    study_instance_uid: str,
    series_instance_uids: Sequence[str] = (),
    *,
    by: str = "manual",
) -> str | None:
    """Make the job that a person asks for, whatever the rules say; None where the same was made before.

    At study level without series named, the processor's own choice is taken. Raises `NotFound` where there is no input.
    """
    inputs = tuple(series_instance_uids)
    if not inputs and spec.level == "study":
        inputs = study_inputs(index, spec, study_instance_uid)
    if not inputs or (spec.level == "series" and len(inputs) != 1):
        raise NotFound(f"{spec.name} has no input there: it works on one {spec.level}")
    job = new_job(index, spec, given, study_instance_uid, inputs, rule=by, completion="asked for")
    made = index.jobs.add([job])
    return made[0] if made else None


def run_scheduler(settings: Settings, stop: threading.Event) -> None:
    """Run until `stop`: the process `pacs schedule`. A rules file that changes is read again; a wrong one is refused."""
    registry = discover(settings.plugins_path)
    watched = _RulesFile(settings.rules_path, registry)
    queue = CeleryQueue(broker_url(settings.broker.url, settings.home))
    index = Index.open(settings.database_url)
    try:
        scheduler = Scheduler(index, registry, watched.read(), queue, settings.processing)
        index.jobs.undispatch_all()
        wait_s = TICK_S
        while not stop.is_set():
            try:
                changed = watched.changed()
                if changed is not None:
                    scheduler.rules = changed
                scheduler.tick()
                wait_s = TICK_S
            except Unavailable:
                # Broker or database is away: rows wait, and so do we, a little longer each time.
                wait_s = min(wait_s * 2, LARGEST_WAIT_S)
                log.warning("scheduler_waits", waited_s=wait_s)
            except Exception as error:
                wait_s = min(wait_s * 2, LARGEST_WAIT_S)
                log.exception("scheduler_failed", error)
            stop.wait(wait_s)
    finally:
        queue.close()
        index.close()


class _RulesFile:
    """The rules file, read again when it changes."""

    def __init__(self, path: Path, registry: Mapping[str, Spec]) -> None:
        self._path = path
        self._registry = registry
        self._seen: tuple[int, int] | None = None

    def read(self) -> tuple[Rule, ...]:
        """Read it; the defaults where there is none. Raises `ConfigurationError`."""
        self._seen = self._stamp()
        if self._seen is None:
            return rules_file.parse_rules(rules_file.DEFAULT_RULES, self._registry)
        return rules_file.load_rules(self._path, self._registry)

    def changed(self) -> tuple[Rule, ...] | None:
        """The new rules, None where nothing changed or the file is wrong (which is logged once)."""
        if self._stamp() == self._seen:
            return None
        try:
            found = self.read()
        except ConfigurationError as error:
            log.error("rules_refused", reason=str(error))
            return None
        log.info("rules_read", count=len(found))
        return found

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
