"""Keeps Redis, flow and server of one machine running: what `headrace up` starts."""
