"""The games that ALE ships: names, actions, screen sizes and published scores.

A game is named by its snake_case ROM name, `ms_pacman`. Every other spelling is normalised here.
"""

import functools
import re

from ale_py import ALEInterface, LoggerMode, roms

from ncp_agents import registry

# ALE has no single-player mode for these and ends the process when asked for one.
_TWO_PLAYERS_ONLY = frozenset({"combat", "joust", "maze_craze", "warlords"})

# ALE/Pong-v5, Pong-v4, PongNoFrameskip-v4, PongDeterministic-v4
_ENVIRONMENT_ID = re.compile(
    r"(?:ALE/)?(?P<game>.+?)(?:NoFrameskip|Deterministic)?(?:-v\d+)?", re.ASCII
)


@functools.cache
def games() -> tuple[str, ...]:
    """Return the ROM names of all single-player games, sorted."""
    return tuple(sorted(set(roms.get_all_rom_ids()) - _TWO_PLAYERS_ONLY))


def normalise_game(name: str) -> str:
    """Return the ROM name of a game given in any usual spelling.

    `Pong`, `pong`, `ALE/Pong-v5`, `PongNoFrameskip-v4` → `pong`; `MsPacman`, `ms-pacman` →
    `ms_pacman`.

    Raises:
        UnknownNameError: no single-player game has that name.
    """
    match = _ENVIRONMENT_ID.fullmatch(name.strip())
    stem = match["game"] if match else name
    game = _games_without_separators().get(_without_separators(stem))
    if game is None:
        snake_case = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower()
        return registry.get("game", snake_case, games())  # raises, with the nearest name
    return game


@functools.cache
def action_meanings(game: str, full: bool = False) -> tuple[str, ...]:
    """Return the names of a game's actions, by action index: `("NOOP", "FIRE", ...)`.

    Args:
        game: any spelling of its name.
        full: all 18 actions instead of those that the game uses.
    """
    emulator = _emulator(game)
    actions = emulator.getLegalActionSet() if full else emulator.getMinimalActionSet()
    return tuple(action.name for action in actions)


@functools.cache
def screen_size(game: str) -> tuple[int, int]:
    """Return height and width of a game's screen in pixels: (210, 160), up to (250, 160)."""
    height, width = _emulator(game).getScreenDims()
    return height, width


def human_normalised(game: str, score: float) -> float | None:
    """Return (score - random) / (human - random), see `RANDOM_AND_HUMAN_SCORES`.

    0.0 is the score of uniformly random actions, 1.0 that of a professional games tester. None
    where no human score is published.
    """
    scores = RANDOM_AND_HUMAN_SCORES.get(normalise_game(game))
    if scores is None:
        return None
    random, human = scores
    return (score - random) / (human - random)


def _emulator(game: str) -> ALEInterface:
    ALEInterface.setLoggerMode(LoggerMode.Error)  # without it, a banner on every load
    emulator = ALEInterface()
    emulator.loadROM(str(roms.get_rom_path(normalise_game(game))))
    return emulator


def _without_separators(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


@functools.cache
def _games_without_separators() -> dict[str, str]:
    return {_without_separators(game): game for game in games()}


RANDOM_AND_HUMAN_SCORES: dict[str, tuple[float, float]] = {
    "alien": (227.8, 7127.7),
    "amidar": (5.8, 1719.5),
    "assault": (222.4, 742.0),
    "asterix": (210.0, 8503.3),
    "asteroids": (719.1, 47388.7),
    "atlantis": (12850.0, 29028.1),
    "bank_heist": (14.2, 753.1),
    "battle_zone": (2360.0, 37187.5),
    "beam_rider": (363.9, 16926.5),
    "berzerk": (123.7, 2630.4),
    "bowling": (23.1, 160.7),
    "boxing": (0.1, 12.1),
    "breakout": (1.7, 30.5),
    "centipede": (2090.9, 12017.0),
    "chopper_command": (811.0, 7387.8),
    "crazy_climber": (10780.5, 35829.4),
    "defender": (2874.5, 18688.9),
    "demon_attack": (152.1, 1971.0),
    "double_dunk": (-18.6, -16.4),
    "enduro": (0.0, 860.5),
    "fishing_derby": (-91.7, -38.7),
    "freeway": (0.0, 29.6),
    "frostbite": (65.2, 4334.7),
    "gopher": (257.6, 2412.5),
    "gravitar": (173.0, 3351.4),
    "hero": (1027.0, 30826.4),
    "ice_hockey": (-11.2, 0.9),
    "jamesbond": (29.0, 302.8),
    "kangaroo": (52.0, 3035.0),
    "krull": (1598.0, 2665.5),
    "kung_fu_master": (258.5, 22736.3),
    "montezuma_revenge": (0.0, 4753.3),
    "ms_pacman": (307.3, 6951.6),
    "name_this_game": (2292.3, 8049.0),
    "phoenix": (761.4, 7242.6),
    "pitfall": (-229.4, 6463.7),
    "pong": (-20.7, 14.6),
    "private_eye": (24.9, 69571.3),
    "qbert": (163.9, 13455.0),
    "riverraid": (1338.5, 17118.0),
    "road_runner": (11.5, 7845.0),
    "robotank": (2.2, 11.9),
    "seaquest": (68.4, 42054.7),
    "skiing": (-17098.1, -4336.9),
    "solaris": (1236.3, 12326.7),
    "space_invaders": (148.0, 1668.7),
    "star_gunner": (664.0, 10250.0),
    "surround": (-10.0, 6.5),
    "tennis": (-23.8, -8.3),
    "time_pilot": (3568.0, 5229.2),
    "tutankham": (11.4, 167.6),
    "up_n_down": (533.4, 11693.2),
    "venture": (0.0, 1187.5),
    "video_pinball": (16256.9, 17667.9),
    "wizard_of_wor": (563.5, 4756.5),
    "yars_revenge": (3092.9, 54576.9),
    "zaxxon": (32.5, 9173.3),
}
"""Mean undiscounted score of (random actions, a professional games tester), for 57 games.

After up to 30 no-ops and without sticky actions, so they compare best with protocol v4.

Source: `HUMAN_SCORES_SOURCE`, whose appendix extends Mnih et al. 2015 (Nature 518, 529-533); the
same numbers are in Badia et al. 2020, "Agent57", arXiv:2003.13350.
"""

HUMAN_SCORES_SOURCE = (
    "Wang et al. 2016, Dueling Network Architectures for Deep Reinforcement Learning, "
    "arXiv:1511.06581"
)

RECURRENT_PPO_SCORES: dict[str, tuple[float, float]] = {
    "beam_rider": (1592.0, 373.0),
    "breakout": (139.0, 50.8),
    "pong": (19.81, 0.62),
}
"""Mean score and standard deviation over 3 seeds of PPO with an LSTM that reads one frame, after
10M steps of protocol v4: the better of CleanRL's `ppo_atari_lstm` and openai/baselines' `ppo2`.

Source: CleanRL's documentation of PPO, docs.cleanrl.dev/rl-algorithms/ppo, which reports both.
"""
