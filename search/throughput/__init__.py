"""The measuring instrument: what throughput is, and how it is measured."""

from search.throughput import quiet
from search.throughput.interleave import measure
from search.throughput.protocol import Protocol
from search.throughput.steps import Candidate, TimmModel

__all__ = ["Candidate", "Protocol", "TimmModel", "measure", "quiet"]
