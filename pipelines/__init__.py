"""The stages of dvc.yaml, one module each: ``python -m pipelines.<stage>`` from the project's root."""
