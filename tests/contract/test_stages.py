"""The table of stages agrees with what types must spell out: names, parameters, pod settings, programs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import get_args

from srlm_contract.spec.pods import InferencePodSpec, StagesSpec
from srlm_contract.stages import INFERENCE, STAGES, StageName
from srlm_contract.tasks import Params


def test_names_rows_parameters_pod_settings_and_programs_are_of_the_same_stages() -> None:
    models = get_args(get_args(Params)[0])

    assert list(STAGES) == list(get_args(StageName)) == list(StagesSpec.model_fields)
    assert {model.model_fields["kind"].default for model in models} == set(STAGES)
    assert [name for name in STAGES if find_spec(f"srlm_stages.{name}") is None] == []


def test_stages_on_the_inference_image_are_those_with_an_engine() -> None:
    engines = [name for name, field in StagesSpec.model_fields.items() if isinstance(field.default, InferencePodSpec)]

    assert engines == list(INFERENCE)
