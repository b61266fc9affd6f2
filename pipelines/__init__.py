"""The stages of dvc.yaml, one module each: ``python -m pipelines.<stage>`` from the project's root."""

import os

# Spinning OpenMP threads of parallel stages starve each other. Read once, when torch is imported, which comes later.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
