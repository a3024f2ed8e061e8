"""Saved programs (.gcx): files that run without the compiler.

save.py writes them and load.py runs them; format.py is the container, contents.py what is in it.  Running imports
neither save.py nor anything above it in the way of the data.
"""
