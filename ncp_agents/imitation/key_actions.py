"""From held keys to a game's actions."""

from __future__ import annotations

from collections.abc import Sequence

MOVES = ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")  # the parts of the names of ALE's actions
KEYS = {
    **{"up": "UP", "down": "DOWN", "left": "LEFT", "right": "RIGHT", "space": "FIRE"},
    **{"w": "UP", "s": "DOWN", "a": "LEFT", "d": "RIGHT"},
}
"""Names of keys → moves."""


def moves_of(action: str) -> frozenset[str]:
    """Return the moves of an action: UP, RIGHT and FIRE of "UPRIGHTFIRE", none of "NOOP"."""
    return frozenset(move for move in MOVES if move in action)


def nearest_action(actions: Sequence[str], moves: Sequence[str]) -> int:
    """Return the index of the action with the fewest moves not wanted, then the most wanted ones.

    Of equal ones it is the action with the latest moves. In a game that moves along one axis only,
    as Pong does, the other axis' moves stand for its own: UP for RIGHT and DOWN for LEFT. (In Pong,
    RIGHT is up.)

    Args:
        actions: the game's, by index, such as ("NOOP", "FIRE", "RIGHT", "LEFT").
        moves: wanted, in the order of their key presses.
    """
    known = frozenset().union(*map(moves_of, actions))
    for one, other in (("UP", "RIGHT"), ("DOWN", "LEFT")):
        if not known & {"UP", "DOWN"}:
            moves = [other if move == one else move for move in moves]
        elif not known & {"LEFT", "RIGHT"}:
            moves = [one if move == other else move for move in moves]
    age = {move: order for order, move in enumerate(moves)}

    def score(index: int) -> tuple[int, int, int]:
        made = moves_of(actions[index])
        wanted_moves = made & age.keys()
        return -len(made - wanted_moves), len(wanted_moves), sum(age[move] for move in wanted_moves)

    return max(range(len(actions)), key=score)
