"""Methods that average equal models, and mend how far clients drift apart meanwhile."""
