"""The published systems, one readable file each."""
