"""What the evaluation must not have seen before."""

from __future__ import annotations

LEAKAGE = ["check", "passed", "detail"]
