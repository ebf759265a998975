"""Times a decoding step with packed weights beside the same step without.

    python benchmarks/decoding.py [ROUNDS]

SmolLM2-135M-Instruct in float32 with a LoRA adapter on all layers, 100 tokens of context. One JSON
line for each batch size: milliseconds a step (the least of the rounds, which alternate), and their
ratio.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext

import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from eapo_agents.policy.models import EMBEDDED, load_policy, load_tokenizer
from eapo_agents.policy.packed_weights import PackedWeights

STEPS = 8


def seconds_of(model, config, num_rows: int) -> float:
    """Return the seconds that a decoding step takes."""
    with torch.inference_mode():
        cache = DynamicCache(config=config)
        ids = torch.randint(5, 4000, (num_rows, 100))
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        started = time.perf_counter()
        for _ in range(STEPS):
            model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        return (time.perf_counter() - started) / STEPS


def main() -> None:
    """Print a line for each batch size."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    torch.manual_seed(0)
    tokenizer = load_tokenizer(EMBEDDED)
    base = load_policy(EMBEDDED, dtype="float32", device="cpu", tokenizer=tokenizer).model
    settings = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, settings).eval()
    packed = PackedWeights()
    for num_rows in (1, 4, 32):
        plain_s, packed_s = [], []
        for _ in range(rounds):
            for found, kept in ((plain_s, nullcontext()), (packed_s, packed.applied(model))):
                with kept:
                    found.append(seconds_of(model, base.config, num_rows))
        figures = {
            "rows": num_rows,
            "plain_ms": round(min(plain_s) * 1e3),
            "packed_ms": round(min(packed_s) * 1e3),
            "ratio": round(min(packed_s) / min(plain_s), 2),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
