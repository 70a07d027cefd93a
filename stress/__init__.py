"""The stress suite of deferpool: real threads against the pool, checked from outside. Run as `python -m stress`."""
