"""The way in: every instance passes here, whatever door it came through.

Received ▶ Deidentified ▶ Encoded ▶ Sealed ▶ Stored. What cannot be understood, does not match, or cannot be made safe is kept
in the encrypted quarantine, and the sender is told so; nothing is ever lost between a door and its answer.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from pacs.archive import Archive
from pacs.dicom import large
from pacs.dicom.elements import EXPLICIT_LITTLE_ENDIAN
from pacs.logs import get_logger
from pacs.model.errors import ArchiveError, DataSetMismatch, NotUnderstood, Quarantined, SOPClassNotSupported
from pacs.model.instance import Arrival, Deidentified, Origin, Received, Stored
from pacs.model.job import Claim
from pacs.store.scratch import Arriving

log = get_logger(__name__)
DEFLATED = "1.2.840.10008.1.2.1.99"


def ingest(archive: Archive, received: Received) -> Stored:
    """Take one composite instance in. On return it is durable, indexed and (unless held) visible.

    Raises
    ------
    NotUnderstood, DataSetMismatch, SOPClassNotSupported, Quarantined
        The object is in the encrypted quarantine and not in the archive.
    Unavailable, OutOfResources
        Nothing was kept; the sender should try again. A full quota is an `OutOfResources` that names it.
    """
    with archive.intake.turn(received.data_set), _inflated(archive, received) as plain:
        deidentified = _deidentify(archive, received, plain)
        digest = archive.codec.digest(deidentified)
        known = archive.index.equal(deidentified.key.sop_instance_uid, digest)
        if known is not None:
            _keep_identity(archive, deidentified, digest)
            return known
        archive.quotas.check(received.source, deidentified.policy)
        return archive.committer.commit(_arrival(archive, received, deidentified, digest))


def ingest_derived(archive: Archive, received: Sequence[Received], *, finishing: Claim | None) -> list[Stored]:
    """Take the outputs of a job in, all of them and the job's end in one transaction.

    Raises `NotFound` if the job's lease was lost; then nothing becomes visible.
    """
    arrivals = []
    for one in received:
        attested = archive.deidentifier.attest(one)
        arrivals.append(_arrival(archive, one, attested, archive.codec.digest(attested)))
    return archive.committer.commit_all(arrivals, finishing=finishing)


def release(archive: Archive, quarantine_id: str, policy: str = "", *, reason: str = "") -> Stored:
    """Let an object out of quarantine into the archive: the same way in, under `policy` or the one that holds for it now.

    What a cleaning job put there has lost its identity already; only its pixels are in doubt. It is let in as it is, on the
    word of who has looked at it, who must give a `reason`; nothing is claimed of its pixels.

    Raises
    ------
    NotUnderstood, DataSetMismatch, Quarantined, SOPClassNotSupported
        It would come back at once; it stays where it is.
    ConfigurationError
        There is no such policy.
    """
    received = archive.quarantine.open(quarantine_id)
    if received.origin is Origin.PROCESSOR:
        return _release_as_it_is(archive, quarantine_id, received, policy, reason)
    deidentifier = archive.deidentifier.under(policy) if policy else archive.deidentifier
    with archive.intake.turn(received.data_set), _inflated(archive, received, released=True) as plain:
        deidentified = deidentifier.deidentify(plain)
        digest = archive.codec.digest(deidentified)
        stored = archive.index.equal(deidentified.key.sop_instance_uid, digest)
        if stored is None:
            stored = archive.committer.commit(_arrival(archive, received, deidentified, digest))
        else:
            _keep_identity(archive, deidentified, digest)
    archive.quarantine.discard(quarantine_id)
    # The association that brought it has long ended; without a word of its own the series would wait for silence.
    archive.index.end_association(received.association)
    return stored


def _release_as_it_is(archive: Archive, quarantine_id: str, received: Received, policy: str, reason: str) -> Stored:
    if policy:
        raise Quarantined(
            "its attributes are de-identified already: it can be let in as it is, with a reason, under no other policy"
        )
    if not reason.strip():
        raise Quarantined("a job could not make its pixels safe; who has looked at them and lets it in must give a reason")
    with archive.intake.turn(received.data_set):
        attested = archive.deidentifier.attest(received)
        deidentified = replace(attested, policy=attested.policy.replace("attested", "released"))
        digest = archive.codec.digest(deidentified)
        stored = archive.index.equal(deidentified.key.sop_instance_uid, digest)
        if stored is None:
            # Not a result: it is what was sent, and rules may work on it.
            by_hand = replace(received, origin=Origin.IMPORT, source="quarantine")
            stored = archive.committer.commit(_arrival(archive, by_hand, deidentified, digest))
    archive.quarantine.discard(quarantine_id)
    archive.index.end_association(received.association)
    return stored


@contextmanager
def _inflated(archive: Archive, received: Received, *, released: bool = False) -> Iterator[Received]:
    """Give a deflated data set that is large, or becomes it, inflated (PS3.5 A.5): a little of zlib can be gigabytes."""
    if received.transfer_syntax_uid != DEFLATED:
        yield received
        return
    arriving = Arriving(archive.intake)
    limit = archive.settings.dicom.maximum_object_mb << 20
    try:
        for piece in large.inflated(received.data_set):
            arriving += piece
            if len(arriving) > limit:
                raise NotUnderstood("inflated, the data set is larger than the settings allow (dicom.maximum_object_mb)")
    except NotUnderstood as error:
        if not released:
            _quarantine(archive, received, type(error).__name__, str(error))
        raise
    if not arriving.spilled:
        arriving.clear()
        yield received
        return
    content = arriving.content()
    try:
        in_turn = not isinstance(received.data_set, bytes | bytearray | memoryview)
        with nullcontext() if in_turn else archive.intake.turn(content):
            yield replace(received, data_set=content, transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN)
    finally:
        archive.intake.release(content)


def _deidentify(archive: Archive, received: Received, plain: Received) -> Deidentified:
    assert received.origin is not Origin.PROCESSOR, "processors come in by ingest_derived"
    try:
        return archive.deidentifier.deidentify(plain)
    except (NotUnderstood, DataSetMismatch, SOPClassNotSupported, Quarantined) as error:
        _quarantine(archive, received, type(error).__name__, str(error))
        raise
    except ArchiveError:
        raise
    except Exception as error:
        # Fail closed: whatever went wrong while identity was still inside, the object must not pass.
        log.exception("deidentification_failed", error)
        _quarantine(archive, received, "Quarantined", f"de-identification failed ({type(error).__name__})")
        raise Quarantined("de-identification failed; the object is in quarantine") from error


def _quarantine(archive: Archive, received: Received, kind: str, reason: str) -> None:
    quarantine_id = archive.quarantine.keep(received, kind, reason)
    log.warning("instance_quarantined", quarantine_id=quarantine_id, kind=kind, reason=reason, origin=received.origin)


def _arrival(archive: Archive, received: Received, deidentified: Deidentified, digest: bytes) -> Arrival:
    later = received.origin is not Origin.PROCESSOR and archive.haste.later(received.association)
    encoded = archive.codec.encode(deidentified, digest, later=later)
    return Arrival(
        encoded=encoded,
        sealed=archive.sealer.seal(
            encoded,
            policy=deidentified.policy,
            origin=received.origin,
            pending=deidentified.pending,
            report=deidentified.report,
            source=received.source,
            made_by=received.made_by,
        ),
        origin=received.origin,
        source=received.source,
        association=received.association,
        policy=deidentified.policy,
        pending=deidentified.pending,
        report=deidentified.report,
        taken=deidentified.taken,
    )


def _keep_identity(archive: Archive, deidentified: Deidentified, digest: bytes) -> None:
    """Give an instance that is here already its row in the vault, if a crash or an older setting left it without one."""
    key, taken = deidentified.key, deidentified.taken
    if archive.vault is not None and taken is not None and not archive.vault.has(key.sop_instance_uid, digest):
        archive.vault.keep([(key, digest, taken)])
