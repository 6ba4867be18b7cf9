"""Asynchronous rounds: a step of the server once enough answers have come, whoever is late.

`loop` is to these what `federation.rounds` is to rounds that wait; the server's step is the same.
"""
