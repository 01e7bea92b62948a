"""`pacs worklist`: what is scheduled, for modalities that ask. Names patients as the hospital does; every look is audited."""

import datetime
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from pacs.cli.console import Json, emit, fail, one_line_errors, open_archive, out, show

app = typer.Typer(
    help="What is scheduled, for modalities that ask (Modality Worklist). A peer needs `--may worklist`.", no_args_is_help=True
)
Station = Annotated[str, typer.Option(help="AE title of the modality, for orders that name none.")]
COLUMNS = {
    "item_id": "Item",
    "date": "Date",
    "time": "Time",
    "station": "Station",
    "modality": "Modality",
    "patient_name": "Patient",
    "patient_id": "Patient ID",
    "accession_number": "Accession",
    "description": "What",
    "state": "State",
}


@app.command()
def add(
    patient_name: Annotated[str, typer.Option(help="Patient's Name as DICOM writes it: Family^Given.")],
    patient_id: Annotated[str, typer.Option(help="Patient ID.")],
    station: Annotated[str, typer.Option(help="Scheduled Station AE Title: the modality that shall see it.")],
    date: Annotated[str, typer.Option(help="Day, YYYYMMDD.")],
    modality: Annotated[str, typer.Option(help="Modality, such as CT.")],
    time: Annotated[str, typer.Option(help="Time of day, HHMM or HHMMSS.")] = "0000",
    accession: Annotated[str, typer.Option(help="Accession Number.")] = "",
    birth_date: Annotated[str, typer.Option(help="Patient's Birth Date, YYYYMMDD.")] = "",
    sex: Annotated[str, typer.Option(help="Patient's Sex: M, F or O.")] = "",
    description: Annotated[str, typer.Option(help="What is to be done.")] = "",
    physician: Annotated[str, typer.Option(help="Scheduled Performing Physician's Name.")] = "",
    as_json: Json = False,
) -> None:
    """Put one scheduled procedure step on the worklist; the same order again changes it."""
    given = {
        "PatientName": patient_name,
        "PatientID": patient_id,
        "PatientBirthDate": birth_date,
        "PatientSex": sex,
        "AccessionNumber": accession,
        "RequestedProcedureDescription": description,
        "ScheduledStationAETitle": station,
        "ScheduledProcedureStepStartDate": date,
        "ScheduledProcedureStepStartTime": time,
        "Modality": modality,
        "ScheduledProcedureStepDescription": description,
        "ScheduledPerformingPhysicianName": physician,
    }
    _add([given], "", as_json)


@app.command("import")
def import_file(
    path: Annotated[Path, typer.Argument(help="A file, or - for standard input.")],
    station: Station = "",
    as_json: Json = False,
) -> None:
    """Take in a file: JSON (DICOM JSON Model, or keyword -> value; an object or a list), or HL7 v2 ORM^O01 and OMI^O23.

    HL7 orders that cancel or discontinue take their items off the worklist.
    """
    from pacs.workflow import hl7, worklist

    try:
        content = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise fail(f"cannot read {path}: {error.strerror}") from error
    if content.lstrip(b"\x0b\xef\xbb\xbf\r\n ")[:3] != b"MSH":
        try:
            parsed = orjson.loads(content)
        except ValueError as error:
            raise fail(f"{path} is neither JSON nor an HL7 message") from error
        _add(parsed if isinstance(parsed, list) else [parsed], station, as_json)
        return
    with one_line_errors():
        orders = hl7.orders(content)
    withdrawn = [order.attributes for order in orders if order.withdrawn]
    if withdrawn:
        with open_archive("cli") as (_, archive):
            count = sum(worklist.Worklist(archive).withdraw(order) for order in withdrawn)
            archive.index.note("worklist_changed", by="cli", added=0, removed=count)
        if not as_json:
            out.print(f"{count} taken off the worklist", highlight=False)
    wanted = [order.attributes for order in orders if not order.withdrawn]
    if wanted:
        _add(wanted, station, as_json)


@app.command("list")
def list_items(as_json: Json = False) -> None:
    """List what is scheduled, by day and time."""
    from pacs.workflow import worklist

    with open_archive("cli") as (_, archive):
        rows = [worklist.summary(item) for item in worklist.Worklist(archive).items()]
        if rows:
            archive.index.note("worklist_shown", by="cli", count=len(rows))
    show(rows, columns=COLUMNS, as_json=as_json, empty="Nothing is scheduled. Add an item with `pacs worklist add`.")


@app.command()
def remove(item: Annotated[str, typer.Argument(help="The item, as `pacs worklist list` names it.")]) -> None:
    """Take an item off the worklist."""
    from pacs.workflow import worklist

    with open_archive("cli") as (_, archive):
        worklist.Worklist(archive).remove(item)
        archive.index.note("worklist_changed", by="cli", added=0, removed=1)
    out.print(f"{item} is off the worklist", highlight=False)


@app.command()
def performed(as_json: Json = False) -> None:
    """List performed procedure steps that modalities have reported, newest first, without identities."""
    with open_archive("cli") as (_, archive):
        rows = [
            {
                "ae_title": one.ae_title,
                "study_instance_uid": one.study_instance_uid,
                "state": one.state,
                "begun": _when(one.created_at),
                "ended": _when(one.ended_at),
            }
            for one in archive.index.performed.list()
        ]
    columns = {"ae_title": "Modality", "study_instance_uid": "Study", "state": "State", "begun": "Begun", "ended": "Ended"}
    show(rows, columns=columns, as_json=as_json, empty="No modality has reported what it performs.")


def _when(at: float | None) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds") if at else ""


def _add(given: list[Any], station: str, as_json: bool) -> None:
    from pacs.workflow import worklist

    added: list[str] = []
    with open_archive("cli") as (_, archive):
        try:
            for one in given:
                added += worklist.Worklist(archive).add(one, station=station)
        finally:
            if added:
                archive.index.note("worklist_changed", by="cli", added=len(added), removed=0)
    if as_json:
        emit({"item_id": one} for one in added)
    else:
        out.print(f"{len(added)} on the worklist: {' '.join(added)}", highlight=False)
