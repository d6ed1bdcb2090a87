"""Collecting observations of a model's attention calls, whatever framework the model is written in."""

from .recorder import Call, Kind, Listener, Record, Recorder

__all__ = ["Call", "Kind", "Listener", "Record", "Recorder"]
