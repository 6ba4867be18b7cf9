"""How answers speak of targets: likelihoods, by which models learn."""
