"""What can go wrong in the archive, as one tree.

Rooms raise the most telling class; the doors (`dimse/status.py`, `web/status.py`) look the class up along its MRO and choose
the number (PS3.4 Table B.2-1, PS3.7 Annex C, HTTP). A message states facts and what to do next, never a patient's data.
"""


class ArchiveError(Exception):
    """Anything the archive itself can say about a failure."""


class Refused(ArchiveError):
    """The sender must change something before it tries again."""


class NotUnderstood(Refused):
    """The bytes are not DICOM, or cannot be parsed to their end."""


class DataSetMismatch(Refused):
    """The data set contradicts its command or lacks the UIDs that name it (PS3.4 B.2.3, A9xx)."""


class SOPClassNotSupported(Refused):
    """A class this archive does not take."""


class NotAuthorized(Refused):
    """This caller may not do this."""


class InstanceConflict(Refused):
    """The same SOP Instance UID with other content, where policy says to refuse it."""


class InvalidQuery(Refused):
    """A query or retrieve identifier that cannot be answered as it stands (PS3.4 C.4.1.1.4, A900)."""


class DuplicateInstance(Refused):
    """What is to be created is there already (PS3.7 C.5.6)."""


class InvalidValue(Refused):
    """An attribute has a value that it may not have here (PS3.7 C.5.8)."""


class MissingAttribute(Refused):
    """An attribute that must be there is not (PS3.7 C.5.13)."""


class MissingValue(Refused):
    """An attribute that must have a value has none (PS3.7 C.5.14)."""


class NoLongerUpdatable(Refused):
    """What is to be changed has ended."""


class Quarantined(ArchiveError):
    """Could not be made safe: kept encrypted, outside the archive. The message names the reason, never a value."""


class Unavailable(ArchiveError):
    """Ours; the same request may succeed later."""


class OutOfResources(Unavailable):
    """No room on the disk or in memory."""


class NotFound(ArchiveError):
    """What was asked for is not here."""


class IntegrityError(ArchiveError):
    """What was read is not what was written."""


class NotTranscodable(ArchiveError):
    """The stored pixel data cannot be brought into a transfer syntax that the receiver accepts."""


class ConfigurationError(ArchiveError):
    """A setting, key, port or folder is not usable; the message says which and what to do."""
