"""Which architecture next, and which to give up: what a search decides by, usable without the rest."""

from search.strategy.pruning import ParetoPruner

__all__ = ["ParetoPruner"]
