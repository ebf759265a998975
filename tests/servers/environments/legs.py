"""verifiers' own environment around reasoning-gym, as a user's module names it."""

from verifiers.envs.integrations.reasoninggym_env import ReasoningGymEnv


def load_environment(family="leg_counting", train=12, held_out=4):
    return ReasoningGymEnv(gym=family, num_train_examples=train, num_eval_examples=held_out)
