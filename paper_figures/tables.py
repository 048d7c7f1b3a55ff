"""Tables that a paper's page shows beside its figures."""

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a caption; all have the same columns."""

    caption: str
    rows: Sequence[Mapping[str, str]]

    @property
    def columns(self) -> list[str]:
        """In their order."""
        return list(self.rows[0])

    def markdown(self) -> str:
        """As Markdown: the caption, then the table."""
        lines = [self.columns, ["---"] * len(self.columns), *([row[name] for name in self.columns] for row in self.rows)]
        return "\n".join([self.caption, "", *("| " + " | ".join(cells) + " |" for cells in lines)])
