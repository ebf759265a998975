"""A taskset of verifiers.v1, without an end."""

import itertools

import verifiers.v1 as vf


class Sum(vf.TaskData):
    answer: str


class Settings(vf.TasksetConfig):
    add: int = 1


class SumTask(vf.Task[Sum]):
    @vf.reward(weight=1.0)
    async def right(self, trace) -> float:
        return float(trace.last_reply.split()[-1] == self.data.answer)

    @vf.reward(weight=0.2)
    async def brief(self, trace) -> float:
        return float(len(trace.last_reply) < 20)


class Sums(vf.Taskset[SumTask, Settings]):
    INFINITE = True

    def load(self):
        for number in itertools.count():
            question, answer = f"What is {number} + {self.config.add}?", number + self.config.add
            data = Sum(prompt=question, system_prompt="Say a number.", answer=str(answer))
            yield SumTask(data, self.config.task)


__all__ = ["Sums"]
