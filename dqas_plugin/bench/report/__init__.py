"""The report on a folder of results: one HTML file with sentences, tables, curves and pictures.

sections = read("dqas-results")
write(sections, "dqas-results", Path("report.html"))
"""

from __future__ import annotations

from dqas_plugin.bench.report.page import write

__all__ = ["write"]
