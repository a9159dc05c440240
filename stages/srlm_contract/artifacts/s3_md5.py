"""Content-MD5: the one digest of an upload that every S3 server checks, or demands.

botocore replaced it by newer checksums, which older servers do not know; SeaweedFS, rclone and Ceph accept a body
that does not fit them, and refuse one that does not fit its Content-MD5. Some servers take no DeleteObjects without.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any


def content_md5(body: bytes | bytearray | memoryview) -> str:
    """Value of the header field for a request with this body."""
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")


def send_md5_of_deletions(client: Any) -> None:
    """DeleteObjects has no argument for it: every such call of a boto3 client gets it from now on."""
    client.meta.events.register("before-call.s3.DeleteObjects", _instead_of_checksum, unique_id="srlm-content-md5")


def _instead_of_checksum(params: dict[str, Any], **_: object) -> None:
    """params: the request that botocore is about to send; its own checksum (CRC32) is left out."""
    params["headers"]["Content-MD5"] = content_md5(params["body"])
    params["context"].pop("checksum", None)
