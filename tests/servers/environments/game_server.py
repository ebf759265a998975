"""A TextArena game behind an OpenEnv server; run by the interpreter that has both.

python game_server.py PORT GAME SESSIONS
"""

import random
import sys

import textarena
import uvicorn
from openenv.core.env_server.http_server import create_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

port, name, sessions = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])


class Move(Action):
    message: str


class Seen(Observation):
    text: str = ""


class Game(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        self.moves = 0

    def reset(self, seed=None, episode_id=None, **more):
        random.seed(seed)
        self.game, self.moves = textarena.make(env_id=name), 0
        self.game.reset(num_players=1, seed=seed)
        return Seen(text=str(self.game.get_observation()[1]), reward=0.0)

    def step(self, action, timeout_s=None, **more):
        self.moves += 1
        done, _ = self.game.step(action.message)
        reward = float((self.game.state.rewards or {}).get(0, 0.0)) if done else 0.0
        text = self.game.state.game_info[0] if done else self.game.get_observation()[1]
        return Seen(text=str(text), done=bool(done), reward=reward)

    @property
    def state(self):
        return State(step_count=self.moves)


app = create_app(Game, Move, Seen, env_name="game", max_concurrent_envs=sessions)
uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
