"""One file a format, each `sniff / read / write` in batches."""
