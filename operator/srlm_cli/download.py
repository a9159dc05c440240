"""A run's storage, for a person: with their own AWS credentials, else with the Secret the run names.

S3 is opened by the module's name: the operator and its image have no boto3, and need none.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from srlm_contract.errors import NotPermitted, StageFailure
from srlm_contract.spec.storage import Storage
from srlm_operator.cluster.client import Client, Resource
from srlm_operator.errors import ApiError, ConfigurationError, NotFound

if TYPE_CHECKING:
    from srlm_contract.artifacts.s3 import S3Store

Credentials = Mapping[str, str]
T = TypeVar("T")
#: Here and not beside the operator's own kinds: the operator reads neither.
SECRETS = Resource("", "v1", "secrets")
CONFIG_MAPS = Resource("", "v1", "configmaps")
#: Where boto3 finds credentials of the person or the machine before it asks an instance's metadata service.
_AMBIENT = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
#: Tries of one request: a person waits.
_ATTEMPTS = 2


async def fetch(client: Client, namespace: str, storage: Storage, key: str) -> bytes:
    """The object `key` of a run's storage. Raises OperatorError with what to do; never with a secret in it."""
    return await use(client, namespace, storage, lambda store: store.get(key).data)


async def use(client: Client, namespace: str, storage: Storage, work: Callable[[S3Store], T]) -> T:
    """What `work` finds in a run's storage, done in a thread. Raises as `fetch`.

    It is begun again with the Secret where the person's own credentials are refused.
    """
    bundle = await _ca_bundle(client, namespace, storage)
    refused = ""
    if has_own_credentials():
        try:
            return await asyncio.to_thread(_with_store, storage, None, bundle, work)
        except NotPermitted as problem:
            refused = f"with your own AWS credentials: {problem}"
        except StageFailure as problem:
            raise _explained(problem, storage) from None
    if storage.credentials_secret_ref is None and refused:
        raise ConfigurationError(f"not permitted {refused}; the run names no Secret to use instead")
    credentials = await _secret(client, namespace, storage, refused)
    try:
        return await asyncio.to_thread(_with_store, storage, credentials, bundle, work)
    except StageFailure as problem:
        raise _explained(problem, storage) from None


@contextmanager
def ends_at_once(said: str) -> Iterator[None]:
    """Ctrl-C ends the process with these last words, though a thread is at work that nobody can interrupt."""
    try:
        yield
    except asyncio.CancelledError:
        print(said, file=sys.stderr, flush=True)
        os._exit(130)


def read_object(storage: Storage, key: str, credentials: Credentials | None = None) -> bytes:
    """The object `key` below `storage.uri`. Raises as `opened`."""
    with opened(storage, credentials) as store:
        return store.get(key).data


def _with_store(
    storage: Storage, credentials: Credentials | None, ca_bundle: str | None, work: Callable[[S3Store], T]
) -> T:
    with opened(storage, credentials, ca_bundle) as store:
        return work(store)


@contextmanager
def opened(storage: Storage, credentials: Credentials | None = None, ca_bundle: str | None = None) -> Iterator[S3Store]:
    """The store behind `storage.uri`.

    credentials: keys as in the run's Secret; None for those of the environment. ca_bundle: PEM text.
    Raises StageFailure, and ConfigurationError where boto3 is missing.
    """
    try:
        from srlm_contract.artifacts.s3 import S3Store
    except ModuleNotFoundError as missing:
        raise ConfigurationError(
            f"{storage.uri} cannot be read here, because {missing.name} is not installed: `pip install boto3`, or "
            "use another S3 client"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        file = None
        if ca_bundle is not None:
            file = Path(folder) / "ca.pem"
            file.write_text(ca_bundle, encoding="utf-8")
        yield S3Store.open(storage, ca_bundle=file, attempts=_ATTEMPTS, credentials=credentials)


def has_own_credentials() -> bool:
    """Whether the person's environment or profile has AWS credentials."""
    if any(os.environ.get(name) for name in _AMBIENT):
        return True
    # Not Path.expanduser: it fails for a user without a home directory, as in a container.
    return any(os.path.isfile(os.path.expanduser(os.environ.get(name) or usual)) for name, usual in _FILES.items())


async def _secret(client: Client, namespace: str, storage: Storage, refused: str) -> Credentials | None:
    """What the Secret of the run holds; None when it names none (workload identity)."""
    reference = storage.credentials_secret_ref
    if reference is None:
        return None
    data = await _read(client, SECRETS, namespace, reference.name, refused or "set AWS_PROFILE or AWS_ACCESS_KEY_ID")
    found = {key: base64.b64decode(value).decode() for key, value in data.items()}
    missing = [key for key in _KEYS if not found.get(key)]
    if missing:
        raise ConfigurationError(f"Secret {namespace}/{reference.name} has no {' and no '.join(missing)}")
    return found


async def _ca_bundle(client: Client, namespace: str, storage: Storage) -> str | None:
    reference = storage.ca_bundle_ref
    if reference is None or os.environ.get("AWS_CA_BUNDLE"):
        return None
    data = await _read(client, CONFIG_MAPS, namespace, reference.name, "set AWS_CA_BUNDLE")
    if reference.key not in data:
        raise ConfigurationError(f"ConfigMap {namespace}/{reference.name} has no key {reference.key}")
    return str(data[reference.key])


async def _read(client: Client, resource: Resource, namespace: str, name: str, otherwise: str) -> Mapping[str, str]:
    kind = {"secrets": "Secret", "configmaps": "ConfigMap"}[resource.plural]
    try:
        return (await client.get(resource, namespace, name)).get("data") or {}
    except NotFound:
        raise ConfigurationError(f"{kind} {namespace}/{name}, which the run names, does not exist") from None
    except ApiError as problem:
        raise ConfigurationError(f"{kind} {namespace}/{name} cannot be read ({problem}); {otherwise}") from None


def _explained(problem: StageFailure, storage: Storage) -> ConfigurationError:
    text = str(problem)
    if problem.reason == "StorageUnavailable" and storage.endpoint_url:
        text += f". Is {storage.endpoint_url} meant for inside the cluster? Forward its port and pass --endpoint-url"
    return ConfigurationError(text)
