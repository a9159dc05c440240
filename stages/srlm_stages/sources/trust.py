"""The certificate authority that a run names counts for every HTTPS client of the pod: hub, judge, proxy.

Object store clients are given the bundle itself. All others read it, beside the public authorities, from the file that
`SSL_CERT_FILE` and `REQUESTS_CA_BUNDLE` name.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def trust_bundle(environ: MutableMapping[str, str]) -> None:
    """Write the joint file and name it in `environ`; variables that are set already stay."""
    bundle = environ.get("SRLM_CA_BUNDLE_FILE")
    missing = [name for name in VARIABLES if not environ.get(name)]
    if not bundle or not Path(bundle).is_file() or not missing:
        return
    folder = Path(environ.get("SRLM_WORK_DIR") or tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    joint = folder / "ca-bundle.pem"
    public = _public_authorities()
    joint.write_bytes((public.read_bytes() if public else b"") + b"\n" + Path(bundle).read_bytes())
    environ.update(dict.fromkeys(missing, str(joint)))


def _public_authorities() -> Path | None:
    try:
        import certifi
    except ImportError:
        found = ssl.get_default_verify_paths().cafile
        return Path(found) if found else None
    return Path(certifi.where())
