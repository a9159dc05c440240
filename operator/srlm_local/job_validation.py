"""What is wrong with a Job, and what may not change in one."""

from __future__ import annotations

from typing import Any

from srlm_contract.schema import FieldError

Object = dict[str, Any]


def validate_job(job: Object) -> list[FieldError]:
    return []


def validate_job_update(new: Object, old: Object) -> list[FieldError]:
    return []


def validate_job_status(new: Object, old: Object) -> list[FieldError]:
    return []
