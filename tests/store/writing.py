"""Run in a process of its own: put records for ever, and name each once it is durable (see test_segments.py).

Arguments: the home, the writer's name, how many bytes a file may have (0: any).
"""

import resource
import sys
from pathlib import Path

import sealing

from pacs.model.errors import OutOfResources
from pacs.store.envelope import Sealer
from pacs.store.keys import FileKeyProvider, KeyRing
from pacs.store.segments import SegmentStore


def main(home: Path, writer: str, largest_file_bytes: int) -> None:
    """Print `container offset size` of every record, flushed after its put returned."""
    if largest_file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file_bytes, largest_file_bytes))
    ring = KeyRing.open(home / "keys" / "study-keys.db", FileKeyProvider.open(home / "keys" / "image.key"))
    sealer = Sealer(ring)
    store = SegmentStore(home / "store", writer=writer, segment_bytes=4 << 20, floor_bytes=0)
    count = 0
    while True:
        size = (count * 7919) % 90_000
        group = [sealing.seal(sealer, sealing.encoded(frames=(bytes([count % 256]) * size,))) for _ in range(1 + count % 3)]
        try:
            locations = store.put(group)
        except OutOfResources:
            print("full", flush=True)
            return
        for location in locations:
            print(location.container, location.offset, location.size_bytes, flush=True)
        count += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
