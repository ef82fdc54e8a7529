"""Conda records -> files: fetch and verify archives, link them at the prefix, read entries back.

The only package but `workspace` that imports rattler; asyncio stops here. `import ociforge.conda` imports nothing.
"""
