"""What runs tell experiment trackers: MLflow, TensorBoard and Weights & Biases, behind one seam.

A tracker is told what a run's own folder keeps (`rounds.jsonl`, `summary.json`, `report.html`), and
nothing else, once it is kept there: so it knows nothing that the folder does not show. One that
fails is left out with a warning, and no run ends or waits for it.
"""
