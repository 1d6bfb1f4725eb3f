"""A sweep's summary.json read back."""

from typing import Any, Final

from b3dist.distributed.sweep.folder import SweepPlan
from b3dist.run_folder import RunFolder
from b3dist.run_summary import Fields, read_summary

_SCORES: Final[Fields] = {"macro_f1": float, "error_ratio": float}
_BY_ACTION: Final[Fields] = {"buy": float, "sell": float, "hold": float}
_STANDING: Final[Fields] = {
    "name": str,
    "macro_f1": float,
    "error_ratio": float,
    "called": _BY_ACTION,
    "true": _BY_ACTION,
    "confusion": [[float]],
}
_VERDICT: Final[Fields] = {
    "reason": str,
    "conclusion?": str,
    "gain": ({"num_assets": int}, None),
    "standings?": [_STANDING],
    "warnings?": [str],
}
_TRIAL: Final[Fields] = {
    "number": int,
    "state": str,
    "params": {"*": float},
    "values": ([float], None),
    "epochs": (int, None),
    "seconds": (float, None),
    "error_ratio": (float, None),
    "error": (str, None),
    "baseline": bool,
    "abandoned": bool,
}
SWEEP: Final[Fields] = {
    "run_id": str,
    "state": str,
    "totals": {"trials": int, "complete": int, "pruned": int, "failed": int, "wall_seconds": float},
    "best": ({"params": {"*": float}, "value": (float, [float], None), "trial": (int, None), "adopted": bool}, None),
    "judged?": bool,
    "stopped?": (str, None),
    "verdict": (_VERDICT, None),
    "asset_verdict": ({"reason": str}, None),
    "cohort?": ({"support": {"*": int}, "constant_action": str, "constant_macro_f1": float}, None),
    "warnings?": [str],
    "finalists": [{"number": int, "seeds": [_SCORES], "mean": (_SCORES, None), "error": (str, None)}],
    "choices": [{"ticker": str, "number": int, "share": float, "noise": float}],
    "pareto_front": [int],
    "trials": [_TRIAL],
    "engine?": str,
}
"""What is read of a sweep's summary.json."""


def read_sweep_summary(run: RunFolder, plan: SweepPlan) -> dict[str, Any] | None:
    """A sweep's summary.json, or None where there is none, as no driver has come to its end.

    Raises:
        RunError: it is damaged.
    """
    return read_summary(run.path, run.settings.kind, SWEEP, check=lambda content: _agree(content, plan))


def _agree(content: dict[str, Any], plan: SweepPlan) -> None:
    """Raise a ValueError where one part of the file contradicts another, or the sweep's plan."""
    best, verdict, finished = content["best"], content["verdict"], content["state"] == "finished"
    if (best is None) != (verdict is None) or (finished and best is None):
        raise ValueError(f"best is {_given(best)} and verdict {_given(verdict)} of a sweep that is {content['state']}")
    if best is not None and best["params"].keys() != set(plan.space.names):
        raise ValueError(f"best.params must name {', '.join(plan.space.names)}, got {', '.join(best['params'])}")
    if best is not None and best["adopted"] and best["trial"] is None:
        raise ValueError("best.adopted is true and best.trial null")
    standings = (verdict or {}).get("standings", [])
    if len(standings) == 1 or any(len(one["confusion"]) != len(_BY_ACTION) for one in standings):
        raise ValueError("verdict.standings must hold the winner, trial 0 and three rows of confusion for each")
    if content["choices"] and content["asset_verdict"] is None:
        raise ValueError("choices are there and asset_verdict null")
    values = {trial["number"]: trial["values"] for trial in content["trials"]}
    for number, scores in values.items():
        if scores is not None and len(scores) != (2 if plan.two_objectives else 1):
            raise ValueError(f"trial {number} has {len(scores)} values")
    if content["pareto_front"] and not plan.two_objectives:
        raise ValueError("pareto_front names trials of a sweep with one objective")
    for number in content["pareto_front"]:
        if values.get(number) is None:
            raise ValueError(f"pareto_front names trial {number}, which has no values")


def _given(value: object) -> str:
    return "null" if value is None else "given"
