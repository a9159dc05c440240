"""How operator/README.md finds the files of a model: `manifest.json` lists them; they lie at `parts/PART/PATH`."""

from __future__ import annotations

import json
from pathlib import Path

from docs.pages import ROOT
from srlm_contract.artifacts import layout
from srlm_contract.artifacts.artifacts import ArtifactStore
from srlm_contract.artifacts.commits import Produced
from srlm_contract.artifacts.manifest import Producer
from srlm_contract.tasks import RunIdentity
from support.memory_store import MemoryStore

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"# M2"}


def test_the_files_of_a_model(tmp_path: Path) -> None:
    folder, store = tmp_path / "model", MemoryStore()
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    producer = Producer(run=RunIdentity(namespace="default", name="run", uid="1"), pod_uid="pod-1")
    artifacts = ArtifactStore(store, producer=producer, scratch=tmp_path)
    artifacts.commit("train", "0123456789", Produced(folder, model=True))

    uri = layout.artifact_prefix("train", "0123456789")
    listed = json.loads(store.get(f"{uri}manifest.json").data)["files"]
    found = {file["path"]: store.get(f"{uri}parts/{file['part']}/{file['path']}").data for file in listed}
    assert found == FILES

    text = (ROOT / "operator" / "README.md").read_text(encoding="utf-8")
    assert r"""jq -r '.files[] | "\(.part) \(.path)"'""" in text
    assert 'aws s3 cp "$uri/parts/$part/$path"' in text
