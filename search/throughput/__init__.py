"""The measuring instrument: what throughput is, and how it is measured."""

from search.throughput.interleave import Candidate, measure
from search.throughput.protocol import Protocol

__all__ = ["Candidate", "Protocol", "measure"]
