"""What is written about policies in docs/deidentification.md, made from the tables that the engine follows."""

from collections import Counter

from pacs.deid.policy import BASIC_PROFILE, CONTRADICTIONS, METHODS, POLICIES, Action, Policy, Rules, table
from pacs.standard import tables

BEGIN, END = "<!-- policies: written by pacs.deid.reference -->", "<!-- end of policies -->"
_MEANS = {
    "clean_pixel_data": "Text in pixels is looked for and blanked before anybody sees the image",
    "clean_recognizable_visual_features": "Faces are taken out of heads: CT and MR, and segmentations, PET and doses with them",
    "clean_graphics": "Overlays and curves are dropped; text of graphic annotations is cleaned, their lines stay",
    "clean_structured_content": "Reports, acquisition context, specimen and waveform annotations by Table E.3.4-1",
    "clean_descriptors": "Descriptions keep known words and quantities, without echoes of people",
    "retain_long_full_dates": "Dates and times stay as they are",
    "retain_long_modified_dates": "Dates move by one offset a patient, in whole weeks; times stay",
    "retain_patient_characteristics": "Sex, age (above 89 as 090Y), size, weight and the like stay",
    "retain_device_identity": "Serial numbers, stations and calibration dates stay; AE titles become a dummy",
    "retain_uids": "UIDs stay as they came",
    "retain_safe_private": "Private elements of Table E.3.10-1, and numbers that TCIA found harmless",
    "retain_institution_identity": "Institution names, addresses and departments stay",
}
_VERBS = (
    ("removed", {Action.REMOVE}),
    ("emptied", {Action.EMPTY}),
    ("dummy", {Action.DUMMY, Action.RECURSE_DUMMY}),
    ("pseudonym or keyed UID", {Action.UID, Action.PATIENT_ID, Action.PATIENT_NAME, Action.ACCESSION}),
    ("moved or kept dates", {Action.SHIFT}),
    ("cleaned", {Action.CLEAN, Action.SCRUB, Action.CONTENT, Action.RECURSE}),
    ("kept, if of its VR", {Action.KEEP, Action.KEEP_UID, Action.KEEP_CHARACTER_SET}),
)


def policies() -> str:
    """Return the tables of options and policies in Markdown."""
    names = list(POLICIES)
    out = [BEGIN, "", "| option | CID 7050 | " + " | ".join(names) + " | what it does here |", "|---" * (len(names) + 3) + "|"]
    codes = tables.deidentification_methods()
    basic = " | ".join("yes" for _ in names)
    out.append(f"| *{codes[BASIC_PROFILE]}* | {BASIC_PROFILE} | {basic} | Every row of Table E.1-1, at any depth |")
    for option, code in METHODS.items():
        chosen = " | ".join("yes" if option in POLICIES[name].chosen else "" for name in names)
        out.append(f"| `{option}` | {code} | {chosen} | {_MEANS[option]} |")
    out += ["", "(0028,0303) says " + ", ".join(f"{POLICIES[name].temporal} under `{name}`" for name in names) + ".", ""]
    out += ["What becomes of the rows of Table E.1-1 in a CT image:", ""]
    out += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    counted = {name: _counted(POLICIES[name]) for name in names}
    for verb, _ in _VERBS:
        out.append(f"| {verb} | " + " | ".join(str(counted[name][verb]) for name in names) + " |")
    out += ["", "Refused at start, with the reason:", ""]
    out += [f"- `{first}` with `{second}`: {reason}." for first, second, reason in CONTRADICTIONS]
    return "\n".join([*out, "", END])


def _counted(policy: Policy) -> Counter[str]:
    rules = Rules(policy, "ct-image")
    verbs = {action: verb for verb, actions in _VERBS for action in actions}
    return Counter(verbs[rules.rule("", tag).action] for tag in table())
