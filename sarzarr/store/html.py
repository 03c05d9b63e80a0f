"""HTML of what a notebook shows: a heading, and sections of facts and tables that open and close.

Text of others, as names of files are, is escaped by the template engine. Without a stylesheet it is headings and
tables; colours are those of the page, so that it is read in light and in dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

MOST_ROWS: Final = 20
"""Rows of a table that are shown."""
_TEMPLATE: Final = """
<div class="sarzarr">
<style>
.sarzarr { font-family: sans-serif; font-size: 13px; line-height: 1.5; color: inherit;
  max-width: 100%; overflow-x: auto; }
.sarzarr header { border-bottom: 1px solid currentColor; padding-bottom: 4px; margin-bottom: 4px; }
.sarzarr header span, .sarzarr .more { opacity: 0.7; }
.sarzarr summary { cursor: pointer; font-weight: 600; padding: 2px 0; }
.sarzarr summary span { font-weight: 400; opacity: 0.7; }
.sarzarr table { border-collapse: collapse; margin: 2px 0 6px 18px; font-size: 12px; }
.sarzarr table, .sarzarr th, .sarzarr td { background: none; color: inherit; }
.sarzarr th, .sarzarr td { text-align: left; vertical-align: top; padding: 1px 14px 1px 0; border: 0;
  white-space: pre-wrap; overflow-wrap: break-word; max-width: 44em; }
.sarzarr th { opacity: 0.7; font-weight: 400; white-space: nowrap; }
.sarzarr p.more { margin: 0 0 6px 18px; }
</style>
<header><strong>{{ kind }}</strong> {{ name }} <span>{{ summary }}</span></header>
{%- for section in sections %}
<details{% if section.is_open %} open{% endif %}>
<summary>{{ section.title }} <span>({{ section.count }})</span></summary>
<table>
{%- if section.columns %}
<thead><tr>{% for column in section.columns %}<th scope="col">{{ column }}</th>{% endfor %}</tr></thead>
{%- endif %}
<tbody>
{%- for row in section.rows %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{%- endfor %}
</tbody>
</table>
{%- if section.more %}
<p class="more">... and {{ section.more }} more</p>
{%- endif %}
</details>
{%- endfor %}
</div>
"""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A table under a heading that opens and closes."""

    title: str
    """Its heading."""
    rows: Sequence[Sequence[object]]
    """Rows of cells; `MOST_ROWS` are enough."""
    columns: Sequence[str] = ()
    """Headings of the columns; none of facts, whose names stand in the first."""
    total: int | None = None
    """How many rows there are, where ``rows`` are fewer."""
    is_open: bool = False
    """Whether it is open at first."""

    @property
    def count(self) -> int:
        """Rows in all."""
        return len(self.rows) if self.total is None else self.total

    @property
    def more(self) -> int:
        """Rows that are not shown."""
        return self.count - len(self.rows)

    @classmethod
    def of(cls, title: str, rows: Sequence[Sequence[object]], **others: Any) -> "Section":
        """Return a section of the first `MOST_ROWS` rows."""
        return cls(title=title, rows=rows[:MOST_ROWS], total=len(rows), **others)


@cache
def _template() -> Any:
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(_TEMPLATE)


def page_part(kind: str, name: str, summary: str, sections: Sequence[Section]) -> str:
    """Return the HTML of a thing: kind, name and a line, then the sections that have rows; all text is escaped."""
    shown = [section for section in sections if section.rows]
    html: str = _template().render(kind=kind, name=name, summary=summary, sections=shown)
    return html
