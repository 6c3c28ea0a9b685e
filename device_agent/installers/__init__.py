"""Everything that touches artifacts on the device: download, unpack, slots, and one installer per kind."""
