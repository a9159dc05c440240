"""The shipped health checks of Argo CD and Flux, evaluated as those tools do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cel_expr_python import cel
from lupa.lua51 import LuaRuntime, lua_type

GITOPS = Path(__file__).parents[2] / "crds" / "samples" / "gitops"
LUA = (GITOPS / "argocd-health.lua").read_text(encoding="utf-8")


def argocd_health(obj: Mapping[str, Any]) -> tuple[str, str]:
    """Status and message that the Lua script gives, run as Argo CD runs it: Lua 5.1, the object in `obj`."""
    lua = LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    lua.globals()["obj"] = _table(lua, obj)
    found = lua.execute(LUA)
    assert lua_type(found) == "table"
    return found["status"], found["message"]


def _table(lua: Any, value: Any) -> Any:
    """JSON data as Lua tables; null as nil."""
    if isinstance(value, Mapping):
        return lua.table_from({key: _table(lua, item) for key, item in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, item) for item in value])
    return value


def flux_checks(name: str) -> dict[str, str]:
    """The expressions for runs of one of the shipped Kustomizations."""
    documents = yaml.safe_load_all((GITOPS / "flux.yaml").read_text(encoding="utf-8"))
    (found,) = [d for d in documents if d["metadata"]["name"] == name]
    (checks,) = found["spec"]["healthCheckExprs"]
    return {key: value for key, value in checks.items() if key not in ("apiVersion", "kind")}


def flux_health(checks: Mapping[str, str], obj: Mapping[str, Any]) -> str:
    """Status as Flux decides it: an unobserved generation, then inProgress, failed and current, else InProgress.

    Raises ValueError where an expression fails, as when a field is missing: Flux then waits.
    """
    status, meta = obj.get("status") or {}, obj["metadata"]
    if "observedGeneration" in status and status["observedGeneration"] != meta.get("generation"):
        return "InProgress"
    env = cel.NewEnv(variables=dict.fromkeys(("metadata", "spec", "status"), cel.Type.DYN))
    for field, answer in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        if field in checks:
            data = {name: obj[name] for name in ("metadata", "spec", "status") if name in obj}
            result = env.compile(checks[field]).eval(data=data).plain_value()
            if not isinstance(result, bool):
                raise ValueError(str(result))
            if result:
                return answer
    return "InProgress"
