"""The server: it answers a shop's requests from rows that it reads and never writes.

A request reads downhill: `http`, `grpc` and `graphql` → `engine` → `ranking` → `candidates` → `snapshot` → `rendering`
and `rules` → `auth`, `catalogue` and `retrieval` → `request` and `scoring`.
import-linter holds the rooms to that order; all of them may import flows, state and schemas.
Begin with `engine/pipeline.py`: one batch from top to bottom.
"""
