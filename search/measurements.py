"""Measurements of throughput, kept in the study's own storage under all that they depend on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_modules.precision import resolve_device
from search.throughput import Candidate, Protocol
from search.throughput.conditions import describe_device

PREFIX = "measurement:"


def identity(candidate: Candidate, reference: Candidate, protocol: Protocol, device: str) -> dict[str, Any]:
    """Return all that a measurement depends on, as plain data: two that agree in it may stand for each other."""
    return {
        "architecture": candidate.architecture.fingerprint,
        "resolution": candidate.resolution,
        "reference": reference.architecture.fingerprint,
        "reference_resolution": reference.resolution,
        "protocol": protocol.model_dump(mode="json"),
        **describe_device(resolve_device(device), protocol.threads),
    }


def key(found: Mapping[str, Any]) -> str:
    """Return a short name of an identity."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


class Measurements:
    """What a study's storage holds: the newest measurement of each identity, the older ones behind it."""

    def __init__(self, opened: optuna.Study) -> None:
        self.opened = opened

    def get(self, name: str) -> dict[str, Any] | None:
        """Return the newest record of an identity's key, or None."""
        return newest(self.opened.user_attrs).get(name)

    def counts(self) -> dict[str, int]:
        """Return how often each identity, by its key, was measured."""
        names = ((name, entry) for name, entry in self.opened.user_attrs.items() if name.startswith(PREFIX))
        return {name.removeprefix(PREFIX): len(entry["records"]) for name, entry in names}

    def put(self, found: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Keep a record; what was measured before under the same identity stays behind it."""
        name = PREFIX + key(found)
        before = self.opened.user_attrs.get(name, {}).get("records", [])
        self.opened.set_user_attr(name, {"identity": dict(found), "records": [*before, dict(record)]})


def newest(attrs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return, of a study's attributes, the newest record of each key."""
    found = {name.removeprefix(PREFIX): entry for name, entry in attrs.items() if name.startswith(PREFIX)}
    return {name: entry["records"][-1] for name, entry in found.items()}


def short(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a record for a trial: with its key, without the readings of single rounds and operators."""
    record = {name: value for name, value in record.items() if name != "operators"}
    plain = {mode: {k: v for k, v in part.items() if k != "rounds"} for mode, part in modes(record).items()}
    return {**record, **plain, "key": name}


def modes(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return a record's parts by mode."""
    return {mode: record[mode] for mode in ("train", "infer", "latency") if record.get(mode)}


def speed_of(throughput: Mapping[str, Any]) -> float:
    """Return the training throughput that a search goes by: the ratio to the base, images/s where that failed.

    In the ratio the machine's drift cancels.
    """
    train = throughput["train"]
    return float(train["ratio"] if train["ratio"] is not None else train["images_per_s"])


def of_trial(trial: FrozenTrial, known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return a trial's measurement: the newest of its key in the study, or the one it was given when it ran."""
    own = trial.user_attrs.get("throughput") or {}
    return known.get(own.get("key", ""), own)
