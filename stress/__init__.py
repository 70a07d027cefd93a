"""The stress suite: real OS threads against the pools, and a harness that believes nobody."""
