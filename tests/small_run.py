"""A training small enough for a test: four rollouts of Pong in two environments."""

from pathlib import Path

from ncp_agents.agents.recipe import PPO, Circuit, Environment, PolicyRecipe, Recipe, Schedule
from ncp_agents.training.run_folder import RunFolder
from ncp_agents.training.train import train

ROLLOUT = 32  # steps in both environments together
SMALL_RECIPE = Recipe(
    steps=4 * ROLLOUT,
    environment=Environment(num_envs=2),
    policy=PolicyRecipe(features=16),
    circuit=Circuit(units=12, motor_neurons=3),
    ppo=PPO(n_steps=16, sequence_length=16, batch_size=16, n_epochs=1),
    schedule=Schedule(eval_every=0, checkpoint_every=ROLLOUT),
)


def trained(path: Path) -> RunFolder:
    """A run that is done, trained in this process."""
    run = RunFolder.create(path, SMALL_RECIPE)
    assert train(run).steps == 4 * ROLLOUT
    return run
