"""Methods for clients with unlike models, and what they share."""
