"""Environments of verifiers that go wrong, or are of another kind. `how` says which."""

import os
import random
import signal
import time

import verifiers as vf
from datasets import Dataset


def load_environment(how):
    prompt = f"Say {random.random()}." if how == "another" else "Say yes."
    messages = [{"role": "user", "content": prompt}]
    if how == "shots":
        messages = [*messages, {"role": "assistant", "content": "yes"}, *messages]
    rows = Dataset.from_list([{"prompt": messages, "answer": "yes"}])
    print('{"id": 0, "rows": []}')  # must not pass for an answer of ours

    async def scored(completion, answer, **more):
        text = completion[-1]["content"]
        if how == "raises":
            raise RuntimeError("no luck")
        if how == "nan":
            return float("nan")
        if "die" in text:
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in text:
            time.sleep(60)
        if how == "key":
            return float(os.environ.get("A_KEY", "") == "12345678" and "OTHER" not in os.environ)
        return float(answer in text) - 0.5 * ("no" in text)

    def of_group(completions, **more):
        return [0.0 for _ in completions]

    rubric = vf.Rubric(funcs=[of_group if how == "group" else scored], weights=[1.0])
    if how == "tools":
        return vf.ToolEnv(dataset=rows, rubric=rubric, tools=[])
    return vf.SingleTurnEnv(dataset=rows, rubric=rubric)
