"""What de-identification costs: CPU time of a header beyond that of copying it.

Run: `PYTHONPATH=.:tests .venv/bin/python tests/benchmarks/bench_deid.py [FOLDER...]`.

Prints one line a kind of object: elements, milliseconds of CPU to read and copy the data set (walk, join), milliseconds to
de-identify it and join the result, and the difference. A series is sent slice after slice, as it is in life: the first slice
pays for the deep work, which is shown by itself. With a folder as argument real files are measured the same way.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import making
from pydicom.dataset import Dataset

from pacs.deid.profile import Deidentifier
from pacs.dicom import elements, part10
from pacs.model.errors import ArchiveError
from pacs.model.instance import Origin, Received

BUDGET_MS = 0.5
SLICES, ROUNDS = 24, 12


def typical(instance: int) -> Dataset:
    """Return a CT slice with a header of the size that scanners send: about 75 elements, some nested, some private."""
    ds = making.dataset(
        instance=instance,
        SoftwareVersions="VB20A", DeviceSerialNumber="SN-99812", ManufacturerModelName="Phantom 64", ProtocolName="Chest",
        ConvolutionKernel="B30f", FilterType="FLAT", ScanOptions="HELIX", DataCollectionDiameter="500", ExposureTime="500",
        XRayTubeCurrent="120", Exposure="60", GeneratorPower="40", FocalSpots="1.2", GantryDetectorTilt="0", TableHeight="150",
        RotationDirection="CW", DistanceSourceToDetector="1040", DistanceSourceToPatient="570", ReconstructionDiameter="360",
        WindowCenter="40", WindowWidth="400", WindowCenterWidthExplanation="LUNG", SliceLocation=str(5.0 * instance),
        AcquisitionTime=f"10{instance:02d}02.5", ContentTime=f"10{instance:02d}03.5", SeriesTime="101501",
        TimezoneOffsetFromUTC="+0100", OperatorsName="Featherstonehaugh^Ada", PerformedProcedureStepDescription="CT chest",
        AcquisitionDateTime=f"20240229101{instance % 10}02",
    )  # fmt: skip
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "24627-2", "LN", "CT chest"
    ds.ProcedureCodeSequence = [code]
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = ds.SOPClassUID, f"{making.STUDY_UID}.7"
    ds.ReferencedImageSequence = [reference]
    block = ds.private_block(0x0019, "SIEMENS CT VA0  COAD", create=True)
    for number in range(8):
        block.add_new(0x90 + number, "DS", "1.5")
    return ds


def private(instance: int) -> Dataset:
    """Return the same with a hundred private elements, as some vendors send."""
    ds = typical(instance)
    for group in (0x0009, 0x0021, 0x0027, 0x0043, 0x0045):
        block = ds.private_block(group, f"VENDOR_{group:04X}", create=True)
        for number in range(20):
            block.add_new(number, ("DS", "LO", "US", "SH")[number % 4], (1.5, "value", 7, "abc")[number % 4])
    return ds


def measure(name: str, received: Sequence[Received]) -> tuple[float, float]:
    """Print one line and return (milliseconds to copy, milliseconds to de-identify), medians of CPU time per object."""
    deidentifier = Deidentifier("research", b"a key for measuring, 32 bytes...")

    def copy(one: Received) -> None:
        b"".join(elements.join(elements.read(one.data_set, one.transfer_syntax_uid)))

    def deidentify(one: Received) -> None:
        b"".join(elements.join(deidentifier.deidentify(one).elements))

    first = timed(deidentify, received[0])
    for one in received:
        deidentify(one)
    copying = statistics.median(timed(copy, one) for _ in range(ROUNDS) for one in received)
    working = statistics.median(timed(deidentify, one) for _ in range(ROUNDS) for one in received)
    count = len(elements.read(received[0].data_set, received[0].transfer_syntax_uid))
    print(
        f"{name:34} {count:4} elements   copy {copying:6.3f} ms   de-identify {working:6.3f} ms   "
        f"cost {working - copying:6.3f} ms   ratio {working / copying:4.1f}   first {first:6.1f} ms"
    )
    return copying, working


def timed(work: Callable[[Received], None], one: Received) -> float:
    """Return the milliseconds of CPU that `work` takes on one object."""
    begun = time.process_time()
    work(one)
    return (time.process_time() - begun) * 1000


def main(arguments: Sequence[str]) -> int:
    """Measure the phantoms, or the series in the folders given."""
    if not arguments:
        copying, working = measure("typical CT header", [making.received(typical(n)) for n in range(1, SLICES + 1)])
        measure("CT header with 100 private elements", [making.received(private(n)) for n in range(1, SLICES + 1)])
        measure(
            "plain phantom, implicit VR",
            [making.received(making.dataset(instance=n), "1.2.840.10008.1.2") for n in range(1, SLICES + 1)],
        )
        print(f"typical header: {working - copying:.3f} ms of CPU beyond copying; the budget is {BUDGET_MS} ms")
        return 0
    for folder in arguments:
        for series in sorted({path.parent for path in Path(folder).rglob("*") if path.is_file()}):
            received = []
            for path in sorted(path for path in series.iterdir() if path.is_file())[:SLICES]:
                try:
                    parts = part10.split(path.read_bytes())
                except ArchiveError:
                    continue
                received.append(Received(bytes(parts.data_set), parts.transfer_syntax_uid, Origin.IMPORT, "bench"))
            try:
                if received:
                    measure(series.name, received)
            except ArchiveError as error:
                print(f"{series.name:34} {type(error).__name__}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
