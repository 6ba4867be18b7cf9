"""Teachers under DP that are trained, and audited, in a second."""

DP = {
    "privacy.epsilon": 4.0,
    "privacy.sample_rate": 0.25,
    "clients.models": [{"name": "mlp", "hidden": [16]}],
    "clients.training.epochs": 2,
}
