"""Where the parts of gpu_check.py run, how large their models are, and what the machine can do."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class Size:
    """A Llama of random weights, and how much is asked of it."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    batches: tuple[int, ...]
    matrix: int
    """Side of the matrices that show the peak rate."""
    rows: int
    """Rows of a training step."""
    live: tuple[str, ...]
    """Settings of the live training. 120 of its 300 steps suffice, and fit in the time."""


GPU = Size(22, 2048, 16, 49_152, (1, 16, 64, 256), 8192, 256, ("train.steps=120", "eval.every=40"))
"""1.2 billion parameters."""
# so short that nothing is learned: only that it runs
_SHORT = (
    *("train.steps=2", "warm_start.problems=64", "warm_start.epochs=1"),
    *("eval.every=2", "eval.problems=20"),
)
CPU = Size(2, 64, 4, 2000, (1, 8), 512, 16, _SHORT)


@dataclass(frozen=True, slots=True)
class Check:
    """Where a part runs."""

    device: str
    size: Size
    folder: Path

    @property
    def is_gpu(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def dtype(self) -> torch.dtype:
        """The number format of rates: what a CPU does in bfloat16 says little."""
        return torch.bfloat16 if self.is_gpu else torch.float32

    def wait(self) -> None:
        """Wait for the device: its work is asynchronous."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], rounds: int = 10) -> float:
        """Return the mean of some rounds of the work, after two to warm up."""
        for _ in range(2):
            work()
        self.wait()
        started = time.perf_counter()
        for _ in range(rounds):
            work()
        self.wait()
        return (time.perf_counter() - started) / rounds

    def peak_flops(self, dtype: torch.dtype) -> float:
        """Return the floating-point operations a second of a large matrix product."""
        side = self.size.matrix
        a, b = (torch.randn(side, side, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * side**3 / self.seconds(lambda: a @ b)

    def peak_bytes(self) -> float:
        """Return the bytes a second of a large copy, read and written."""
        some = torch.randn(self.size.matrix**2, device=self.device)
        other = torch.empty_like(some)
        return 2 * some.nbytes / self.seconds(lambda: other.copy_(some))

    def model(self, dtype: torch.dtype):
        """Return a new Llama, its weights drawn on the device."""
        from transformers import LlamaConfig, LlamaForCausalLM

        size = self.size
        config = LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.width,
            # a multiple of 128: matrix units are slow with odd sides
            intermediate_size=-(-8 * size.width // 3 // 128) * 128,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
        torch.manual_seed(0)
        with torch.device(self.device):
            return LlamaForCausalLM(config).to(dtype).eval()

    def small_policy(self, device: str, dtype: str = "float32"):
        """Return the scale model with random weights, in memory on a device."""
        from eapo_agents.policy.fresh import make_model
        from eapo_agents.policy.models import load_policy

        folder = self.folder / "small"
        if not folder.exists():
            texts = [f"{a} + {b} = {a + b}. Answer: {a * b}" for a in range(40) for b in range(40)]
            make_model(folder, texts, layers=3, width=96, heads=4, vocabulary=512, seed=0)
        return load_policy(str(folder), device=device, dtype=dtype)
