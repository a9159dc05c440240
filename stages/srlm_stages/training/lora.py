"""Low-rank adapters (Hu et al. 2021)."""

from __future__ import annotations

from typing import Any

from srlm_contract.spec.training import LoraSpec


def lora_config(spec: LoraSpec) -> Any:
    """peft's configuration of adapters."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.target_modules) or "all-linear",
    )
