"""A large file goes up and down in bounded memory, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SIZE = 256 * 2**20

PROGRAM = """
import resource, sys
from pathlib import Path
from srlm_contract.spec.storage import Place
from srlm_contract.artifacts.s3 import S3Store
from srlm_contract.artifacts.s3_transfer import TransferSettings

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

url, folder = sys.argv[1], Path(sys.argv[2])
settings = TransferSettings(part_bytes=5 * 2**20, workers=4)
store = S3Store.open(Place(uri="s3://real/memory", endpoint_url=url), transfer=settings)
store.put("warm", b"up")
before = peak()
sent = store.upload_file(folder / "sparse", "sparse")
got = store.download_file("sparse", folder / "got")
assert sent == got, (sent, got)
print(peak() - before)
"""


def test_memory_is_bounded(seaweed: str, tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(SIZE)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, seaweed, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 4 + 2 buffers of 5 MiB, and what the HTTP library keeps of its own.
    assert int(done.stdout) < 80 * 2**20
    assert (tmp_path / "got").stat().st_size == SIZE
