"""`srlm push NAME [M3] --to hf://owner/name`: uploads a finished model to the Hugging Face hub."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from srlm_cli.models.fetch import add_cache_argument, cached, chosen
from srlm_cli.runs import add_endpoint_argument, add_run_arguments
from srlm_operator.errors import ConfigurationError

_SCHEME = "hf://"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm push`."""
    parser.description = (
        "Fetches a finished model of a run, verified, and uploads it with its model card to a repository of the "
        "Hugging Face hub, which is made private when there is none. The token is HF_TOKEN or that of `hf auth login`; "
        "HF_ENDPOINT names another hub."
    )
    add_run_arguments(parser)
    parser.add_argument("model", nargs="?", help="such as M2 (default: the newest)")
    parser.add_argument(
        "--to", required=True, metavar="hf://OWNER/NAME[@BRANCH]", help="repository, and a branch of it"
    )
    parser.add_argument("--public", action="store_true", help="make a new repository public")
    add_cache_argument(parser)
    add_endpoint_argument(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Returns the exit status; raises OperatorError. The hub is asked first: fetching may take an hour."""
    repository, branch = target(args.to)
    found, [model] = asyncio.run(chosen(args, [args.model]))
    with refusals(repository):
        prepare(repository, branch, private=not args.public)
    with cached(args, found, model) as folder, refusals(repository):
        words = f"{model.name} of run {found.namespace}/{found.name}, {model.content_digest}"
        upload(folder, repository, branch, words)
    at = f" on branch {branch}" if branch else ""
    print(f"{args.to}: {model.name}{at}", file=sys.stderr)
    return 0


def target(uri: str) -> tuple[str, str]:
    """(owner/name, branch or nothing) of `hf://owner/name[@branch]`. Raises ConfigurationError."""
    repository, _, branch = uri.removeprefix(_SCHEME).partition("@")
    if not uri.startswith(_SCHEME) or repository.count("/") != 1 or not all(repository.split("/")):
        raise ConfigurationError(f"--to {uri} names no repository of a hub: write hf://OWNER/NAME")
    return repository, branch


def prepare(repository: str, branch: str, *, private: bool, hub: str | None = None, token: str | None = None) -> None:
    """Makes repository and branch where there is none. hub, token: by default those of the environment."""
    api = _hub(hub, token)
    api.create_repo(repository, private=private, exist_ok=True)
    if branch:
        api.create_branch(repository, branch=branch, exist_ok=True)


def upload(
    folder: Path, repository: str, branch: str, words: str, *, hub: str | None = None, token: str | None = None
) -> None:
    """One commit with the folder's files. branch: empty for the default one. words: the commit's title."""
    _hub(hub, token).upload_folder(
        repo_id=repository, folder_path=folder, revision=branch or None, commit_message=words
    )


def _hub(endpoint: str | None, token: str | None) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token, library_name="self-rewarding-operator")


@contextmanager
def refusals(repository: str) -> Iterator[None]:
    """Raises ConfigurationError with what the hub says, never with the token."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise ConfigurationError("the hub asks for a token: set HF_TOKEN or run `hf auth login`") from None
    except HfHubHTTPError as problem:
        status = problem.response.status_code
        advice = "; set HF_TOKEN to one that may write there" if status in (401, 403) else ""
        said = problem.server_message or str(problem)
        raise ConfigurationError(f"hf://{repository}: the hub refuses ({status}): {said}{advice}") from None
    except (HTTPError, OSError, ValueError) as problem:
        raise ConfigurationError(f"hf://{repository}: {problem}") from None
