"""Pictures of all that a policy does: its games as video or in a window, its circuit, its page, and
how it learnt.
"""
