"""Fuzzing of what strangers can send. ``python -m tests.fuzz --help`` tells how to run it.

A case is a target and a seed, and nothing else: the same two give the same bytes. Cases run in a child
process that is killed when one takes too long, and that may die without harm. A case is good when it ends
in success or in a ``FramewardenError``, within its time and memory; everything else is a finding."""
