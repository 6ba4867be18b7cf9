"""What an attacker really gets: canaries, attacks, bounds, verdicts."""
