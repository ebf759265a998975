"""Many long prompts in the embedded engine on a CPU: in passes of `PREFILL_TOKENS`, as it feeds
them, and all in one pass.

Usage: python benchmarks/prefill.py [PROMPTS]
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from types import SimpleNamespace

import torch

from eapo_agents.policy import transformers_engine
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.models import load_policy
from eapo_agents.types import Sampling

ROUNDS = 5
LENGTHS = (150, 300)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    model = load_policy("SmolLM2-135M-Instruct").model.eval()
    engine = transformers_engine.TransformersEngine(model, name="small", stop_ids=[0], base="b")
    draw = random.Random(0)
    requests = [
        SimpleNamespace(
            prompt_ids=tuple(draw.randrange(5, 40_000) for _ in range(draw.randint(*LENGTHS))),
            sampling=Sampling(max_new_tokens=5),
            key=RolloutKey(seed=0, problem_id=str(index), step=0, rollout=0, turn=0),
        )
        for index in range(number)
    ]
    tokens = sum(len(request.prompt_ids) for request in requests)
    in_passes = transformers_engine.PREFILL_TOKENS["cpu"]
    seconds: dict[str, list[float]] = {"in passes": [], "at once": []}
    with torch.inference_mode():
        for turn in range(ROUNDS + 1):
            for name, limit in (("in passes", in_passes), ("at once", 10**9)):
                transformers_engine.PREFILL_TOKENS["cpu"] = limit
                begun = time.monotonic()
                engine._prefill(requests)  # type: ignore[arg-type]
                if turn:  # the first is not counted
                    seconds[name].append(time.monotonic() - begun)
    for name, found in seconds.items():
        median = statistics.median(found)
        print(
            f"{number} prompts, {tokens} tokens, {name}: {median:.1f} s (least {min(found):.1f}, "
            f"most {max(found):.1f}), {tokens / median:,.0f} tokens a second"
        )
    ratios = [a / b for a, b in zip(seconds["in passes"], seconds["at once"], strict=True)]
    median, least, most = statistics.median(ratios), min(ratios), max(ratios)
    print(f"in passes to at once: {median:.2f} ({least:.2f} to {most:.2f})")


if __name__ == "__main__":
    main()
