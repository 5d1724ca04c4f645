"""The one training entry for any stage of any system."""
