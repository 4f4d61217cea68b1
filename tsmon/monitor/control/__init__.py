"""What the control server knows beside what this monitor sees: the inventory, its coverage, its drift.

Never believed over the local view: no node's state comes from here.
"""
