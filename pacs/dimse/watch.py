"""Event reports of workitems as SCP of UPS Event: peers that follow a job are told each of its states (PS3.4 CC.2.4).

A subscription remembers what was reported last, so that nothing is lost over restarts and nothing told twice. A state that came
and went between two looks is told in its order all the same. A peer that cannot be reached is tried again, ever more rarely.
"""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby

from pacs.archive import Archive
from pacs.dimse import contexts, datasets, messages, requestor, status
from pacs.dimse.lane import AssociationLost, LaneAssociation
from pacs.dimse.messages import Command
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, NotFound, NotUnderstood
from pacs.model.waiting import LONGEST_WAIT_S
from pacs.model.workitem import CANCELED, COMPLETED, IN_PROGRESS, SCHEDULED, Subscription
from pacs.workflow.attributes import Attributes, make
from pacs.workflow.workitems import Workitems

log = get_logger(__name__)
STATE_REPORT, CANCEL_REQUESTED, PROGRESS_REPORT = 1, 2, 3
"""Event Types (PS3.4 Table CC.2.4-1)."""
_LOOK_EVERY_S = 0.5
_FIRST_WAIT_S = 5.0
_PATIENCE_S = 7 * 86400.0
_STEP = 0.05
"""Progress is told in steps of so much."""
Event = tuple[int, Attributes]


class Watcher:
    """Reports to those who follow jobs."""

    def __init__(self, archive: Archive, clock: Callable[[], float] = time.time) -> None:
        self._archive = archive
        self._workitems = Workitems(archive)
        self._rows = archive.index.workitems
        self._clock = clock
        self._resting: dict[str, tuple[float, float]] = {}

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set."""
        while not stop.wait(_LOOK_EVERY_S):
            try:
                self.turn()
            except Exception as error:
                log.exception("events_failed", error)

    def turn(self) -> int:
        """Report what has changed; returns how many events were taken."""
        self._rows.follow()
        told = 0
        for ae_title, mine in groupby(self._rows.subscriptions(), key=lambda one: one.ae_title):
            until, _ = self._resting.get(ae_title, (0.0, 0.0))
            if until <= self._clock():
                told += self._tell(ae_title, list(mine))
        return told

    def _tell(self, ae_title: str, subscriptions: list[Subscription]) -> int:
        """Send one peer what is new to it, on one association."""
        told, association = 0, None
        try:
            for one in subscriptions:
                state, progress, reason = self._workitems.state(one.job_id)
                events = list(_events(one, state, progress, reason))
                if not events:
                    continue
                if association is None:
                    association = self._associate(ae_title)
                for event in events:
                    told += 1
                    self._send(association, self._workitems.uid_of(one.job_id), event, told)
                if state in (COMPLETED, CANCELED):
                    self._rows.unsubscribe(ae_title, one.job_id)
                else:
                    self._rows.reported(one, state, progress)
        except (ArchiveError, AssociationLost) as error:
            if association is not None:
                association.terminate()
            self._rest(ae_title, subscriptions, error)
            return told
        self._resting.pop(ae_title, None)
        if association is not None:
            association.release_and_wait()
        return told

    def _rest(self, ae_title: str, subscriptions: list[Subscription], error: Exception) -> None:
        """Leave a peer alone for a while, twice as long each time; give it up where it is unknown or was away for a week."""
        wait_s = min(LONGEST_WAIT_S, 2 * self._resting.get(ae_title, (0.0, _FIRST_WAIT_S / 2))[1])
        self._resting[ae_title] = (self._clock() + wait_s, wait_s)
        log.warning("event_not_taken", ae_title=ae_title, error=type(error).__name__, retry_in_s=wait_s)
        if isinstance(error, NotFound):
            self._rows.unsubscribe(ae_title, None)
        for one in subscriptions:
            if one.since < self._clock() - _PATIENCE_S:
                self._rows.unsubscribe(ae_title, one.job_id)

    def _associate(self, ae_title: str) -> LaneAssociation:
        settings, peer = self._archive.settings.dicom, self._archive.index.peers.get(ae_title)
        if peer is None:
            raise NotFound("the peer is no longer configured")
        return requestor.associate_with(settings, peer, [(contexts.UPS_EVENT, contexts.MESSAGE_SYNTAXES)], [contexts.UPS_EVENT])

    def _send(self, association: LaneAssociation, uid: str, event: Event, message_id: int) -> None:
        # Some peers accept the context and forget the role; the report is no less welcome to them.
        ways = requestor.accepted(association, contexts.UPS_EVENT, as_scp=True)
        ways = ways or requestor.accepted(association, contexts.UPS_EVENT)
        if not ways:
            raise NotUnderstood("the peer takes no events of workitems")
        syntax, context_id = next(iter(ways.items()))
        kind, content = event
        values: dict[int, int | str] = {
            messages.AFFECTED_SOP_CLASS_UID: contexts.UPS_PUSH,
            messages.AFFECTED_SOP_INSTANCE_UID: uid,
            messages.MESSAGE_ID: message_id & 0xFFFF,
            messages.EVENT_TYPE_ID: kind,
        }
        body = datasets.encode(content, explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN)
        association.dimse.send(context_id, messages.encode(Command.N_EVENT_REPORT_RQ, values, data_set=True), [body])
        code = requestor.response(association, Command.N_EVENT_REPORT_RSP, message_id & 0xFFFF).status
        if code != status.SUCCESS and not status.is_warning(code):
            raise NotUnderstood(f"the peer answered status {code:04X}")


def _events(one: Subscription, state: str, progress: float, reason: str) -> Iterator[Event]:
    """Yield what a subscriber does not know yet."""
    if one.reported == SCHEDULED and state == COMPLETED:
        # It was in progress, even if nobody looked at that moment; what is cancelled need not have been.
        yield _state(IN_PROGRESS, "")
    if one.reported != state:
        yield _state(state, reason)
    if state == IN_PROGRESS and progress >= one.progress + _STEP:
        said = {"ProcedureStepProgress": round(progress * 100, 1)}
        yield PROGRESS_REPORT, make({"ProcedureStepProgressInformationSequence": [said]})
    if state == IN_PROGRESS and one.cancel_by:
        yield CANCEL_REQUESTED, make({"RequestingAE": one.cancel_by})


def _state(state: str, reason: str) -> Event:
    given = {"InputReadinessState": "READY", "ProcedureStepState": state}
    if state == CANCELED:
        given["ReasonForCancellation"] = reason
    return STATE_REPORT, make(given)
