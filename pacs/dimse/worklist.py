"""Modality Worklist and workitems as SCP of C-FIND: queries on data sets in memory (PS3.4 K.4.1, CC.2.8; PS3.7 9.1.2).

The worklist names patients as the hospital does, because a modality needs that. So only a configured peer that may `worklist`
gets it, from its own address, and each answer that named somebody is in the change feed as an audit. Workitems name nobody.
"""

from collections.abc import Callable, Generator, Iterator

from pacs.archive import Archive
from pacs.dimse import answering, contexts, datasets
from pacs.dimse.answering import Matches
from pacs.dimse.lane import LaneAssociation
from pacs.dimse.messages import Message
from pacs.model.errors import NotAuthorized, NotUnderstood
from pacs.workflow.attributes import Attributes
from pacs.workflow.workitems import Workitems
from pacs.workflow.worklist import Worklist


def is_asked(association: LaneAssociation, message: Message) -> bool:
    """Say whether a C-FIND came in a presentation context of the worklist or of workitems."""
    abstract_syntax = association._accepted_cx[message.context_id].abstract_syntax
    return abstract_syntax == contexts.WORKLIST_FIND or abstract_syntax in contexts.UPS_FIND_CLASSES


def find(archive: Archive, association: LaneAssociation, message: Message, *, may: Callable[[str], bool]) -> None:
    """Answer one query."""
    context = association._accepted_cx[message.context_id]
    syntax, of_worklist = str(context.transfer_syntax[0]), context.abstract_syntax == contexts.WORKLIST_FIND
    shown = 0

    def ask() -> Matches:
        if not may("worklist" if of_worklist else "workitems"):
            raise NotAuthorized("this application entity may not ask for this")
        # All services of workitems may be called by the name of the first (PS3.4 CC.3.1).
        called = (context.abstract_syntax,) if of_worklist else (context.abstract_syntax, contexts.UPS_PUSH)
        if message.sop_class_uid not in called or message.too_large:
            raise NotUnderstood("not a query of the SOP Class of the presentation context")
        keys, character_set = datasets.decode(message.data_set, syntax)
        find_all: Callable[[Attributes], Iterator[Attributes]] = (
            Worklist(archive).find if of_worklist else Workitems(archive).find
        )

        def bodies() -> Generator[bytes]:
            nonlocal shown
            for found in find_all(keys):
                yield datasets.encode(found, explicit=syntax == contexts.EXPLICIT_LITTLE_ENDIAN, character_set=character_set)
                # Asked for the next, so this one is out.
                shown += 1

        return Matches(message.sop_class_uid, bodies())

    try:
        answering.answer(archive, association, message, ask)
    finally:
        if shown and of_worklist:
            archive.index.note("worklist_shown", ae_title=association.requestor.ae_title.strip(), count=shown)
