"""The de-identification section of the conformance statement (PS3.2, PS3.15 E.4), written from the tables in force.

`docs/conformance.md` holds what `section()` returns, between its two marks; a test compares the two.
"""

from collections import Counter

from pacs.deid import policy
from pacs.deid.policy import METHODS, POLICIES, Action, Rules
from pacs.standard import tables

BEGIN = "<!-- written by `pacs deid statement`: begin -->"
END = "<!-- written by `pacs deid statement`: end -->"
_IODS = (
    ("CT Image", "1.2.840.10008.5.1.4.1.1.2"),
    ("Positron Emission Tomography Image", "1.2.840.10008.5.1.4.1.1.128"),
    ("Enhanced SR", "1.2.840.10008.5.1.4.1.1.88.22"),
)
_GROUPS = (
    ("removed", frozenset({Action.REMOVE})),
    ("emptied or dummy", frozenset({Action.EMPTY, Action.DUMMY, Action.RECURSE_DUMMY})),
    ("pseudonym or new UID", frozenset({Action.UID, Action.PATIENT_NAME, Action.PATIENT_ID, Action.ACCESSION})),
    ("date moved", frozenset({Action.SHIFT})),
    ("text cleaned", frozenset({Action.CLEAN, Action.SCRUB, Action.CONTENT})),
    ("kept, or its items treated", frozenset({Action.KEEP, Action.RECURSE, Action.KEEP_UID, Action.KEEP_CHARACTER_SET})),
)

_AFTER = """\
Attributes in no table are treated by VR: names, AE titles and URLs emptied, UIDs replaced, dates as the policy says, text
searched for the patient's identity. Removed are: what no edition of PS3.6 knows, private attributes that no table calls safe,
curves, overlays, icons, signatures, and incoming claims of de-identification. A patient (ID and issuer) has one pseudonym and
a UID one new UID as long as the key lives; without a Patient ID each study is a patient of its own.

**Re-identification.** The vault keeps the original elements at the top of the data set, sealed under the identity key. A peer
or token marked `original` queries by them and gets them; answers keep the order of the archive. Not restored are private
attributes, group lengths, pixels that were cleaned (text, faces, overlay bits, bytes behind the last pixel), elements over
64 KiB and sequences over 4 MiB. An object made here gets patient and study back and refers to the originals; its own UIDs and
dates stay. Encrypted Attributes Sequence (0400,0500): `pacs get --sealed-identity`, CMS enveloped-data with AES-256-CBC under
an RSA key; it goes out with files only, to one configured recipient."""


def section() -> str:
    """Return the section as Markdown, its marks around it."""
    meanings = tables.deidentification_methods()
    rows = policy.table()
    out = [BEGIN, "## De-identification (PS3.15 Annex E)"]
    out += [
        f"Basic Application Level Confidentiality Profile by Table E.1-1 of 2026d ({len(tables.profile_rows())} rows), with",
        f"these options; Tables E.3.4-1 ({len(tables.content_rows())} concepts) and E.3.10-1 "
        f"({len(tables.safe_private_rows())} safe private attributes), both of 2026c, with those that need them.",
        "De-identifier; re-identifier only for peers and tokens marked so (below).",
        "",
        "| CID 7050 | option of E.3 | " + " | ".join(POLICIES) + " |",
        "|---|---|" + "---|" * len(POLICIES),
        f"| {policy.BASIC_PROFILE} | {meanings[policy.BASIC_PROFILE]} | " + " | ".join("yes" for _ in POLICIES) + " |",
    ]
    for option, code in METHODS.items():
        marks = " | ".join("yes" if option in one.chosen else "–" for one in POLICIES.values())
        out.append(f"| {code} | {meanings[code]} | {marks} |")
    temporal = " | ".join(one.temporal for one in POLICIES.values())
    out += [f"| (0028,0303) | Longitudinal Temporal Information Modified | {temporal} |", ""]
    out += [
        "A site's own policies are any sets of these options that do not contradict each other: "
        + "; ".join(f"`{first}` with `{second}` is refused" for first, second, _ in policy.CONTRADICTIONS)
        + ". (0012,0064) names the options that did something on the instance, (0012,0063) the policy and its digest.",
        "",
        f"What becomes of the {len(rows)} attributes of Table E.1-1 at the top level of three IODs, compound actions "
        "resolved by Type:",
        "",
        "| policy | IOD | " + " | ".join(name for name, _ in _GROUPS) + " |",
        "|---|---|" + "---|" * len(_GROUPS),
    ]
    for one in (POLICIES["basic"], POLICIES["research"]):
        for iod, uid in _IODS:
            rules = Rules(one, tables.iod_of(uid))
            counts = Counter(rules.rule("", tag).action for tag in rows)
            cells = " | ".join(str(sum(counts[action] for action in group)) for _, group in _GROUPS)
            out.append(f"| {one.name} | {iod} | {cells} |")
    out += [
        "",
        _AFTER,
        END,
    ]
    return "\n".join(out) + "\n"
