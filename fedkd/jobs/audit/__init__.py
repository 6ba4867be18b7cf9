"""Audits that must run or read a federation: plans, ledgers, releases, messages and students."""
