"""Collecting observations of a model's attention calls, whatever framework the model is written in."""

from .call import Call, Kind, Listener
from .record import Record
from .recorder import Keep, Recorder
from .tokens import Tokens
from .trace import Trace

__all__ = ["Call", "Keep", "Kind", "Listener", "Record", "Recorder", "Tokens", "Trace"]
