"""`srlm model NAME [M3] -o DIR`: fetches a finished model."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from srlm_cli.models.fetch import fetch_model, finished
from srlm_cli.runs import add_endpoint_argument, add_run_arguments, cluster_of, read


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `srlm model`."""
    parser.description = (
        "Fetches a finished model of a run: safetensors with configuration, tokenizer and model card, every byte "
        "verified. Again with the same folder, it fetches what is missing. S3 is read with your own AWS credentials "
        "(environment or profile), else with the Secret that the run names."
    )
    add_run_arguments(parser)
    parser.add_argument("model", nargs="?", help="such as M2 (default: the newest)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: NAME-M3, by run and model")
    add_endpoint_argument(parser)
    parser.set_defaults(func=lambda args: asyncio.run(_run(args)))


async def _run(args: argparse.Namespace) -> int:
    async with cluster_of(args) as (client, namespace):
        found = await read(client, namespace, args.name)
        model = finished(found, args.model)
        folder = args.output or Path(f"{args.name}-{model.name}")
        await fetch_model(client, found, model, folder, args.endpoint_url)
    print(folder)
    path = folder if folder.is_absolute() else f"./{folder}"  # a path alone is taken for a name of the hub
    print(f"{model.name} is whole: `vllm serve {path}` serves it", file=sys.stderr)
    return 0
