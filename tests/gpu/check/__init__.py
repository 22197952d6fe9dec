"""``make gpu-check``: what has run on which GPU, and how fast; the standard library is all it needs itself.

Each part runs in a process of its own: a missing package, a crash or a hang costs that part and no other."""
