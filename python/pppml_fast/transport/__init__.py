"""Transports move bytes between the state machines; they know names and bytes, no keys and no protocol."""

from __future__ import annotations

from pppml_fast.transport.base import LinkEvents, Links, Node, Outgoing, Streaming
from pppml_fast.transport.in_process import Delivery, InProcessNetwork

__all__ = ["Delivery", "InProcessNetwork", "LinkEvents", "Links", "Node", "Outgoing", "Streaming"]
