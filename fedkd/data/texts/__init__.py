"""Texts as records: tables of them, tokenisers, and what each kind of targets makes of both."""
