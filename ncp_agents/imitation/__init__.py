"""Imitation learning: recording demonstrations, behaviour cloning, DAgger."""
