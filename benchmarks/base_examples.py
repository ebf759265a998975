"""What the base model scores without experts, by the examples that its prompt shows; a JSON line
for each, and about three minutes."""

import json
import tempfile
from pathlib import Path

from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.evaluation import score_policy
from eapo_agents.runs.evaluation_plan import task_part
from eapo_agents.store import TraceStore
from graphs.agent import load_agent

RECIPE = "cpu-smol"


def main() -> None:
    recipe = load_recipe(RECIPE)
    agent = load_agent(recipe)
    worked = [(example.question, example.answer) for example in recipe.eval.base_examples]
    bare = [(question, answer[answer.index("Answer:") :]) for question, answer in worked]
    shown = {"none": [], "1 worked": worked[:1], "3 worked": worked}
    shown |= {"1, the number only": bare[:1], "3, the number only": bare}
    with (
        tempfile.TemporaryDirectory() as folder,
        TraceStore.open(Path(folder) / "traces.db", create=True) as store,
    ):
        for name, examples in shown.items():
            scores = score_policy(agent, task_part(recipe, examples=examples), store, name)
            facts = {condition: [s.score, s.formatted] for condition, s in scores.items()}
            print(json.dumps({"benchmark": "base_examples", "shown": name, **facts}), flush=True)


if __name__ == "__main__":
    main()
