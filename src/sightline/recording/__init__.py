"""Collecting observations of a model's attention calls, whatever framework the model is written in."""

from .recorder import Call, Listener, Record, Recorder

__all__ = ["Call", "Listener", "Record", "Recorder"]
