"""Secure aggregation's arithmetic: what one client sends is random, what all send is their sum.

Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS
2017, over the sparse graph of Bell et al. 2020, arXiv:2006.09461. Pure functions; who says what to
whom is in `fedkd.federation.secure`.
"""
