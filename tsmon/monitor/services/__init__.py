"""Ports that are asked over the tailnet (section 13 of docs/rules.md).

A check says something of a service, never of its node: nothing in here makes a node offline.
"""
