"""Long lists in messages: the first entries, and the number of the others."""

from collections.abc import Sequence

_SHOWN_LINES = 20


def first_names(names: Sequence[str], most: int = 5) -> str:
    """The first names after each other.

    Example:
        >>> first_names(["a", "b", "c", "d"], most=3)
        'a, b, c and 1 more'
    """
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def first_lines(sentences: Sequence[str]) -> str:
    """The first sentences, each in a line of its own, indented, after a line break."""
    more = [f"… and {len(sentences) - _SHOWN_LINES} more"] if len(sentences) > _SHOWN_LINES else []
    return "".join(f"\n  {line}" for line in [*sentences[:_SHOWN_LINES], *more])
