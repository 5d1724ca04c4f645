"""WHERE: detectors as pure descriptions, and the maths of their coordinates."""
