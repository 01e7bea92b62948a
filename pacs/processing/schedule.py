"""Sees what has come to rest, asks the rules, makes jobs, and rings the workers' bell.

Everything it needs to know is in rows, so it can be killed at any time: a generation is marked as scheduled in the transaction
that inserts its jobs, and a job that was rung but never claimed is rung again. A broker that is away costs time only. It opens
the index alone; a key and a record are needed only where a rule names an attribute that the index does not keep.
"""

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pacs.index.database import Index
from pacs.logs import get_logger
from pacs.model.errors import NotFound, Unavailable
from pacs.model.job import HeldSeries, Job, JobState, NewJob, RuleVersion
from pacs.ports import Clock, Queue
from pacs.processing import routes
from pacs.processing import rules as rules_file
from pacs.processing.api import Spec
from pacs.processing.cleaners import CLEANERS, WITH_STUDY, first_of, processor_of
from pacs.processing.hours import opens_at
from pacs.processing.planning import Headers, Planner, new_job, study_inputs
from pacs.processing.registry import discover
from pacs.processing.routes import Route, load_routes, routes_path
from pacs.processing.rules import Rule
from pacs.processing.sending import PREFIX, permitted, send_job
from pacs.processing.stored_headers import HeaderReader
from pacs.processing.watched import Watched
from pacs.queue import CeleryQueue, broker_url
from pacs.settings import ProcessingSettings, Settings

log = get_logger(__name__)
TICK_S = 0.5
HOUR_S = 3600.0
PATIENCE_S = 2.0
WAITS_FOR_HOURS = "waits for the hours of its rule"
LARGEST_WAIT_S = 8.0
AT_ONCE = 200


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
        headers: Headers | None = None,
        send_attempts: int = 3,
    ) -> None:
        self._index = index
        self.rules = tuple(rules)
        self.routes: tuple[Route, ...] = ()
        self._planner = Planner(index, registry, headers)
        self._queue = queue
        self._settings = settings
        # A worker that died while it sent is no reason to give a peer up sooner than one that is away.
        self._patience = {PREFIX: send_attempts}
        self._clock = clock

    def tick(self) -> int:
        """Make jobs of what has settled, ring for what is due; returns how many jobs were rung for.

        Raises `Unavailable` where the broker is away; the rows wait.
        """
        at_rest = self._index.settled_held(
            self._clock(),
            settle_s=self._settings.settle_s,
            quiet_s=self._settings.quiet_s,
            study_settle_s=self._settings.study_settle_s,
            with_study=WITH_STUDY,
        )
        for held in at_rest:
            made = self._index.scheduled_held(held, cleaning_jobs(held))
            log.info(
                "cleaning_scheduled",
                study_instance_uid=held.study_instance_uid,
                series_instance_uid=held.series_instance_uid,
                generation=held.generation,
                evidence=held.completion,
                count=len(made),
            )
        self._index.performed.settle()
        settled = self._index.settled(
            self._clock(),
            settle_s=self._settings.settle_s,
            quiet_s=self._settings.quiet_s,
            study_settle_s=self._settings.study_settle_s,
        )
        for one in settled:
            sends = routes.plan(self._index, self.routes, one, derived=False)
            made = self._index.scheduled(one, [*self._planner.plan(self.rules, one), *sends])
            log.info(
                "scheduled",
                study_instance_uid=one.study_instance_uid,
                series_instance_uid=one.series_instance_uid,
                generation=one.generation,
                evidence=one.completion,
                count=len(made),
            )
        self.follow()
        for one in self._index.settled_derived():
            made = self._index.scheduled(one, routes.plan(self._index, self.routes, one, derived=True))
            if made:
                log.info("routed", series_instance_uid=one.series_instance_uid, count=len(made))
        return self._ring()

    def follow(self) -> int:
        """Ask the rules that come after jobs that have ended; returns how many jobs they made."""
        count = 0
        for ended in self._index.chains.to_follow():
            new = [*self._planner.follow(self.rules, ended), *self._sends(ended)]
            made = self._index.chains.followed(ended.job_id, new)
            if made:
                log.info("followed", job_id=ended.job_id, rule=ended.rule, count=len(made))
            count += len(made)
        return count

    def _sends(self, ended: Job) -> list[NewJob]:
        """The jobs that send results to where their rule wants them."""
        if ended.state is not JobState.SUCCEEDED or not ended.output_series_instance_uids:
            return []
        return [
            send_job(
                self._index,
                peer,
                ended.study_instance_uid,
                ended.output_series_instance_uids,
                rule=f"results of {rule.name}",
                completion=f"made by {ended.processor}",
            )
            for rule in self.rules
            if rule.name == ended.rule
            for peer in rule.send
        ]

    def _ring(self) -> int:
        now = self._clock()
        due = self._index.jobs.due(now, AT_ONCE, attempts=self._settings.attempts, patience=self._patience)
        if due:
            due = permitted(self._index, self._permitted(due, now), now, self._settings.senders)
        rung: list[str] = []
        try:
            for job_id, queue in due:
                self._queue.ring(job_id, queue)
                rung.append(job_id)
        finally:
            if rung:
                self._index.jobs.dispatched(rung)
        return len(rung)

    def _permitted(self, due: Sequence[tuple[str, str]], now: float) -> list[tuple[str, str]]:
        """Leave out what its rule's hours and limits forbid just now; such jobs are due again when they may be permitted."""
        restricted = {rule.name: rule for rule in self.rules if rule.hours or rule.per_hour or rule.at_once}
        if not restricted:
            return list(due)
        of_rule: dict[str, list[str]] = {}
        for job_id, name in self._index.jobs.rules_of([job_id for job_id, _ in due]).items():
            if name in restricted:
                of_rule.setdefault(name, []).append(job_id)
        refused: set[str] = set()
        for name, job_ids in of_rule.items():
            free, again_at, reason = self._room(restricted[name], now)
            if len(job_ids) > free:
                late = job_ids[free:]
                self._index.jobs.postpone(late, again_at, reason)
                refused.update(late)
        return [(job_id, queue) for job_id, queue in due if job_id not in refused]

    def _room(self, rule: Rule, now: float) -> tuple[int, float, str]:
        """How many jobs of a rule may be announced now, and when and why the others must wait."""
        opens = opens_at(rule.hours, now)
        if opens > now:
            # What was announced and not begun when the hours ended is called back.
            self._index.jobs.postpone(self._index.jobs.announced(rule.name), opens, WAITS_FOR_HOURS)
            return 0, opens, WAITS_FOR_HOURS
        running, begun = self._index.jobs.begun(rule.name, now - HOUR_S)
        waiting = len(self._index.jobs.announced(rule.name))
        free, again_at, reason = AT_ONCE, now, ""
        if rule.at_once:
            free, again_at, reason = max(0, rule.at_once - running - waiting), now + PATIENCE_S, "waits for another of its rule"
        if rule.per_hour and rule.per_hour - len(begun) - waiting < free:
            free = max(0, rule.per_hour - len(begun) - waiting)
            again_at = begun[0] + HOUR_S if begun else now + PATIENCE_S
            reason = "waits: its rule has had its share of the hour"
        return free, again_at, reason


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


