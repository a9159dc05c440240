"""The accounts of the server, as a file. Without moto: who starts the server needs only this."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Account:
    """Somebody who may use the server; `read_only` accounts get AccessDenied for every change."""

    secret_key: str
    read_only: bool = False


def load_accounts(path: Path) -> dict[str, Account]:
    """Accounts by access key from JSON: {"KEY": {"secret_key": ..., "read_only": false}, ...}."""
    return {key: Account(**value) for key, value in json.loads(path.read_text()).items()}


def save_accounts(path: Path, accounts: Mapping[str, Account]) -> None:
    """Writes the file for `load_accounts`, readable by its owner only."""
    path.touch(mode=0o600, exist_ok=True)
    path.write_text(json.dumps({key: asdict(account) for key, account in accounts.items()}))
