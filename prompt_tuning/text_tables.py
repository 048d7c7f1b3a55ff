"""Tables as the commands print them."""

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], sides: str = "l") -> str:
    """Lines of cells as text, two spaces between columns.

    Args:
      lines: all with as many cells; the first is the head.
      sides: "l" or "r" for each column, to which side its cells stand; the last letter is that of all further columns too.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    justify = [str.rjust if sides[min(place, len(sides) - 1)] == "r" else str.ljust for place in range(len(widths))]
    rows = ([side(cell, width) for side, cell, width in zip(justify, line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(row).rstrip() for row in rows)
