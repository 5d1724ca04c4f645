"""WHAT: the only types that cross between rooms, and how they become cells, voxels and files."""
