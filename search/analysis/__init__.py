"""Records -> tables, effects, fronts, figures and the report."""

from search.analysis.answer import answer
from search.analysis.effects import effects
from search.analysis.fronts import front, importances
from search.analysis.records import load
from search.analysis.report import write_report
from search.analysis.tables import main_table, paper_table, summary
from search.strategy.ranking import hypervolume

__all__ = [
    "answer",
    "effects",
    "front",
    "hypervolume",
    "importances",
    "load",
    "main_table",
    "paper_table",
    "summary",
    "write_report",
]
