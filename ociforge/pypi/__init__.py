"""PyPI rows of the lock -> files: fetch and verify, build what is source, unpack wheels at the prefix.

The only package that imports `installer` and `build`. `import ociforge.pypi` imports nothing.
"""
