"""evalplus's sanitiser, for samples that its leaderboard would clean before it runs them.

Our own reading of replies (`eapo_agents.grading.programs`) is another: it is what the other figures
are made with. Source: `evalplus.sanitize`, which keeps the imports and what the function needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

from evals.benchmark import Loaded, Prediction


def sanitizer() -> str:
    """Return what cleans the samples, for the results."""
    return f"evalplus.sanitize {version('evalplus')}"


def sanitized(
    loaded: Loaded, predictions: Mapping[str, tuple[Prediction, ...]]
) -> dict[str, tuple[Prediction, ...]]:
    """Return the samples of a code benchmark as whole programs that evalplus has cleaned."""
    from evalplus.sanitize import sanitize

    found = {}
    for problem in loaded.problems:
        if problem.id in predictions:
            prompt = str(problem.metadata["prompt"])
            name = str(problem.metadata["entry_point"])
            # as upstream: a bare completion continues the prompt
            texts = [
                p.completion or p.answer or prompt + (p.continuation or "")
                for p in predictions[problem.id]
            ]
            found[problem.id] = tuple(Prediction(answer=sanitize(t, name)) for t in texts)
    return found
