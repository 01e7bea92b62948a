"""What is negotiated."""

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

from pacs.dimse import contexts

CT = "1.2.840.10008.5.1.4.1.1.2"
JPEG_LS, J2K = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
IMPLICIT, EXPLICIT = contexts.IMPLICIT_LITTLE_ENDIAN, contexts.EXPLICIT_LITTLE_ENDIAN


def test_a4_compressed_goes_before_uncompressed_in_the_senders_order() -> None:
    """No sender has to decompress what it holds; of the uncompressed ones Explicit VR Little Endian comes first."""
    offered = [IMPLICIT, J2K, EXPLICIT, JPEG_LS, "1.2.840.10008.1.2.2"]

    assert contexts.preferred(offered) == [J2K, JPEG_LS, EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2"]


def test_a4_what_a_peer_prefers_goes_before_everything_else() -> None:
    """In its own order, as far as it was offered."""
    offered = [IMPLICIT, J2K, EXPLICIT, JPEG_LS]

    assert contexts.preferred(offered, (), [contexts.HTJ2K[0], IMPLICIT, JPEG_LS]) == [IMPLICIT, JPEG_LS, J2K, EXPLICIT]


def test_s14_jpip_is_not_accepted() -> None:
    """What a JPIP syntax names is not in the data set, so it cannot be kept."""
    assert contexts.preferred(["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95"]) == []


def test_s13_private_classes_and_services_we_lack_are_left_out() -> None:
    """They are answered with context result 3 by not being supported."""
    proposed = [build_context(UID("1.2.826.0.1.999.1")), build_context("1.2.840.10008.5.1.4.37.1"), build_context(CT)]

    assert [str(one.abstract_syntax) for one in contexts.supported(proposed)] == [CT]


def test_s13_a_peer_may_bring_the_private_classes_and_syntaxes_of_its_policy() -> None:
    """Those and no other; a private transfer syntax is taken only where no standard one is offered."""
    private_class, other, private_syntax = "1.2.826.0.1.999.1", "1.2.826.0.1.999.2", "1.2.826.0.1.999.3"
    proposed = [build_context(private_class, EXPLICIT), build_context(other), build_context(CT, [private_syntax, IMPLICIT])]

    accepted = contexts.supported(proposed, {private_class, private_syntax})

    told = [(str(one.abstract_syntax), [str(uid) for uid in one.transfer_syntax or ()]) for one in accepted]
    assert told == [(private_class, [EXPLICIT]), (CT, [IMPLICIT, private_syntax])]


def test_every_storage_class_takes_both_roles_and_no_other() -> None:
    """Both roles for storage, so that a requestor of C-GET may be SCP (PS3.7 D.3.3.4)."""
    proposed: list[PresentationContext] = [build_context(CT), build_context(contexts.STUDY_ROOT_FIND)]

    storage, find = contexts.supported(proposed)

    assert (storage.scu_role, storage.scp_role) == (True, True)
    assert (find.scu_role, find.scp_role) == (None, None)


def test_a9_extended_negotiation_answers_what_is_really_done() -> None:
    """Relational and, in queries, date-time, fuzzy, timezone, empty and multiple values; as long as proposed, the rest 0."""
    answers = contexts.extended(
        {
            contexts.STUDY_ROOT_FIND: b"\1\1\1\1\1\1\1",
            contexts.PATIENT_ROOT_FIND: b"\0\1",
            contexts.STUDY_ROOT_MOVE: b"\1\1\1",
            "1.2.3": b"\1",
        }
    )

    assert answers == {
        contexts.STUDY_ROOT_FIND: b"\1\1\1\1\0\1\1",
        contexts.PATIENT_ROOT_FIND: b"\0\1",
        contexts.STUDY_ROOT_MOVE: b"\1\0\0",
    }