def ask_again(index: Index, registry: Mapping[str, Spec], job: Job, changes: Mapping[str, Any]) -> str | None:
    """Make a job like another one, with the processor as it is now and some parameters changed; None where it was made before.

    It supersedes the other one, whose results stay beside its own. Raises `NotFound` where the processor is not installed,
    `ParameterError` for parameters that it has not.
    """
    spec = registry.get(job.processor)
    if spec is None:
        raise NotFound(f"the processor {job.processor} is not installed here")
    known = {one.name for one in spec.parameters}
    kept = {name: value for name, value in job.parameters.items() if name in known}
    new = new_job(
        index,
        spec,
        {**kept, **changes},
        job.study_instance_uid,
        job.series_instance_uids,
        rule=job.rule,
        completion="asked for again",
    )
    parents = tuple(index.chains.parents(job.job_id))
    same = {"rule_digest": job.rule_digest, "step": job.step, "subject": job.subject, "priority": job.priority}
    made = index.jobs.add([replace(new, parents=parents, **same)])  # type: ignore[arg-type]  # names and types of NewJob
    return made[0] if made else None


def versions(rules: Sequence[Rule], registry: Mapping[str, Spec]) -> list[RuleVersion]:
    """Return rules as the index keeps them, what their processors are for beside them."""
    return [
        RuleVersion(
            rule.digest,
            rule.name,
            {"rule": dict(rule.definition), "when": {use.processor: dict(registry[use.processor].when) for use in rule.run}},
            since=0.0,
        )
        for rule in rules
    ]


def run_scheduler(settings: Settings, stop: threading.Event) -> None:
    """Run until `stop`: the process `pacs schedule`. A rules file that changes is read again; a wrong one is refused."""
    registry = discover(settings.plugins_path)
    watched = rules_in(settings.rules_path, registry)
    routed = Watched(routes_path(settings.rules_path), lambda _: load_routes(routes_path(settings.rules_path)))
    queue = CeleryQueue(broker_url(settings.broker.url, settings.home))
    index = Index.open(settings.database_url)
    headers = HeaderReader(settings)
    try:
        scheduler = Scheduler(
            index,
            registry,
            watched.read(),
            queue,
            settings.processing,
            headers=headers,
            send_attempts=settings.dicom.send_attempts,
        )
        scheduler.routes = routed.read()
        index.chains.put_rules(versions(scheduler.rules, registry))
        index.jobs.undispatch_all()
        wait_s = TICK_S
        while not stop.is_set():
            try:
                changed = watched.changed()
                if changed is not None:
                    scheduler.rules = changed
                    index.chains.put_rules(versions(changed, registry))
                rerouted = routed.changed()
                if rerouted is not None:
                    scheduler.routes = rerouted
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
        headers.close()
        queue.close()
        index.close()


def rules_in(path: Path, registry: Mapping[str, Spec]) -> Watched[Rule]:
    """Return the rules file, read again when it changes; where there is none, the defaults."""

    def read(there: bool) -> tuple[Rule, ...]:
        if not there:
            return rules_file.parse_rules(rules_file.DEFAULT_RULES, registry)
        return rules_file.load_rules(path, registry)

    return Watched(path, read)
